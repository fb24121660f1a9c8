from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pycurate
from pycurate import Recipe, open_pool, run
from pycurate.errors import MemoryCapError, RecipeError
from pycurate.steps import MinHashDedup, Threshold
from pycurate.types import UID_DTYPE


def random_captions(rows: int, seed: int = 4) -> list[str | None]:
    random = np.random.default_rng(seed)
    captions: list[str | None] = [
        " ".join(f"W{k}é" for k in random.integers(0, 5, random.integers(0, 7))) for _ in range(rows)
    ]
    captions[7] = None
    return captions


@pytest.mark.parametrize("memory_bytes", [64 << 20, 800_000])
@pytest.mark.parametrize("removal", ["greedy", "component"])
def test_the_step_is_the_function_over_the_pool(curate: Any, block: Any, removal: str, memory_bytes: int) -> None:
    rows = 300
    captions, random = random_captions(rows), np.random.default_rng(1)
    uids, scores = random.permutation(rows), random.integers(0, 5, rows).astype(float)
    options = {"n": (1, 2), "bands": 20, "rows": 3, "threshold": 0.5}
    step = MinHashDedup(removal=removal, keep={"highest": "s"}, **options)
    shards = [
        block(shard, uids=uids[part], caption=pa.array(captions[part], pa.string()), s=scores[part])
        for shard, part in (("a", slice(0, 120)), ("b", slice(120, 121)), ("c", slice(121, rows)))
    ]
    if memory_bytes < 1 << 20 and removal == "greedy":
        with pytest.raises(MemoryCapError, match=r"memory: minhash_dedup found \d+ captions that share a band"):
            curate([step], *shards, memory_bytes=20_000)
    made = curate([step], *shards, block_rows=50, memory_bytes=memory_bytes)
    rank = np.empty(rows, np.int64)
    rank[np.lexsort((uids, -scores))] = np.arange(rows)
    expected = pycurate.minhash_duplicates(pa.array(captions), rank, removal=removal, **options)
    found = np.concatenate([made.partner[shard] for shard in "abc"]).tolist()
    assert found == [None if d < 0 else int(uids[d]) for d in expected.duplicate_of]
    values = np.concatenate([made.value[shard] for shard in "abc"])
    np.testing.assert_array_equal(values, expected.similarity.astype(np.float64))
    reasons = np.concatenate([made.reason[shard] for shard in "abc"])
    empty = [not (caption or "").split() for caption in captions]
    assert (reasons == "minhash_dedup.unjudged").tolist() == empty


def test_groups_that_fit_are_compared_one_batch_at_a_time(curate: Any, block: Any) -> None:
    captions = [f"{word} one two three four" for word in "abcdefgh" for _ in range(2)]
    made = curate([MinHashDedup(n=5)], block(caption=captions), memory_bytes=10_000)
    assert made.partner["a"].tolist() == [None if row % 2 == 0 else row - 1 for row in range(16)]
    assert made.artefacts[0]["linked"] == 16


def test_rows_dropped_before_are_no_partners(curate: Any, block: Any) -> None:
    rows = block(caption=["a red house", "A red  house", "a red house", "b"], s=[0.0, 1.0, 1.0, 1.0])
    made = curate([Threshold(score="s", minimum=0.5), MinHashDedup()], rows)
    assert made.partner["a"].tolist() == [None, None, 1, None]
    made = curate([Threshold(score="s", minimum=0.5), MinHashDedup(of="pool")], rows)
    assert made.partner["a"].tolist() == [None, 0, 0, None]
    assert curate([MinHashDedup(normalise=False)], rows).partner["a"].tolist() == [None, None, 0, None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "minhash-64"}, "preset: expected 'minhash-captions', 'minhash' or 'minhash-256'"),
        ({"threshold": 1.5}, "threshold: expected less than or equal to 1"),
        ({"n": [3, 2]}, r"n: expected a number or \[lowest, highest\]"),
        ({"bands": 0}, "bands: expected greater than or equal to 1"),
        ({"tokens": "bytes"}, "tokens: expected 'words' or 'characters'"),
    ],
)
def test_errors_say_what_was_expected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        MinHashDedup(**values)


def test_the_rule_says_what_is_missed() -> None:
    rule = MinHashDedup(name="x", preset="minhash").rules({"without_value": 0})[0]
    assert rule.description == (
        "n-grams (5 words) as those of the row kept, Jaccard >= 0.75; at the threshold 0.23 of pairs are missed; "
        "kept is the lowest uid"
    )
    assert (rule.threshold, rule.names_partner) == (0.75, True)


def test_real_aerial_captions(shared_data: Path, tmp_path: Path) -> None:
    """10,500 captions, 2,032 of them different: whatever the shards, what the function says of all of them."""
    captions = pq.read_table(shared_data / "ucm_captions" / "captions.parquet")["caption"].combine_chunks()
    kept = []
    for name, cuts in {"one": [0, 10_500], "three": [0, 1000, 9000, 10_500]}.items():
        pool = tmp_path / name
        pool.mkdir()
        for start, stop in pairwise(cuts):
            part = captions[start:stop]
            uids = [f"{row:032x}" for row in range(start, stop)]
            pq.write_table(pa.table({"uid": uids, "caption": part}), pool / f"{start:05d}.parquet")
        recipe = Recipe(name="near", steps=[MinHashDedup()])
        result = run(recipe, open_pool(pool), tmp_path / f"out-{name}")
        kept.append(np.load(tmp_path / f"out-{name}" / "subset.npy"))
        assert result is not None
    np.testing.assert_array_equal(kept[0], kept[1])
    expected = pycurate.minhash_duplicates(captions, np.arange(10_500))
    assert kept[0].dtype == UID_DTYPE
    assert kept[0]["f1"].tolist() == np.flatnonzero(expected.kept).tolist()
    assert len(kept[0]) < 2032
