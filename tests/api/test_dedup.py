"""Semantic deduplication of arrays and pools equals its definition, and any threshold above the floor is a mask."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pycurate.api.dedup import dedup
from pycurate.api.dedup_settings import Settings
from pycurate.api.dedup_store import DuplicateStore
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.pool import open_pool
from pycurate.io.subset import Subset
from pycurate.kernels.uid import format_hex, parse_hex
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.cluster_join import Clustering
from pycurate.reference import removal as reference
from pycurate.reference.fused_similarity import copy_of as copies_of
from pycurate.reference.fused_similarity import similarities as similarity_matrix

REMOVALS: tuple[Removal, ...] = ("published", "greedy", "component")


def make_rows(n: int = 120, d: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """Near-copies by threes, clumps of equal bits, rows that cannot be judged, two of them with the same bits."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d), dtype=np.float32)
    x[n // 2 : n // 2 + n // 3] = x[: n // 3] + 0.1 * random.standard_normal((n // 3, d), dtype=np.float32)
    x[[7, 40, 41, 100, n - 1]] = x[3]
    x[[62, 20, 99]] = x[11]
    x[5] = np.nan
    x[[17, 77]] = 0
    return x


def expected(x: NDArray[Any], rank: NDArray[np.int64], removal: Removal, threshold: float, strict: bool) -> Any:
    matrix = similarity_matrix(x, None, "cosine")
    if removal == "greedy":
        copies = copies_of(x)
        copies[[5, 17, 77]] = -1
        return reference.greedy(matrix, rank, threshold, strict, copies)
    return getattr(reference, removal)(matrix, rank, threshold, strict)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("removal", REMOVALS)
def test_any_threshold_from_the_floor_on_is_that_of_the_definition(
    tmp_path: Path, removal: Removal, strict: bool
) -> None:
    x, n = make_rows(), 120
    found = dedup(x, tmp_path / "out", removal=removal, threshold=0.95, floor=0.3, strict=strict)
    store = DuplicateStore(tmp_path / "out")
    limits = [0.95, 0.3, 0.5, 0.8, 0.99, 1.0]
    kept = store.curve(limits)
    for limit, count in zip(limits, kept.tolist(), strict=True):
        right = expected(x, np.arange(n), removal, limit, strict)
        at = store.at(limit)
        np.testing.assert_array_equal(at.duplicate_of, right[0])
        np.testing.assert_array_equal(at.similarity, right[1])
        assert count == np.count_nonzero(right[0] < 0)
    assert found.outcome.kept == kept[0]
    assert found.manifest["unjudged"] == {"rows": 3, "first": [f"{row:032x}" for row in (5, 17, 77)]}
    assert found.duplicates.kept[[5, 17, 77]].all()
    assert not (tmp_path / "out" / "search").exists()


@pytest.mark.parametrize("removal", REMOVALS)
def test_the_files_name_partner_keeper_and_similarity(tmp_path: Path, removal: Removal) -> None:
    x = make_rows()
    matrix = similarity_matrix(x, None, "cosine")
    found = dedup(x, tmp_path / "out", removal=removal, threshold=0.7, floor=0.3)
    right = expected(x, np.arange(120), removal, 0.7, False)
    rows = np.flatnonzero(right[0] >= 0)
    assert Subset.load(tmp_path / "out" / "subset.npy").uids["f1"].tolist() == np.flatnonzero(right[0] < 0).tolist()
    removed = pq.read_table(tmp_path / "out" / "removed.parquet").to_pydict()
    assert [int(uid, 16) for uid in removed["uid"]] == rows.tolist()
    assert [int(uid, 16) for uid in removed["partner_uid"]] == right[0][rows].tolist()
    np.testing.assert_array_equal(np.array(removed["similarity"], np.float32), right[1][rows])
    assert set(removed["threshold"]) == {0.7}
    groups = pq.read_table(tmp_path / "out" / "groups.parquet").to_pylist()
    assert sum(row["rule"] is not None for row in groups) == len(rows)
    for place, row in enumerate(groups):
        uid, keeper = int(row["uid"], 16), int(row["keeper_uid"], 16)
        assert right[0][keeper] < 0
        if place == 0 or row["group"] != groups[place - 1]["group"]:
            assert uid == keeper
        if uid == keeper:
            assert {row[name] for name in ("partner_uid", "similarity", "keeper_similarity", "rule")} == {None}
        else:
            assert row["similarity"] == right[1][uid]
            assert row["keeper_similarity"] == matrix[uid, keeper]
            assert int(row["partner_uid"], 16) == right[0][uid]
            assert row["rule"] == f"{removal} by cosine"
    near = [row["keeper_similarity"] for row in groups if row["keeper_similarity"] is not None]
    below = [similarity for similarity in near if similarity < np.float32(0.7)]
    chain = found.outcome.chain
    if removal == "greedy":
        assert not below
        assert chain is None
    else:
        assert chain is not None
        assert chain.rows == len(below) > 0
        assert chain.similarity == min(below)
        assert "chains" in found.render()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == found.manifest


def test_settings_have_the_names_and_defaults_of_dedup() -> None:
    takes = inspect.signature(dedup).parameters
    for field in fields(Settings):
        assert takes[field.name].default == field.default
    assert set(takes) - {field.name for field in fields(Settings)} == {
        "rows", "out", "embedding", "memory_bytes", "threads", "device", "progress",
    }  # fmt: skip


def test_greedy_goes_by_blocks_where_pairs_are_too_many(tmp_path: Path) -> None:
    x = make_rows()
    found = dedup(x, tmp_path / "out", removal="greedy", threshold=0.7, max_pairs=10)
    right = expected(x, np.arange(120), "greedy", 0.7, False)
    np.testing.assert_array_equal(found.duplicates.duplicate_of, right[0])
    np.testing.assert_array_equal(found.duplicates.similarity, right[1])
    assert found.store.only_threshold == 0.7
    assert found.store.curve([0.7]).tolist() == [np.count_nonzero(right[0] < 0)]
    with pytest.raises(InputError, match=r"^threshold: 0\.8 cannot be answered: this search had more than 10 pairs"):
        found.store.at(0.8)


def test_another_threshold_reads_no_embedding_and_below_the_floor_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "rows.npy"
    np.save(source, make_rows())
    for removal in ("published", "greedy"):
        dedup(source, tmp_path / removal, removal=removal, eps=0.1)
    first = dedup(source, tmp_path / "anew", removal="greedy", eps=0.05, floor=0.8)
    again = dedup(source, tmp_path / "greedy", removal="greedy", eps=0.05)
    np.testing.assert_array_equal(first.duplicates.duplicate_of, again.duplicates.duplicate_of)
    assert again.store.floor == pytest.approx(0.8)
    with pytest.raises(InputError, match=r"^threshold: 0\.7 is below 0\.8, the floor of this search"):
        dedup(source, tmp_path / "greedy", removal="greedy", threshold=0.7)
    lower = dedup(source, tmp_path / "greedy", removal="greedy", threshold=0.7, floor=0.6)
    assert lower.store.floor == 0.6
    source.unlink()
    assert len(DuplicateStore(tmp_path / "greedy").at(0.9).kept) == 120


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cut", r"rows: .*cut\.npy cannot be read as \.npy \(.*could only read .*\); write it again with numpy\.save"),
        ("empty", r"rows: .*empty\.npy cannot be read as \.npy \(No data left in file\); write it again"),
        ("text", r"rows: .*text\.npy cannot be read as \.npy \(it is no file of numpy\.save\); write it again"),
        ("float64", r"rows: expected float16, .* got dtype float64; convert it .* \(in .*float64\.npy\)"),
        ("one", r"rows: expected a 2-D array \(n, d\), got 1-D \(in .*one\.npy\)"),
        ("fortran", r"rows: expected adjacent elements in each row .* \(in .*fortran\.npy\)"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, name: str, sentence: str) -> None:
    x, path = make_rows(), tmp_path / f"{name}.npy"
    arrays = {"float64": x.astype(np.float64), "one": x[0], "fortran": np.asfortranarray(x)}
    np.save(path, arrays.get(name, x))
    if name in ("cut", "empty", "text"):
        path.write_bytes({"cut": path.read_bytes()[:-100], "empty": b"", "text": b"rows"}[name])
    for mode in ("exact", "clustered"):
        with pytest.raises(InputError, match=sentence):
            dedup(path, tmp_path / "out", mode=mode)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    x = make_rows()
    dedup(x, tmp_path / "out", eps=0.1)
    with pytest.raises(WorkspaceError, match=r"holds a search with another removal \('published', now 'greedy'\)"):
        dedup(x, tmp_path / "out", removal="greedy")
    with pytest.raises(WorkspaceError, match=r"holds a search with another rows \(an array of 120 rows"):
        dedup(x[:100], tmp_path / "out")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".pycurate.json.1-2.tmp").touch()  # by a run that was killed as it began
    dedup(x, tmp_path / "killed")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(WorkspaceError, match="is not empty and is not from an earlier pycurate run"):
        dedup(x, tmp_path / "else")


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_pool_is_read_where_it_lies_or_copied_and_ties_go_by_uid(
    tmp_path: Path, pool_factory: Any, removal: Removal, compressed: bool
) -> None:
    x = make_rows().astype(np.float16)
    random = np.random.default_rng(1)
    score = random.integers(0, 4, 120).astype(np.float32)
    score[60] = np.nan
    path = pool_factory.datacomp(
        tmp_path / "pool", 3, 40, embeddings={"e": x}, compressed=compressed, clip_b32_similarity_score=score
    )
    found = dedup(
        path, tmp_path / "out", removal=removal, eps=0.3, priority="clip_b32_similarity_score", memory_bytes=300 << 20
    )
    assert (tmp_path / "out" / "rows").exists() == compressed
    uids = np.concatenate([b.uids for s in open_pool(path).shards for b in s.blocks()])
    keys = [(-s if s == s else np.inf, *u) for s, u in zip(score, uids.tolist(), strict=True)]
    rank = np.empty(120, np.int64)
    rank[sorted(range(120), key=keys.__getitem__)] = np.arange(120)
    right = expected(x, rank, removal, 0.7, False)
    np.testing.assert_array_equal(found.duplicates.duplicate_of, right[0])
    assert Subset.load(tmp_path / "out" / "subset.npy") == Subset.from_uids(uids[right[0] < 0])


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "exact"},
        {"mode": "clustered", "clustering": Clustering(9, 0), "priority": "hard"},
        {"mode": "clustered", "clustering": Clustering(9, 1, init="k-means||")},
        {"mode": "clustered", "clustering": Clustering(9, 1), "max_pairs": 3},
    ],
)
@pytest.mark.parametrize("removal", REMOVALS)
def test_files_do_not_depend_on_the_order_of_shards_and_threads(
    tmp_path: Path, pool_factory: Any, removal: Removal, settings: dict[str, Any]
) -> None:
    """The same rows in two pools, cut and ordered differently."""
    x = make_rows()
    hexes = [f"{(i * 7919) % 120:032x}" for i in range(120)]
    order = np.random.default_rng(2).permutation(120)
    pools = [
        pool_factory.datacomp(tmp_path / "a", 3, 40, embeddings={"e": x}, uid=hexes),
        pool_factory.datacomp(tmp_path / "b", 4, 30, embeddings={"e": x[order]}, uid=[hexes[i] for i in order]),
    ]
    outs = []
    for pool, threads in zip(pools, (1, 2), strict=True):
        out = tmp_path / f"out-{pool.name}"
        dedup(pool, out, removal=removal, eps=0.3, threads=threads, **settings)
        outs.append([(out / name).read_bytes() for name in ("subset.npy", "removed.parquet", "groups.parquet")])
    assert outs[0] == outs[1]


