"""Rows of a whole pool that have the same code, brought together out of core; one of each is compared with others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pycurate.pipeline.pool_rows import new_array
from pycurate.pipeline.record_sort import RecordSort

_APPENDED_ROWS = 1 << 16
SCRATCH_WORDS = 5
"""Of a row, beside twice its code and once more where it is the first with it: two sorts, and its number."""


class FirstRows(NamedTuple):
    """The rows that come first with their code, by rising rank; memory-mapped in the scratch folder."""

    codes: NDArray[np.uint64]  # (m, words), each once
    rows: NDArray[np.int64]  # (m,) rows of the pool


class DistinctCodes:
    """Codes of rows, sorted on disk.

    Parameters
    ----------
    scratch
        The folder for what is sorted; the files of the sorts are gone when the context ends.
    words
        64-bit words of a code.
    memory_bytes
        What a call may allocate.
    """

    def __init__(self, scratch: Path, words: int, memory_bytes: int) -> None:
        self._scratch = scratch
        self._words = words
        self._memory_bytes = memory_bytes
        self._by_code = RecordSort(scratch / "codes.records", columns=words + 2, key_columns=words + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._by_code.__exit__(kind, error, trace)

    @property
    def rows(self) -> int:
        """Rows that were appended."""
        return self._by_code.rows

    def append(self, codes: NDArray[np.uint64], ranks: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Add (n, words) codes of rows of the pool, each with a rank of its own; called from any thread."""
        for begin in range(0, len(codes), _APPENDED_ROWS):
            part = slice(begin, begin + _APPENDED_ROWS)
            columns = (codes[part], ranks[part, None].astype(np.uint64), rows[part, None].astype(np.uint64))
            self._by_code.append(np.concatenate(columns, axis=1))

    def first_rows(self) -> FirstRows:
        """Of the rows with one code that of the lowest rank."""
        with RecordSort(self._scratch / "ranks.records", columns=self._words + 2, key_columns=1) as by_rank:
            for records, first in self._sorted():
                is_first = records[:, -1] == first
                by_rank.append(np.roll(records[is_first], 2, axis=1))  # rank, row, code
            codes = new_array(self._scratch / "codes.bin", np.uint64, (by_rank.rows, self._words))
            rows = new_array(self._scratch / "first_rows.bin", np.int64, (by_rank.rows,))
            done = 0
            for records in by_rank.ranges(self._memory_bytes // 2):
                rows[done : done + len(records)] = records[:, 1].astype(np.int64)
                codes[done : done + len(records)] = records[:, 2:]
                done += len(records)
        return FirstRows(codes, rows)

    def copies(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The other rows, and the first one with the same code of each."""
        for records, first in self._sorted():
            is_copy = records[:, -1] != first
            yield records[is_copy, -1].astype(np.int64), first[is_copy].astype(np.int64)

    def _sorted(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
        """Records by code and rank, and (n,) for each the row of the first one with the same code."""
        before = np.empty((0, self._words + 2), np.uint64)  # the last record, its row that of the first with its code
        for records in self._by_code.ranges(self._memory_bytes // 4):
            known = np.concatenate([before, records])
            is_new = np.append(True, (known[1:, : self._words] != known[:-1, : self._words]).any(axis=1))
            first = known[np.maximum.accumulate(np.where(is_new, np.arange(len(known)), 0)), -1]
            yield records, first[len(before) :]
            before = known[-1:].copy()
            before[0, -1] = first[-1]
