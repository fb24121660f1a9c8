from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pycurate.errors import MemoryCapError, RecipeError
from pycurate.index.graph_build import knn_graph
from pycurate.index.kmeans import assign, kmeans
from pycurate.ops.selection.facility import facility_location
from pycurate.ops.selection.k_center import k_center
from pycurate.steps import Coreset, Threshold
from pycurate.types import Block

N = 240


def pool() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings with copies, a zero and a NaN row; uids; a score."""
    random = np.random.default_rng(0)
    x = random.normal(size=(N, 12)).astype(np.float16)
    x[100:110] = x[100]
    x[7] = 0
    x[9, 3] = np.nan
    return x, random.permutation(N), random.random(N).astype(np.float32)


def shards_of(block: Any, cuts: list[int]) -> list[Block]:
    x, uids, scores = pool()
    return [
        block(chr(ord("a") + i), emb=x[start:stop], uids=uids[start:stop], s=scores[start:stop])
        for i, (start, stop) in enumerate(pairwise([0, *cuts, N]))
    ]


def kept_uids(made: Any, cuts: list[int]) -> list[int]:
    _, uids, _ = pool()
    keep = np.concatenate([made.keep[shard] for shard in sorted(made.keep)])
    return sorted(uids[keep].tolist())


@pytest.mark.parametrize("options", [{}, {"parts": 4}, {"method": "k_center"}, {"graph": "ivf"}])
def test_it_chooses_what_the_op_chooses_in_the_order_of_uids(curate, block, options: dict[str, Any]) -> None:
    x, uids, _ = pool()
    order = np.argsort(uids)
    ordered = np.ascontiguousarray(x[order])
    if options.get("method") == "k_center":
        rows = k_center(ordered, 30).rows
    else:
        graph = knn_graph(ordered, 16, method=options.get("graph", "exact")).symmetrize()
        partition = assign(ordered, kmeans(ordered, 4).centroids).clusters if "parts" in options else None
        rows = facility_location(graph, 30, negative="zero", partition=partition).rows
    step = Coreset(embedding="emb", rows=30, **options)
    for cuts in ([], [1, 90, 239], [120]):
        made = curate([step.model_copy()], *shards_of(block, cuts)[::-1], block_rows=50)
        assert kept_uids(made, cuts) == sorted(uids[order][rows].tolist())
    assert {made.reason["a"][i] for i in (7, 9)} == {"coreset.unjudged"}
    dropped = [value for value, reason in zip(made.value["a"], made.reason["a"], strict=True) if reason == "coreset"]
    assert all(-1 <= value <= 1 for value in dropped)


def test_only_rows_that_earlier_steps_left_are_represented(curate, block) -> None:
    x, uids, scores = pool()
    steps = [Threshold(score="s", minimum=0.5), Coreset(embedding="emb", fraction=0.1)]
    made = curate(steps, *shards_of(block, [100]), block_rows=50)
    left = np.flatnonzero(scores >= 0.5)
    left = left[np.argsort(uids[left])]
    judged = np.isfinite(x[left]).all(axis=1) & (x[left] != 0).any(axis=1)
    rows = facility_location(
        knn_graph(np.ascontiguousarray(x[left]), 16).symmetrize(), int(judged.sum() * 0.1), negative="zero"
    ).rows
    assert kept_uids(made, [100]) == sorted(uids[left[rows]].tolist())


@pytest.mark.parametrize(("method", "text"), [("facility_location", "of the largest objective"), ("k_center", "rad, ")])
def test_the_rule_says_how_good_the_choice_is(curate, block, method: Any, text: str) -> None:
    step = Coreset(embedding="emb", rows=5, method=method)
    made = curate([step], *shards_of(block, []), block_rows=50)
    description = step.rules(made.artefacts[0])[0].description
    assert description.startswith("one of the 5 rows that represent 238 best (")
    assert text in description


def test_nothing_left_or_nothing_judged_keeps_nothing(curate, block) -> None:
    steps = [Threshold(score="s", minimum=2), Coreset(embedding="emb", rows=5)]
    assert not curate(steps, *shards_of(block, []), block_rows=50).keep["a"].any()
    made = curate([Coreset(embedding="emb", fraction=0.5)], block(emb=np.zeros((4, 3), np.float32)))
    assert made.reason["a"].tolist() == ["coreset.unjudged"] * 4


def test_more_rows_than_there_are_and_too_little_memory_are_named(curate, block) -> None:
    with pytest.raises(
        RecipeError, match="coreset: rows: expected at most the 238 rows left that can be judged, got 239"
    ):
        curate([Coreset(embedding="emb", rows=239)], *shards_of(block, []), block_rows=50)
    with pytest.raises(MemoryCapError, match="coreset: facility_location of 240 rows takes 0 MiB"):
        curate([Coreset(embedding="emb", rows=5)], *shards_of(block, []), block_rows=50, memory_bytes=1 << 17)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"embedding": "e"}, "coreset: expected one of rows and fraction"),
        ({"embedding": "e", "rows": 3, "fraction": 0.5}, "coreset: expected one of rows and fraction"),
        ({"embedding": "e", "rows": 0}, "rows: expected greater than or equal to 1, got 0"),
        ({"embedding": "e", "rows": 3, "method": "kcenter"}, "method: expected 'facility_location' or 'k_center'"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Coreset(**parameters)