def test_priorities_that_rows_do_not_have_are_refused(tmp_path: Path, pool_factory: Any) -> None:
    with pytest.raises(InputError, match=r"^priority: expected 'uid' for rows of an array"):
        dedup(make_rows(), tmp_path / "out", priority="score")
    pool = pool_factory.datacomp(tmp_path / "pool")
    with pytest.raises(InputError, match=r"no column 'scores'"):
        dedup(pool, tmp_path / "out", embedding="b32_img", priority="scores")
    with pytest.raises(InputError, match=r"^embedding: the pool has no embedding"):
        dedup(pool, tmp_path / "out")
    with pytest.raises(InputError, match=r"^priority: expected a column of numbers, got 'text', which is string"):
        dedup(pool, tmp_path / "out", embedding="b32_img", priority="text")
    with pytest.raises(InputError, match=r"^priority: 'hard' orders rows by their distance to a centroid"):
        dedup(pool, tmp_path / "out", embedding="b32_img", priority="hard")
    area = dedup(pool, tmp_path / "out", embedding="b32_img", priority="image_area", eps=0.1)
    table = pq.read_table(sorted(pool.glob("*.parquet")), columns=["uid", "original_width", "original_height"])
    best = np.argmax(np.array(table["original_width"]) * np.array(table["original_height"]))
    first = area.store.uids[np.flatnonzero(area.store.rank == 0)]
    assert format_hex(first)[0].decode() == table["uid"][int(best)].as_py()


