from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate.errors import WorkspaceError
from pycurate.pipeline.pool_rows import new_array, scatter
from pycurate.pipeline.record_sort import RecordSort


def in_order(records: np.ndarray, key_columns: int) -> np.ndarray:
    return records[np.lexsort(records[:, :key_columns].T[::-1])]


@pytest.mark.parametrize("memory_bytes", [1, 2_000, 1 << 20])
@pytest.mark.parametrize(("columns", "key_columns"), [(1, 1), (2, 2), (3, 3), (5, 4), (7, 3)])
@pytest.mark.parametrize("rows", [0, 1, 2, 129, 1000])
def test_ranges_together_are_all_records_in_order(
    tmp_path: Path, rows: int, columns: int, key_columns: int, memory_bytes: int
) -> None:
    random = np.random.default_rng(rows + columns)
    records = random.integers(0, 4, (rows, columns)).astype(np.uint64) << np.uint64(62)  # many ties, all bits
    records[:, key_columns - 1] = random.permutation(rows)
    with RecordSort(tmp_path / "records", columns, key_columns) as sort:
        for start in range(0, rows, 37):
            sort.append(records[start : start + 37])
        assert sort.rows == rows
        parts = list(sort.ranges(memory_bytes))
        again = list(sort.ranges(1 << 20))
    expected = in_order(records, key_columns)
    for found in (parts, again):
        assert np.array_equal(np.concatenate([records[:0], *found]), expected)
    assert memory_bytes > 1 or all(len(part) == 1 for part in parts)
    assert not list(tmp_path.iterdir())


def test_records_of_one_key_but_the_row_are_cut_too(tmp_path: Path) -> None:
    records = np.zeros((300_000, 3), np.uint64)
    records[:, 2] = np.random.default_rng(0).permutation(len(records))
    with RecordSort(tmp_path / "records", 3, 3) as sort:
        sort.append(records)
        parts = list(sort.ranges(5_000_000))
    assert len(parts) > 2
    assert np.array_equal(np.concatenate(parts)[:, 2], np.arange(len(records), dtype=np.uint64))


def test_records_may_be_appended_from_many_threads(tmp_path: Path) -> None:
    with RecordSort(tmp_path / "records", 1, 1) as sort, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: sort.append(np.arange(i, 8000, 8, dtype=np.uint64)[:, None]), range(8)))
        assert np.array_equal(np.concatenate(list(sort.ranges(9_000)))[:, 0], np.arange(8000, dtype=np.uint64))


def test_a_file_cut_behind_our_back_is_an_error(tmp_path: Path) -> None:
    with RecordSort(tmp_path / "records", 2, 2) as sort:
        sort.append(np.ones((5, 2), np.uint64))
        with open(tmp_path / "records", "r+b") as file:
            file.truncate(50)
        with pytest.raises(WorkspaceError, match="became shorter"):
            list(sort.ranges(1 << 20))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "posix_fallocate", full)
    told = r"cannot write .*records: the disk is full; free some space"
    with RecordSort(tmp_path / "records", 2, 2) as sort, pytest.raises(WorkspaceError, match=told):
        sort.append(np.ones((5, 2), np.uint64))
    with pytest.raises(WorkspaceError, match=r"cannot write .*ranks: the disk is full; free some space"):
        new_array(tmp_path / "ranks", np.int64, (7,))


def test_a_new_array_takes_its_space_at_once(tmp_path: Path) -> None:
    made = new_array(tmp_path / "a", "u8,u8", (1000, 3))
    assert (made.shape, made.dtype, (tmp_path / "a").stat().st_size) == ((1000, 3), np.dtype("u8,u8"), 48_000)
    assert (tmp_path / "a").stat().st_blocks * 512 >= 48_000
    made["f0"][999, 2] = 7
    assert new_array(tmp_path / "b", np.int8, (0,)).shape == (0,)


@pytest.mark.parametrize("memory_bytes", [1, 64, 1000, 1 << 20])
def test_values_are_scattered_by_stretches(tmp_path: Path, memory_bytes: int) -> None:
    random = np.random.default_rng(1)
    array, expected = new_array(tmp_path / "a", np.float32, (500,)), np.zeros(500, np.float32)
    for count in (0, 1, 300):
        rows = random.permutation(500)[:count]
        values = random.random(count, np.float32)
        scatter(array, rows, values, memory_bytes)
        expected[rows] = values
        assert np.array_equal(array, expected)
    scatter(array, np.array([499, 0]), 7.0, memory_bytes)
    assert (array[0], array[499], array[1]) == (7, 7, expected[1])
