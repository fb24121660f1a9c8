"""Appended rows: old decisions stay, and the result is that of one run in the order of (batch, priority, uid)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.dedup import dedup
from pycurate.api.dedup_append import dedup_append
from pycurate.errors import InputError
from pycurate.io.pool import open_pool
from pycurate.io.subset import Subset
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.reference import removal as reference
from pycurate.reference.fused_similarity import copy_of as copies_of
from pycurate.reference.fused_similarity import similarities as similarity_matrix

REMOVALS: tuple[Removal, ...] = ("published", "greedy", "component")
UNJUDGED = [5, 61, 100]


def make_rows(seed: int = 0) -> NDArray[np.float32]:
    """130 rows whose near-copies and copies lie in all of the batches 0-59, 60-99, 100-129."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((25, 6), dtype=np.float32)
    x = centers[random.integers(0, 25, 130)] + 0.2 * random.standard_normal((130, 6), dtype=np.float32)
    x[[8, 40, 41, 70, 99, 120, 121]] = x[3]
    x[[90, 110]] = x[65]
    x[[125, 126]] = x[124]
    x[5] = np.nan
    x[[61, 100]] = 0
    return x


def expected(
    x: NDArray[np.float32], rank: NDArray[np.int64], removal: Removal, limit: float, strict: bool, ends: list[int]
) -> Any:
    """The definition over all rows; of component, each batch by the rows up to its end."""
    matrix = similarity_matrix(x, None, "cosine")
    if removal == "published":
        return reference.published(matrix, rank, limit, strict)
    if removal == "greedy":
        copies = copies_of(x)
        copies[UNJUDGED] = -1
        return reference.greedy(matrix, rank, limit, strict, copies)
    duplicate_of, similarity, begin = np.full(len(x), -1), np.full(len(x), np.nan, np.float32), 0
    for end in ends:
        found = reference.component(matrix[:end, :end], rank[:end], limit, strict)
        duplicate_of[begin:end], similarity[begin:end] = found[0][begin:], found[1][begin:]
        begin = end
    return duplicate_of, similarity


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("seed", [0, 1])
def test_two_batches_are_appended_as_one_run_would_decide(
    tmp_path: Path, removal: Removal, strict: bool, seed: int
) -> None:
    x = make_rows(seed)
    before = dedup(x[:60], tmp_path / "a", removal=removal, threshold=0.9, floor=0.5, strict=strict)
    dedup_append(x[60:100], tmp_path / "b", tmp_path / "a")
    found = dedup_append(x[100:], tmp_path / "c", tmp_path / "b", threshold=0.8)
    assert found.store.floor == 0.5
    limits = [0.8, 0.5, 0.9, 0.95, 0.99, 1.0]
    kept = found.store.curve(limits)
    for limit, count in zip(limits, kept.tolist(), strict=True):
        right = expected(x, np.arange(130), removal, limit, strict, [60, 100, 130])
        at = found.store.at(limit)
        np.testing.assert_array_equal(at.duplicate_of, right[0])
        np.testing.assert_array_equal(at.similarity, right[1])
        assert count == np.count_nonzero(right[0] < 0)
        np.testing.assert_array_equal(at.duplicate_of[:60], before.store.at(limit).duplicate_of)
    assert found.manifest["unjudged"]["rows"] == 3
    assert [batch["rows"] for batch in found.manifest["batches"]] == [60, 40, 30]
    again = dedup_append(x[100:], tmp_path / "c", tmp_path / "b", threshold=0.9)
    assert again.outcome.kept == kept[2]


def test_greedy_by_blocks_goes_on_from_the_rows_kept_before(tmp_path: Path) -> None:
    x = make_rows()
    right = expected(x, np.arange(130), "greedy", 0.8, False, [])
    for name, most in (("pairs", 20_000_000), ("blocks", 5)):
        dedup(x[:60], tmp_path / name, removal="greedy", threshold=0.8, max_pairs=most)
        found = dedup_append(x[60:], tmp_path / f"{name}-all", tmp_path / name, max_pairs=5)
        np.testing.assert_array_equal(found.duplicates.duplicate_of, right[0])
        np.testing.assert_array_equal(found.duplicates.similarity, right[1])
        assert found.store.only_threshold == 0.8


