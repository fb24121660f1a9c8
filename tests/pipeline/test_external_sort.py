from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.errors import PoolError, WorkspaceError
from pycurate.kernels.uid import is_sorted
from pycurate.pipeline import external_sort
from pycurate.pipeline.external_sort import duplicate_keys, merge_runs, write_run
from pycurate.types import UID_DTYPE, UidArray


def as_uids(words: NDArray[np.uint64]) -> UidArray:
    return np.ascontiguousarray(words, np.uint64).reshape(-1).view(UID_DTYPE)


def keys_of(kind: str, n: int) -> UidArray:
    rng = np.random.default_rng(n)
    words = rng.integers(0, 2**64, (n, 2), dtype=np.uint64)
    if kind == "few values":
        words = words % np.uint64(3)
    elif kind == "one high word":
        words[:, 0] = 7
    elif kind == "one value":
        words[:] = 2**64 - 1
    elif kind == "consecutive":
        words = np.stack([np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
    return as_uids(words)


def written_runs(folder: Path, uids: UidArray, parts: int) -> list[Path]:
    paths = []
    for i, part in enumerate(np.array_split(uids, parts)):
        paths.append(folder / f"{i}.npy")
        write_run(paths[-1], part)
    return paths


@pytest.mark.parametrize("kind", ["random", "few values", "one high word", "one value", "consecutive"])
@pytest.mark.parametrize("n", [0, 1, 3000])
@pytest.mark.parametrize("memory_bytes", [1, 4000, 1 << 20])
def test_runs_of_any_keys_merge_in_any_memory(tmp_path: Path, kind: str, n: int, memory_bytes: int) -> None:
    if memory_bytes == 1:
        n = min(n, 100)
    uids = keys_of(kind, n)
    runs = written_runs(tmp_path, uids, 5)
    seen: list[int] = []
    assert merge_runs(runs, tmp_path / "all.npy", memory_bytes, progress=seen.append) == n
    assert sum(seen) == n
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), np.sort(uids))
    keys, counts = np.unique(uids, return_counts=True)
    found = list(duplicate_keys(runs, memory_bytes))
    np.testing.assert_array_equal(np.concatenate([keys[:0], *(part[0] for part in found)]), keys[counts > 1])
    np.testing.assert_array_equal(np.concatenate([counts[:0], *(part[1] for part in found)]), counts[counts > 1])


def test_a_range_never_holds_more_rows_than_the_memory_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sort = external_sort.sort_uids
    runs = written_runs(tmp_path, np.concatenate([keys_of("random", 5000), keys_of("consecutive", 5000)]), 7)
    monkeypatch.setattr(external_sort, "sort_uids", lambda uids: (sizes.append(len(uids)), sort(uids)))
    merge_runs(runs, tmp_path / "all.npy", 40 * 300)
    assert sum(sizes) == 10_000
    assert max(sizes) <= 300
    assert len(sizes) < 10_000 / 300 * 4  # and is not cut into crumbs


def test_write_run_sorts_a_copy(tmp_path: Path) -> None:
    uids = keys_of("random", 50)
    before = uids.copy()
    write_run(tmp_path / "a.npy", uids)
    np.testing.assert_array_equal(uids, before)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.sort(uids))


@pytest.mark.parametrize("copies", [2, 1000])
@pytest.mark.parametrize("memory_bytes", [4000, 1 << 20])
def test_unique_names_the_first_repeated_uid(tmp_path: Path, copies: int, memory_bytes: int) -> None:
    uids = keys_of("random", 2000)
    again = np.sort(uids)[[700, 1500]]
    runs = written_runs(tmp_path, np.concatenate([uids, np.repeat(again, copies - 1)]), 3)
    expected = (
        f"uid {int(again[0]['f0']):016x}{int(again[0]['f1']):016x} is there {copies} times.*--allow-duplicate-uids"
    )
    with pytest.raises(PoolError, match=expected):
        merge_runs(runs, tmp_path / "all.npy", memory_bytes, unique=True)
    assert not (tmp_path / "all.npy").exists()
    assert merge_runs(written_runs(tmp_path, uids, 3), tmp_path / "all.npy", memory_bytes, unique=True) == 2000


def test_damaged_runs_and_unwritable_output_say_so(tmp_path: Path) -> None:
    runs = written_runs(tmp_path, keys_of("random", 100), 2)
    with pytest.raises(WorkspaceError, match=r"cannot write .*the folder does not exist"):
        merge_runs(runs, tmp_path / "nowhere" / "all.npy", 4000)
    os.truncate(runs[1], 500)
    with pytest.raises(
        WorkspaceError, match=r"a run of the workspace is damaged; delete it and run again .*1\.npy is trunc"
    ):
        merge_runs(runs, tmp_path / "all.npy", 4000)
    runs[1].unlink()
    with pytest.raises(WorkspaceError, match=r"cannot read .*1\.npy"):
        list(duplicate_keys(runs, 4000))


def test_more_runs_than_files_may_be_open(tmp_path: Path) -> None:
    uids = keys_of("random", 3000)
    runs = written_runs(tmp_path, uids, 60)
    script = (
        "import resource, sys\n"
        "from pycurate.pipeline.external_sort import merge_runs\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "print(merge_runs(sys.argv[2:], sys.argv[1], 4000))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "all.npy"), *map(str, runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3000\n", "")
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), np.sort(uids))


def test_twenty_million_uids_under_128_mb(tmp_path: Path) -> None:
    """The peak of resident memory beyond that of the imported modules: no input is mapped, so all of it counts."""
    rng, runs, checksum = np.random.default_rng(0), [], np.zeros(2, np.uint64)
    for i in range(20):
        runs.append(tmp_path / f"{i:02}.npy")
        words = rng.integers(0, 2**64, (1_000_000, 2), dtype=np.uint64)
        checksum += (words * (words[:, :1] ^ words[:, 1:])).sum(axis=0)
        write_run(runs[-1], as_uids(words))
    script = (
        "import sys\n"
        "from pycurate.pipeline.external_sort import merge_runs\n"
        "def memory(name):\n"
        "    lines = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "    return int(lines[name].split()[0]) * 1024\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = memory('VmRSS')\n"
        "rows = merge_runs(sys.argv[2:], sys.argv[1], 128_000_000)\n"
        "print(rows, memory('VmHWM') - before)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "all.npy"), *map(str, runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    rows, peak_bytes = map(int, done.stdout.split())
    assert rows == 20_000_000
    assert 32_000_000 < peak_bytes < 128_000_000
    merged = np.load(tmp_path / "all.npy", mmap_mode="r")
    assert is_sorted(merged)
    words = merged.view(np.uint64).reshape(-1, 2)
    np.testing.assert_array_equal((words * (words[:, :1] ^ words[:, 1:])).sum(axis=0), checksum)
