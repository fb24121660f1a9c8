"""Sorting more uids than fit in memory: sorted runs on disk, then key ranges that fit, each gathered and sorted.

A run is a sorted ``.npy`` of uids, one for each shard. Its keys are spread over all of key space, so a merge of
thousands of runs would hold thousands of files open and read each in crumbs. Instead key space is cut into ranges, in
rising order, each with no more rows than memory takes: the rows of a range in one run are consecutive, their bounds
are found by bisection, and one read of each run and one radix sort make the range.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, PoolError, WorkspaceError
from pycurate.io.subset import PathLike, UidLayout, read_layout, uid_writer
from pycurate.kernels.uid import first_unsorted, format_hex, is_sorted, run_lengths, sort_uids
from pycurate.types import UID_DTYPE, UidArray

_ROW_BYTES = UID_DTYPE.itemsize
_PEAK_ROW_BYTES = 40  # 16 a row gathered and 16 of the sort's scratch, then 16 and at most 24 of run lengths
_CHUNK_ROWS = 1 << 16
_NEAR_ROWS = 256  # a bisection ends with one read of a page


def write_run(path: PathLike, uids: UidArray) -> None:
    """Write the uids of one shard as a run, atomically; they are sorted in a copy unless they are in order."""
    if not is_sorted(uids):
        uids = uids.copy()
        sort_uids(uids, threads=1)
    with uid_writer(path, "file") as append:
        append(uids)


def merge_runs(
    runs: Sequence[PathLike],
    out: PathLike,
    memory_bytes: int,
    unique: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write all uids of the runs, with repeats, as one sorted subset file; atomically.

    Parameters
    ----------
    runs
        Files of `write_run`, in any order.
    memory_bytes
        What this call may allocate. The rows do not count: any number of them is sorted in any memory, in one more
        read of the runs; ranges get smaller.
    unique
        Refuse a uid that is there more than once.
    progress
        Called with the rows of each range that was written.

    Returns
    -------
    Rows written.

    Raises
    ------
    PoolError
        ``unique`` and a uid occurs twice; names the first.
    WorkspaceError
        A run is missing or damaged, or ``out`` cannot be written.
    """
    rows = 0
    with uid_writer(out) as append:
        for part in _sorted_ranges(_open_runs(runs), _range_rows(memory_bytes)):
            if isinstance(part, _OneKey):
                if unique:
                    raise _repeated(part.uid, part.rows)
                for begin in range(0, part.rows, _CHUNK_ROWS):
                    append(np.repeat(part.uid, min(_CHUNK_ROWS, part.rows - begin)))
                written = part.rows
            else:
                if unique:
                    _require_unique(part)
                append(part)
                written = len(part)
            rows += written
            if progress is not None:
                progress(written)
    return rows


def duplicate_keys(runs: Sequence[PathLike], memory_bytes: int) -> Iterator[tuple[UidArray, NDArray[np.int64]]]:
    """The keys that occur more than once in all runs together, range by range, in rising order.

    Yields
    ------
    keys, counts
        (m,) sorted and (m,) int64, each at least 2; ranges without any are left out.
    """
    for part in _sorted_ranges(_open_runs(runs), _range_rows(memory_bytes)):
        if isinstance(part, _OneKey):
            yield part.uid, np.array([part.rows], np.int64)
            continue
        keys, counts = run_lengths(part)
        repeated = counts > 1
        if repeated.any():
            yield keys[repeated], counts[repeated]


@dataclass(frozen=True, slots=True)
class _Run:
    path: PathLike
    layout: UidLayout

    def read(self, begin: int, into: UidArray) -> None:
        """Fill ``into`` with rows from ``begin`` on."""
        with self.open() as file:
            file.seek(self.layout.offset_bytes + begin * _ROW_BYTES)
            wanted, filled = into.view(np.uint8), 0
            while filled < len(wanted):  # one system call reads at most 2 GiB
                count = file.readinto(wanted[filled:].data)
                if not count:
                    raise WorkspaceError(f"{self.path} became shorter while it was read; run again")
                filled += count

    def lower_bound(self, key: int, low: int, high: int) -> int:
        """The first row from ``low`` to ``high`` whose uid is not less than ``key``, or ``high``."""
        if low == high:
            return low
        with self.open() as file:
            descriptor, offset_bytes = file.fileno(), self.layout.offset_bytes
            while high - low > _NEAR_ROWS:
                middle = (low + high) // 2
                row = np.frombuffer(os.pread(descriptor, _ROW_BYTES, offset_bytes + middle * _ROW_BYTES), UID_DTYPE)
                if _number(row) < key:
                    low = middle + 1
                else:
                    high = middle
            near = os.pread(descriptor, (high - low) * _ROW_BYTES, offset_bytes + low * _ROW_BYTES)
        rows = np.frombuffer(near, UID_DTYPE)
        key_high, key_low = np.uint64(key >> 64), np.uint64(key & (2**64 - 1))
        less = (rows["f0"] < key_high) | ((rows["f0"] == key_high) & (rows["f1"] < key_low))
        return low + int(np.count_nonzero(less))

    def open(self) -> io.FileIO:
        """Unbuffered, and for one look only: there may be more runs than a process may have files open."""
        try:
            return io.FileIO(self.path)
        except OSError as error:
            raise WorkspaceError(f"cannot read {self.path}: {error.strerror}; run again") from error