def test_components_of_too_many_pairs_need_none(tmp_path: Path) -> None:
    x = make_rows()
    dedup(x[:60], tmp_path / "a", removal="component", threshold=0.8)
    found = dedup_append(x[60:], tmp_path / "b", tmp_path / "a", max_pairs=5)
    right = expected(x, np.arange(130), "component", 0.8, False, [60, 130])
    np.testing.assert_array_equal(found.duplicates.duplicate_of, right[0])
    np.testing.assert_array_equal(found.duplicates.similarity, right[1])
    assert found.store.curve([0.8])[0] == np.count_nonzero(right[0] < 0)


@pytest.mark.parametrize("removal", REMOVALS)
def test_pools_are_appended_by_batch_priority_and_uid(tmp_path: Path, pool_factory: Any, removal: Removal) -> None:
    x = make_rows()
    random = np.random.default_rng(3)
    score = random.integers(0, 3, 130).astype(np.float32)
    pools = [
        pool_factory.datacomp(
            tmp_path / f"pool{i}", 2, len(part) // 2, i, embeddings={"e": x[part]}, compressed=i == 1,
            clip_b32_similarity_score=score[part],
        )
        for i, part in enumerate((np.arange(60), np.arange(60, 100)))
    ]  # fmt: skip
    dedup(pools[0], tmp_path / "a", removal=removal, threshold=0.8, priority="clip_b32_similarity_score")
    found = dedup_append(pools[1], tmp_path / "b", tmp_path / "a")
    uids = np.concatenate([b.uids for p in pools for s in open_pool(p).shards for b in s.blocks()])
    keys = [(row >= 60, -score[row], *uid) for row, uid in enumerate(uids.tolist())]
    rank = np.empty(100, np.int64)
    rank[sorted(range(100), key=keys.__getitem__)] = np.arange(100)
    right = reference_of(x[:100], rank, removal)
    np.testing.assert_array_equal(found.duplicates.duplicate_of, right[0])
    assert Subset.load(tmp_path / "b" / "subset.npy") == Subset.from_uids(uids[right[0] < 0])


def reference_of(x: NDArray[np.float32], rank: NDArray[np.int64], removal: Removal) -> Any:
    matrix = similarity_matrix(x, None, "cosine")
    if removal == "greedy":
        copies = copies_of(x)
        copies[[5, 61]] = -1
        return reference.greedy(matrix, rank, 0.8, False, copies)
    if removal == "component":
        first = reference.component(matrix[:60, :60], rank[:60], 0.8, False)
        both = reference.component(matrix, rank, 0.8, False)
        return np.concatenate([first[0], both[0][60:]]), np.concatenate([first[1], both[1][60:]])
    return reference.published(matrix, rank, 0.8, False)


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_stopped_append_goes_on_and_writes_the_same_bytes(
    tmp_path: Path, removal: Removal, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = make_rows()
    dedup(x[:60], tmp_path / "a", removal=removal, threshold=0.8)
    dedup_append(x[60:], tmp_path / "whole", tmp_path / "a")
    finished = TaskFolder.finish
    for stop_after in range(3):
        left = stop_after

        def stopping(folder: TaskFolder, *given: Any, **facts: Any) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            finished(folder, *given, **facts)

        with monkeypatch.context() as patched:
            patched.setattr(TaskFolder, "finish", stopping)
            with contextlib.suppress(KeyboardInterrupt):
                dedup_append(x[60:], tmp_path / "stopped", tmp_path / "a")
    dedup_append(x[60:], tmp_path / "stopped", tmp_path / "a")
    for name in ("subset.npy", "removed.parquet", "groups.parquet", "manifest.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_rows_of_another_kind_and_other_thresholds_are_refused(tmp_path: Path) -> None:
    x = make_rows()
    dedup(x[:60], tmp_path / "a", threshold=0.9)
    with pytest.raises(InputError, match=r"^rows: expected 6 elements of float32 as the earlier rows have"):
        dedup_append(x[:, :5].copy(), tmp_path / "b", tmp_path / "a")
    with pytest.raises(InputError, match=r"^threshold: 0\.5 is below 0\.8, the floor"):
        dedup_append(x, tmp_path / "b", tmp_path / "a", threshold=0.5)
    with pytest.raises(InputError, match="holds no finished search"):
        dedup_append(x, tmp_path / "b", tmp_path / "nothing")
