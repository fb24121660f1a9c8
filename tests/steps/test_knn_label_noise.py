from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pycurate import Recipe, plan, run
from pycurate.errors import InputError, RecipeError
from pycurate.ops.labels.label_noise import Method, knn_label_noise
from pycurate.steps import KnnLabelNoise, Threshold, make_step
from pycurate.types import UID_DTYPE


def labelled(n: int = 120) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.void]]:
    random = np.random.default_rng(0)
    true = random.integers(0, 3, n)
    x = (np.eye(3, 8)[true] * 3 + random.normal(size=(n, 8))).astype(np.float32)
    x[90:95] = x[4]
    x[7] = 0
    labels = np.where(random.random(n) < 0.3, random.integers(0, 3, n), true)
    labels[11] = -1
    uids = np.zeros(n, UID_DTYPE)
    uids["f1"] = random.permutation(n)
    return x, labels, uids


@pytest.mark.parametrize("method", ["simifeat", "simifeat-rank", "vote"])
def test_refuted_rows_are_dropped_whatever_the_shards(curate: Any, block: Any, method: Method) -> None:
    x, labels, uids = labelled()
    right = knn_label_noise(x, labels, 6, method=method, uids=uids)
    step = KnnLabelNoise(embedding="e", label="y", k=6, method=method)
    numbers = uids["f1"].astype(int).tolist()
    cuts = [slice(0, 50), slice(50, 120)]
    two = curate([step], *(block(s, uids=numbers[c], e=x[c], y=labels[c]) for s, c in zip("ab", cuts, strict=True)))
    one = curate([step], block("a", uids=numbers, e=x, y=labels.astype(np.float32)))
    keep = np.concatenate([two.keep["a"], two.keep["b"]])
    value = np.concatenate([two.value["a"], two.value["b"]])
    judged = np.delete(np.arange(120), [7, 11])
    np.testing.assert_array_equal(keep[judged], ~right.is_issue[judged])
    np.testing.assert_array_equal(value[right.is_issue].astype(np.float32), right.quality[right.is_issue])
    np.testing.assert_array_equal(one.keep["a"], keep)
    assert two.reason["a"][[7, 11]].tolist() == ["knn_label_noise.unjudged"] * 2
    assert 0 < right.is_issue.sum() < 60


def test_only_survivors_vote_unless_all_are_to(curate: Any, block: Any) -> None:
    x, labels, uids = labelled()
    a = block("a", uids=uids["f1"].astype(int).tolist(), e=x, y=labels, score=np.arange(120, dtype=np.float32))
    late = Threshold(score="score", minimum=20)
    made = curate([late, KnnLabelNoise(embedding="e", label="y", unjudged="keep")], a)
    right = knn_label_noise(x[20:], labels[20:], uids=uids[20:])
    np.testing.assert_array_equal(made.keep["a"][20:], ~right.is_issue)
    made = curate([late, KnnLabelNoise(embedding="e", label="y", of="pool", unjudged="keep")], a)
    np.testing.assert_array_equal(made.keep["a"][20:], ~knn_label_noise(x, labels, uids=uids).is_issue[20:])
    assert (
        not curate([Threshold(score="score", minimum=1e9), KnnLabelNoise(embedding="e", label="y")], a).keep["a"].any()
    )


def test_a_run_writes_the_share_of_the_label(tmp_path: Path, pool_factory: Any) -> None:
    x, labels, _ = labelled()
    pool = pool_factory.datacomp(tmp_path / "pool", 3, 40, embeddings={"e": x.astype(np.float16)}, y=labels)
    recipe = Recipe(name="test", steps=[KnnLabelNoise(embedding="e", label="y", unjudged="keep")])
    assert plan(recipe, pool).to_dict()
    run(recipe, pool, tmp_path / "out")
    ledger = pq.read_table(sorted((tmp_path / "out" / "ledger").glob("*.parquet"))).to_pydict()
    dropped = [value for keep, value in zip(ledger["keep"], ledger["value"], strict=True) if not keep]
    assert 0 < len(dropped) < 60
    assert all(0 <= value <= 0.6 for value in dropped)


def test_bad_labels_are_named(curate: Any, block: Any) -> None:
    x, labels, _ = labelled()
    with pytest.raises(RecipeError, match=r"label 'y': expected whole numbers from 0, got .*.5 in row 0 of shard a"):
        curate([KnnLabelNoise(embedding="e", label="y")], block("a", e=x, y=labels + 0.5))
    with pytest.raises(InputError, match="or -1 for none, got -2"):
        curate([KnnLabelNoise(embedding="e", label="y")], block("a", e=x, y=np.full(120, -2)))
    with pytest.raises(RecipeError, match="label is missing"):
        make_step("knn_label_noise", {"embedding": "e"})
