"""Pairs of rows gathered piece by piece in files, so that memory holds a piece of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.io.atomic import naming_a_full_disk
from pycurate.kernels.distinct import Floats, Indices
from pycurate.pipeline.block_join.source import let_go

Pairs: TypeAlias = tuple[Indices, Indices, Floats]
"""(p,) rows, columns and similarities."""

PIECE_PAIRS = 1 << 20
"""20 MB, and as much again for each array that is made of a piece."""
_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype("<i8"), np.dtype("<i8"), np.dtype("<f4"))


class PairFiles:
    """Three growing columns below a folder; what was there before is overwritten.

    Attributes
    ----------
    count
        Pairs so far.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"{name}.bin" for name in ("rows", "cols", "similarities")]
        self._files: list[BinaryIO] = []
        self.count = 0

    def __enter__(self) -> PairFiles:
        with contextlib.ExitStack() as stack:
            self._files = [stack.enter_context(path.open("wb")) for path in self._paths]
            self._close = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._close.close()

    def append(self, rows: Indices, cols: Indices, similarities: Floats) -> None:
        """(p,) each."""
        columns: list[NDArray[Any]] = [rows, cols, similarities]
        for file, path, dtype, values in zip(self._files, self._paths, _DTYPES, columns, strict=True):
            with naming_a_full_disk(path):
                file.write(np.ascontiguousarray(values, dtype).view(np.uint8).data)
        self.count += len(rows)

    def mapped(self) -> Pairs:
        """All of them, memory-mapped; the files are closed."""
        if not self.count:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        rows, cols, similarities = (
            np.memmap(path, dtype, "r", shape=(self.count,)) for path, dtype in zip(self._paths, _DTYPES, strict=True)
        )
        return rows, cols, similarities


def pieces_of(pairs: Pairs) -> Iterator[Pairs]:
    """Copies of ``PIECE_PAIRS`` at a time; pages of memory maps are let go of behind each."""
    for begin in range(0, len(pairs[0]), PIECE_PAIRS):
        part = slice(begin, begin + PIECE_PAIRS)
        yield np.array(pairs[0][part]), np.array(pairs[1][part]), np.array(pairs[2][part])
        for column in pairs:
            let_go(column)
