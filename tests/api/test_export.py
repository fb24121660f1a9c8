"""export_parquet: the kept rows of a pool's parquet files, every column as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pycurate.io.export as export_module
from pycurate.api.export import export_parquet
from pycurate.errors import InputError, PoolError, WorkspaceError
from pycurate.io.pool import open_pool
from pycurate.io.subset import Subset


def tables(folder: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted(folder.glob("*.parquet"))}


def kept_rows(table: pa.Table, kept: set[str]) -> pa.Table:
    return table.filter(pa.array([uid in kept for uid in table["uid"].to_pylist()]))


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Path:
    boxes = [[[0.5, i / 7]] * (i % 3) if i % 4 else None for i in range(600)]
    made: Path = pool_factory.datacomp(tmp_path / "pool", shards=3, rows=200, face_bboxes=boxes)
    return made


def test_kept_rows_with_every_column(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "BLOCK_ROWS", 32)
    monkeypatch.setattr(export_module, "GROUP_ROWS", 50)
    stored = tables(pool)
    uids = [uid for table in stored.values() for uid in table["uid"].to_pylist()]
    wanted = uids[::3] + uids[:20] + ["0" * 32]  # a repeated uid is one row, and a stranger none
    result = export_parquet(pool, Subset.from_hex(wanted), tmp_path / "out", workers=2)
    made = tables(tmp_path / "out")
    assert list(made) == list(stored)
    for name, table in stored.items():
        assert made[name].equals(kept_rows(table, set(wanted)))
        assert pq.ParquetFile(tmp_path / "out" / name).num_row_groups > 1
    assert (result.files, result.rows, result.reused) == (3, len(set(wanted)) - 1, 0)
    assert open_pool(tmp_path / "out").rows == result.rows


def test_the_rows_of_a_split_file_stay_together(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pycurate.io.pool as pool_module

    monkeypatch.setattr(pool_module, "MAX_SHARD_ROWS", 64)
    opened = open_pool(pool)
    assert len(opened.shards) == 3 * 4
    stored = tables(pool)
    kept = {uid for table in stored.values() for uid in table["uid"].to_pylist()[50:150:2]}
    export_parquet(opened, Subset.from_hex(kept), tmp_path / "out", workers=1)
    made = tables(tmp_path / "out")
    assert list(made) == list(stored)
    assert all(table.equals(kept_rows(stored[name], kept)) for name, table in made.items())


def test_uids_from_the_place_of_a_row(tmp_path: Path, pool_factory: Any) -> None:
    root = pool_factory.plain(tmp_path / "pool", shards=2, rows=30)
    opened = open_pool(root)
    uids = np.concatenate([block.uids for shard in opened.shards for block in shard.blocks()])
    result = export_parquet(root, Subset.from_uids(uids[40:45].copy()), tmp_path / "out", workers=1)
    assert (result.files, result.rows) == (1, 5)
    assert tables(tmp_path / "out")["features_1.parquet"].equals(tables(root)["features_1.parquet"].slice(10, 5))


def test_another_call_reuses_and_replaces(pool: Path, tmp_path: Path) -> None:
    stored = tables(pool)
    first, second, third = (table["uid"].to_pylist() for table in stored.values())
    out = tmp_path / "out"
    subset = Subset.from_hex(first[:5] + second[:5])
    assert export_parquet(pool, subset, out, workers=1).reused == 0
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    again = export_parquet(pool, subset, out, workers=1)
    assert (again.files, again.rows, again.reused) == (2, 10, 3)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")} == times
    (out / ".half.tmp").write_bytes(b"left by a killed run")
    other = export_parquet(pool, Subset.from_hex(third[:7]), out, workers=1)
    assert (other.files, other.rows, other.reused) == (1, 7, 0)
    assert [path.name for path in out.iterdir() if path.suffix in (".parquet", ".tmp")] == [list(stored)[2]]


def test_files_that_the_pool_no_longer_has_go(pool: Path, tmp_path: Path) -> None:
    stored = tables(pool)
    uids = Subset.from_hex(uid for table in stored.values() for uid in table["uid"].to_pylist())
    export_parquet(pool, uids, tmp_path / "out", workers=1)
    gone = next(iter(stored))
    for suffix in (".parquet", ".npz"):
        (pool / gone).with_suffix(suffix).unlink()
    assert export_parquet(pool, uids, tmp_path / "out", workers=1).files == 2
    assert sorted(tables(tmp_path / "out")) == sorted(stored)[1:]


def test_bad_arguments_are_said(pool: Path, tmp_path: Path, pool_factory: Any) -> None:
    subset = Subset.from_hex([])
    with pytest.raises(InputError, match=r"out: .* is the folder of the pool; choose another"):
        export_parquet(pool, subset, pool)
    with pytest.raises(InputError, match="workers: expected at least 1, got 0"):
        export_parquet(pool, subset, tmp_path / "out", workers=0)
    without = pool_factory.plain(tmp_path / "npy", parquet=False)
    with pytest.raises(InputError, match="pool: shard features_0 has no parquet file"):
        export_parquet(without, subset, tmp_path / "out")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x").write_text("precious")
    with pytest.raises(WorkspaceError, match="is not empty and is not from an earlier pycurate run"):
        export_parquet(pool, subset, tmp_path / "foreign")


def test_a_damaged_file_is_named(pool: Path, tmp_path: Path) -> None:
    opened = open_pool(pool)
    subset = Subset.from_hex(uid for table in tables(pool).values() for uid in table["uid"].to_pylist())
    path = next(pool.glob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) - 100))
    with pytest.raises(PoolError, match=rf"{path.stem}"):
        export_parquet(opened, subset, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / path.name).exists()