@dataclass(frozen=True, slots=True)
class _OneKey:
    """A range of one uid, repeated more often than memory takes."""

    uid: UidArray  # (1,)
    rows: int


@dataclass(frozen=True, slots=True)
class _Range:
    """Keys from ``low`` up to but not including ``high``: in run i the rows from ``begins[i]`` to ``ends[i]``."""

    low: int
    high: int
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def rows(self) -> int:
        return int((self.ends - self.begins).sum())


def _sorted_ranges(runs: Sequence[_Run], most_rows: int) -> Iterator[UidArray | _OneKey]:
    """All rows in rising order, in parts of at most ``most_rows``; each is valid until the next is asked for."""
    begins = np.zeros(len(runs), np.int64)
    ends = np.array([run.layout.rows for run in runs], np.int64)
    pending = [_Range(0, 1 << 128, begins, ends)]  # the next in order is the last
    buffer = np.empty(min(most_rows, int(ends.sum())), UID_DTYPE)
    while pending:
        part = pending.pop()
        if part.rows == 0:
            continue
        if part.rows <= most_rows:
            yield _gather(runs, part, buffer[: part.rows])
        elif part.high - part.low == 1:
            yield _OneKey(_uid(part.low), part.rows)
        else:
            pending.extend(reversed(_split(runs, part)))


def _gather(runs: Sequence[_Run], part: _Range, into: UidArray) -> UidArray:
    filled = 0
    for i in np.flatnonzero(part.ends > part.begins):
        begin, rows = int(part.begins[i]), int(part.ends[i] - part.begins[i])
        runs[int(i)].read(begin, into[filled : filled + rows])
        filled += rows
    sort_uids(into)
    return into


def _split(runs: Sequence[_Run], part: _Range) -> tuple[_Range, _Range]:
    """Two ranges that meet at the median of the run with most rows: whatever the keys, that run is halved."""
    longest = int(np.argmax(part.ends - part.begins))
    median = np.empty(1, UID_DTYPE)
    runs[longest].read(int(part.begins[longest] + part.ends[longest]) // 2, median)
    pivot = _number(median)
    if pivot == part.low:  # then nothing is below it: cut off the pivot alone
        pivot += 1
    middles = np.array(
        [
            run.lower_bound(pivot, int(begin), int(end))
            for run, begin, end in zip(runs, part.begins, part.ends, strict=True)
        ],
        np.int64,
    )
    return _Range(part.low, pivot, part.begins, middles), _Range(pivot, part.high, middles, part.ends)


def _open_runs(paths: Sequence[PathLike]) -> list[_Run]:
    try:
        return [_Run(path, read_layout(path)) for path in paths]
    except InputError as error:
        raise WorkspaceError(f"a run of the workspace is damaged; delete it and run again ({error})") from error


def _range_rows(memory_bytes: int) -> int:
    return max(1, memory_bytes // _PEAK_ROW_BYTES)


def _require_unique(uids: UidArray) -> None:
    row = first_unsorted(uids, unique=True)
    if row is not None:
        same = int(np.count_nonzero((uids["f0"] == uids["f0"][row]) & (uids["f1"] == uids["f1"][row])))
        raise _repeated(uids[row : row + 1], same)


def _repeated(uid: UidArray, rows: int) -> PoolError:
    return PoolError(
        f"uid {format_hex(uid)[0].decode()} is there {rows} times, and a subset file cannot tell its rows apart; "
        "pycurate doctor finds them all; remove the copies, or keep each of them with --allow-duplicate-uids"
    )


def _number(uid: UidArray) -> int:
    return int(uid["f0"][0]) << 64 | int(uid["f1"][0])


def _uid(number: int) -> UidArray:
    return np.array([(number >> 64, number & (2**64 - 1))], UID_DTYPE)