def test_thresholds_that_are_none_are_refused(tmp_path: Path) -> None:
    x = make_rows()
    with pytest.raises(InputError, match=r"^eps, threshold: expected one of the two"):
        dedup(x, tmp_path / "out", eps=0.1, threshold=0.9)
    with pytest.raises(InputError, match=r"^threshold: expected a cosine from -1 to 1"):
        dedup(x, tmp_path / "out", threshold=1.5)
    with pytest.raises(InputError, match=r"^floor: expected -1 to the threshold, 0\.9, got 0\.95"):
        dedup(x, tmp_path / "out", threshold=0.9, floor=0.95)
    with pytest.raises(ValueError, match=r"^removal: expected 'published', 'greedy' or 'component'"):
        dedup(x, tmp_path / "out", removal="any")  # type: ignore[arg-type]


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_thresholds_at_both_ends(tmp_path: Path, removal: Removal, threshold: float) -> None:
    x = make_rows()
    found = dedup(x, tmp_path / "out", removal=removal, threshold=threshold)
    right = expected(x, np.arange(120), removal, threshold, False)
    np.testing.assert_array_equal(found.duplicates.duplicate_of, right[0])


@pytest.mark.parametrize("removal", REMOVALS)
def test_empty_and_identical_rows(tmp_path: Path, removal: Removal) -> None:
    none = dedup(np.empty((0, 4), np.float32), tmp_path / "none", removal=removal)
    assert (none.outcome.kept, none.outcome.groups) == (0, 0)
    one = dedup(np.ones((1, 4), np.float16), tmp_path / "one", removal=removal)
    assert one.outcome.kept == 1
    same = dedup(np.ones((500, 4), np.float32), tmp_path / "same", removal=removal)
    assert (same.outcome.kept, same.outcome.largest_group) == (1, 500)
    assert parse_hex(np.array([b"0" * 32], "S32")) == Subset.load(tmp_path / "same" / "subset.npy").uids
