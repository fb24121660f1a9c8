"""Sorting more records than fit in memory: rows of 64-bit integers, ordered by their first columns.

Records are appended in parts by any threads; each part is sorted and becomes a *segment* of one file, so that a sort
of many thousand parts holds one file open. Key space is then cut into ranges, in rising order, each with no more
records than memory takes; a range is one stretch of every segment, found by bisection, and one sort makes it whole.
Keys are unique (the last of their columns is the row), so that every range can be cut further.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import WorkspaceError
from pycurate.io.atomic import naming_a_full_disk
from pycurate.kernels.uid import sort_uids
from pycurate.types import UID_DTYPE

Records = NDArray[np.uint64]
"""(m, columns), C order."""

_WORD_BYTES = 8
_NEAR_ROWS = 128  # a bisection ends with one read of so many records
SEGMENT_ROWS = 1 << 17
"""Records of one segment at most: what sorting them holds stays small however much is appended at once."""


class RecordSort:
    """Records of ``columns`` uint64 sorted by their first ``key_columns``, in a file of ``folder``.

    Parameters
    ----------
    path
        The file of segments; removed when the context ends.
    columns, key_columns
        The keys must be unique: end them with the number of the row.
    """

    def __init__(self, path: Path, columns: int, key_columns: int) -> None:
        self.rows = 0
        self._path = path
        self._columns = columns
        self._key_columns = key_columns
        self._segments: list[tuple[int, int]] = []  # first record and the one after the last
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)

    def append(self, records: Records) -> None:
        """Add records in any order; called from any thread."""
        for start in range(0, len(records), SEGMENT_ROWS):
            part = records[start : start + SEGMENT_ROWS]
            self._append(np.ascontiguousarray(part[_order(part, self._key_columns, threads=1)]))

    def _append(self, segment: Records) -> None:
        with self._lock:
            begin = self.rows
            self.rows += len(segment)
            self._segments.append((begin, self.rows))
        data = segment.data.cast("B")
        offset = begin * self._columns * _WORD_BYTES
        with naming_a_full_disk(self._path):
            while data:
                written = os.pwrite(self._file, data, offset)
                data, offset = data[written:], offset + written

    def ranges(self, memory_bytes: int) -> Iterator[Records]:
        """All records in rising order of their keys, in parts that this call can sort within ``memory_bytes``."""
        row_bytes = 3 * self._columns * _WORD_BYTES + 2 * UID_DTYPE.itemsize + 2 * _WORD_BYTES
        most = max(1, memory_bytes // row_bytes)
        begins, ends = np.array(self._segments, np.int64).reshape(-1, 2).T
        pending = [_Range(begins, ends)]  # the next in order is the last
        while pending:
            part = pending.pop()
            if part.rows > most:
                pending.extend(reversed(self._split(part)))
            elif part.rows:
                yield self._gather(part)

    def _gather(self, part: _Range) -> Records:
        gathered = np.empty((part.rows, self._columns), np.uint64)
        filled = 0
        for begin, end in zip(part.begins.tolist(), part.ends.tolist(), strict=True):
            if end > begin:
                self._read(begin, gathered[filled : filled + end - begin])
                filled += end - begin
        return gathered[_order(gathered, self._key_columns, threads=None)]

    def _split(self, part: _Range) -> tuple[_Range, _Range]:
        """Two ranges that meet at the median of the longest stretch: it is halved, whatever the keys."""
        longest = int(np.argmax(part.ends - part.begins))
        pivot = self._record(int(part.begins[longest] + part.ends[longest]) // 2)
        middle = self._lower_bounds(pivot, part)
        if (middle == part.begins).all():  # nothing is below the pivot: cut it off alone
            middle = self._lower_bounds((*pivot[:-1], pivot[-1] + 1), part)
        return _Range(part.begins, middle), _Range(middle, part.ends)

    def _lower_bounds(self, key: tuple[int, ...], part: _Range) -> NDArray[np.int64]:
        bounds = zip(part.begins.tolist(), part.ends.tolist(), strict=True)
        return np.array([self._lower_bound(key, low, high) for low, high in bounds], np.int64)

    def _lower_bound(self, key: tuple[int, ...], low: int, high: int) -> int:
        """The first record from ``low`` to ``high`` whose key is not less than ``key``, or ``high``."""
        while high - low > _NEAR_ROWS:
            middle = (low + high) // 2
            if self._record(middle) < key:
                low = middle + 1
            else:
                high = middle
        near = np.empty((high - low, self._columns), np.uint64)
        self._read(low, near)
        less, equal = np.zeros(len(near), np.bool_), np.ones(len(near), np.bool_)
        for column, word in enumerate(key):
            less |= equal & (near[:, column] < np.uint64(word))
            equal &= near[:, column] == np.uint64(word)
        return low + int(np.count_nonzero(less))

    def _record(self, place: int) -> tuple[int, ...]:
        record = np.empty((1, self._columns), np.uint64)
        self._read(place, record)
        return tuple(record[0, : self._key_columns].tolist())

    def _read(self, begin: int, into: Records) -> None:
        wanted, filled = into.reshape(-1).view(np.uint8), 0
        offset = begin * self._columns * _WORD_BYTES
        while filled < len(wanted):  # one system call reads at most 2 GiB
            count = os.preadv(self._file, [wanted[filled:].data], offset + filled)
            if not count:
                raise WorkspaceError(f"{self._path} became shorter while it was read; run again")
            filled += count


@dataclass(frozen=True, slots=True)
class _Range:
    """In segment i the records from ``begins[i]`` up to but not including ``ends[i]``."""

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def rows(self) -> int:
        return int((self.ends - self.begins).sum())


def _order(records: Records, key_columns: int, threads: int | None) -> NDArray[np.uint32]:
    """The permutation that sorts records by their first columns: a radix sort of two columns at a time, last first."""
    order = np.arange(len(records), dtype=np.uint32)
    for end in range(key_columns, 0, -2):
        words = np.zeros((len(records), 2), np.uint64)
        words[:, 2 - min(end, 2) :] = records[order, max(end - 2, 0) : end]
        sort_uids(words.reshape(-1).view(UID_DTYPE), order, threads)
    return order
