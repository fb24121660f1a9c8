"""Rows of one matrix that lies in arrays, memory maps or .npy files, one behind the other."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.arrays import matrix_of

Indices = NDArray[np.int64]
Source: TypeAlias = Any
"""A matrix as the functions of fused similarity take it, the path of a .npy file, or a sequence of these."""

READ_BYTES = 16 << 20
"""Rows are copied in pieces of this size, and the pages of a file behind them let go of after each."""
READERS = 8
"""Pieces copied at a time: one thread copies 4 GB/s of mapped pages, less than a GPU joins."""
_SAMPLED_ROWS = 256


class RowSource:
    """The rows of all shards, numbered through.

    Parameters
    ----------
    name
        The argument, for errors.
    source
        See `Source`; all shards of the same dtype and dimension.
    dtype
        ``"bfloat16"`` to read uint16 as bfloat16 bits.
    """

    def __init__(self, name: str, source: Source, dtype: Literal["bfloat16"] | None) -> None:
        is_list = isinstance(source, Sequence) and not isinstance(source, str | bytes)
        given = list(source) if is_list else [source]
        if not given:
            raise ValueError(f"{name}: expected at least one array or .npy file, got an empty list")
        names = [f"{name}[{i}]" for i in range(len(given))] if is_list else [name]
        opened = [
            _mapped(n, shard) if isinstance(shard, str | os.PathLike) else shard
            for n, shard in zip(names, given, strict=True)
        ]
        matrices = [matrix_of(n, shard, dtype) for n, shard in zip(names, opened, strict=True)]
        self.shards = [array for array, _ in matrices]
        self.element = matrices[0][1]
        self.d = int(self.shards[0].shape[1])
        for place, (shard, element) in zip(names, matrices, strict=True):
            if element != self.element or shard.shape[1] != self.d:
                raise ValueError(
                    f"{place}: expected {self.d} columns of {self.element} as in {names[0]}, got {shard.shape[1]} of "
                    f"{element}; the shards of one matrix are alike"
                )
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dtype(self) -> Literal["bfloat16"] | None:
        """The argument ``dtype`` with which copies of the rows are read."""
        return "bfloat16" if self.element == "bfloat16" else None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        itemsize: int = self.shards[0].dtype.itemsize
        return self.d * itemsize

    @property
    def piece_rows(self) -> int:
        """Rows of about ``READ_BYTES``."""
        return max(1, READ_BYTES // max(1, self.row_bytes))

    def take(self, rows: Indices) -> NDArray[Any]:
        """(len(rows), d) a copy, C order, of the rows with these rising numbers."""
        taken = np.empty((len(rows), self.d), self.shards[0].dtype)

        def copy(piece: tuple[NDArray[Any], int, slice]) -> None:
            shard, start, part = piece
            first, last = int(rows[part.start]) - start, int(rows[part.stop - 1]) - start
            between = shard[first : last + 1]
            if len(between) == part.stop - part.start:
                taken[part] = between
            elif between.flags.c_contiguous:  # then nothing is allocated beside what is returned
                np.take(between, rows[part] - start - first, axis=0, out=taken[part], mode="clip")
            else:
                taken[part] = between[rows[part] - start - first]
            let_go(between)

        pieces = self._pieces_of(rows)
        if taken.nbytes < 2 * READ_BYTES or not all(shard.flags.c_contiguous for shard in self.shards):
            for piece in pieces:
                copy(piece)
        else:
            # Copying and the faults of mapped pages wait for nothing but memory and disk.
            with ThreadPoolExecutor(READERS) as readers:
                list(readers.map(copy, pieces))
        return taken

    def _pieces_of(self, rows: Indices) -> Iterator[tuple[NDArray[Any], int, slice]]:
        """Rising rows in pieces of one shard and of at most ``piece_rows`` of it: the shard, its first row, which."""
        filled = 0
        for shard, start in zip(self.shards, self.starts.tolist(), strict=False):
            stop = int(np.searchsorted(rows, start + len(shard)))
            while filled < stop:
                end = min(stop, int(np.searchsorted(rows, int(rows[filled]) + self.piece_rows)))
                yield shard, start, slice(filled, end)
                filled = end

    def take_any(self, rows: Indices) -> NDArray[Any]:
        """Likewise of rows in any order, which is that of the copy."""
        order = np.argsort(rows, kind="stable")
        taken = np.empty((len(rows), self.d), self.shards[0].dtype)
        for begin in range(0, len(order), self.piece_rows):
            part = order[begin : begin + self.piece_rows]
            taken[part] = self.take(rows[part])
        return taken

    def pieces(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """All rows, ``piece_rows`` at a time, each copy with the number of its first row."""
        for start in range(0, len(self), self.piece_rows):
            yield start, self.take(np.arange(start, min(len(self), start + self.piece_rows)))

    def fingerprint(self) -> str:
        """32 hex digits that tell these rows from others.

        Of a file: its size, time of modification and 256 of its rows, evenly spaced. Of an array in memory: all of its
        bytes.
        """
        total = xxhash.xxh3_128()
        for shard in self.shards:
            total.update(f"{self.element} {shard.shape}".encode())
            if isinstance(shard, np.memmap) and shard.filename is not None:
                status = os.stat(shard.filename)
                total.update(f"{status.st_size} {status.st_mtime_ns}".encode())
                step = max(1, len(shard) // _SAMPLED_ROWS)
                total.update(np.ascontiguousarray(shard[::step]).tobytes())
                let_go(shard)
                continue
            for start in range(0, len(shard), self.piece_rows):
                total.update(np.ascontiguousarray(shard[start : start + self.piece_rows]).tobytes())
        return total.hexdigest()


def _mapped(name: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    try:
        return open_array(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: expected the path of a .npy file that holds one (n, d) matrix, and {os.fspath(path)} cannot be "
            f"read as one ({error}); check the path, or save the matrix with numpy.save"
        ) from error


def open_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """A .npy file, memory-mapped; read where it holds nothing, since nothing cannot be mapped."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)
        if array.size:
            raise
    return array


def let_go(rows: NDArray[Any]) -> None:
    """Drop the pages of some rows of a file from this process: they stay in the system's cache while there is room."""
    if not isinstance(rows, np.memmap) or rows.mode == "c" or not rows.size:
        return  # what was changed in a copy-on-write map would be lost
    base: object = rows
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        steps = [(n - 1) * step for n, step in zip(rows.shape, rows.strides, strict=True)]
        begin = rows.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data + sum(min(step, 0) for step in steps)
        before = begin % mmap.PAGESIZE
        base.madvise(mmap.MADV_DONTNEED, begin - before, before + sum(map(abs, steps)) + rows.itemsize)
