"""Embedding matrices in .npy files and in the members of .npz files: headers, and streamed reading of rows."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pycurate.errors import PoolError
from pycurate.io.store import RangeReader, Store

HEADER_BYTES = 65_536
"""A header longer than this is no embedding matrix; nothing more of it is read."""

EMBEDDING_DTYPES = ("float16", "float32", "int8")

_ALIGNMENT = 64
_DEFLATE_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a .npy header says, checked: shape, dtype, bytes before and in the data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    header_bytes: int

    @property
    def data_bytes(self) -> int:
        """Bytes of the array behind the header."""
        count = 1
        for length in self.shape:
            count *= length
        return count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Matrix:
    """A C-ordered (rows, dimension) matrix at ``offset`` of a stored file.

    ``dtype`` is float16, float32, int8 or bfloat16 (read as uint16). ``deflated_bytes`` is 0 unless the matrix is a
    compressed member of an npz file; then ``offset`` is where the compressed bytes begin, ``header_bytes`` counts the
    npy header within them, and ``crc`` is the checksum of all that they inflate to.
    """

    path: str
    offset: int
    rows: int
    dimension: int
    dtype: str
    deflated_bytes: int = 0
    header_bytes: int = 0
    crc: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dimension * self.storage.itemsize

    @property
    def storage(self) -> np.dtype[Any]:
        """NumPy dtype of the values as read."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)


class MatrixReader(Protocol):
    """Reads a matrix from some row on, in order."""

    def read(self, rows: int) -> NDArray[Any]:
        """The next ``rows`` rows, (rows, d), C order, 64-byte aligned."""
        ...


def parse_header(data: bytes, place: str) -> NpyHeader:
    """Check the first bytes of a .npy file.

    Raises
    ------
    PoolError
        Not a .npy file, Python objects (loading them can run code: refused), a structured dtype, Fortran order or
        foreign byte order; ``place`` names the file in the sentence.
    """
    stream = io.BytesIO(data)
    try:
        version = npy_format.read_magic(stream)
    except ValueError as error:
        raise PoolError(f"{place}: not a .npy file or truncated: its first bytes are {data[:6]!r}") from error
    try:
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(stream, max_header_size=HEADER_BYTES)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(stream, max_header_size=HEADER_BYTES)
        else:
            raise PoolError(
                f"{place}: .npy version {version[0]}.{version[1]}; expected 1.0 or 2.0: save it with np.save"
            )
    except ValueError as error:
        raise PoolError(f"{place}: the .npy header is damaged or truncated ({error}); write the file again") from error
    if dtype.hasobject:
        raise PoolError(
            f"{place}: holds pickled Python objects, which can run code when loaded, so it is refused; "
            "save the matrix as a float16 array"
        )
    if dtype.names is not None:
        raise PoolError(f"{place}: structured dtype {dtype}; expected a plain (n, d) float16 matrix")
    if fortran and len(shape) > 1 and min(shape) > 1:
        raise PoolError(f"{place}: Fortran order; rows must be contiguous: save np.ascontiguousarray(x)")
    if not dtype.isnative:
        raise PoolError(f"{place}: byte order {dtype.str!r} is not native; save x.astype(x.dtype.newbyteorder('='))")
    if any(length < 0 for length in shape):
        raise PoolError(f"{place}: the .npy header claims the shape {shape}")
    return NpyHeader(tuple(int(length) for length in shape), dtype, stream.tell())


def embedding_dtype(header: NpyHeader, place: str, bfloat16: bool) -> str:
    """Name of the dtype as an embedding, or a PoolError that says what to do with another one."""
    name = header.dtype.name
    if bfloat16:
        if name != "uint16":
            raise PoolError(f"{place}: bfloat16 was asked for, which is stored as uint16, but its dtype is {name}")
        return "bfloat16"
    if name == "uint16":
        raise PoolError(
            f"{place}: dtype uint16; if these are bfloat16 values, open the pool with bfloat16=(<embedding>,)"
        )
    if name not in EMBEDDING_DTYPES:
        raise PoolError(
            f"{place}: dtype {name}; expected float16, float32 or int8: save the matrix as x.astype(np.float16)"
        )
    if len(header.shape) != 2 or header.shape[1] == 0:
        raise PoolError(f"{place}: shape {header.shape}; expected (n, d) with d >= 1")
    return name


def read_npy_matrix(store: Store, path: str, bfloat16: bool = False) -> Matrix:
    """The matrix in a .npy file, by its header; the file's size must be what the header says."""
    with store.reader(path) as reader:
        header = parse_header(reader.read(0, HEADER_BYTES), path)
        dtype = embedding_dtype(header, path, bfloat16)
        expected = header.header_bytes + header.data_bytes
        if reader.size != expected:
            what = "truncated" if reader.size < expected else "too long"
            raise PoolError(
                f"{path}: {what}: its header says shape {header.shape} {header.dtype.name}, {expected} bytes in all, "
                f"but the file has {reader.size}; copy or write the file again"
            )
    return Matrix(path, header.header_bytes, header.shape[0], header.shape[1], dtype)


@contextmanager
def open_matrix(store: Store, matrix: Matrix, start: int) -> Iterator[MatrixReader]:
    """Read ``matrix`` from row ``start`` on."""
    with store.reader(matrix.path) as reader:
        if matrix.deflated_bytes:
            yield _DeflatedReader(reader, matrix, start)
        else:
            yield _RawReader(reader, matrix, start)


class BlockMemory:
    """Uninitialised blocks, in memory of earlier blocks that nobody refers to any more.

    Fresh memory is zeroed by the kernel, which costs a third of what reading into it does.
    """

    def __init__(self) -> None:
        self._owned: list[NDArray[np.uint8]] = []

    def take(self, rows: int, dimension: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A (rows, dimension) array whose data begins at a multiple of 64 bytes."""
        size = rows * dimension * dtype.itemsize
        raw = self._unused(size + _ALIGNMENT)
        shift = -raw.ctypes.data % _ALIGNMENT
        return raw[shift : shift + size].view(dtype).reshape(rows, dimension)

    def _unused(self, size: int) -> NDArray[np.uint8]:
        for place in range(len(self._owned)):
            # Every view of it, however derived, holds a reference to the array that owns the memory.
            if len(self._owned[place]) >= size and sys.getrefcount(self._owned[place]) == _UNREFERRED:
                return self._owned[place]
        self._owned.append(np.empty(size, np.uint8))
        return self._owned[-1]


_probe = [np.empty(0, np.uint8)]
_UNREFERRED = sys.getrefcount(_probe[0])  # of an array that only a list has; the number is the interpreter's affair


class _RawReader:
    def __init__(self, reader: RangeReader, matrix: Matrix, start: int) -> None:
        self._reader, self._matrix, self._memory = reader, matrix, BlockMemory()
        self._offset = matrix.offset + start * matrix.row_bytes

    def read(self, rows: int) -> NDArray[Any]:
        block = self._memory.take(rows, self._matrix.dimension, self._matrix.storage)
        self._reader.read_into(_bytes_of(block), self._offset)
        self._offset += block.nbytes
        return block


class _DeflatedReader:
    """Inflates exactly the bytes that the header announced, whatever the stream holds: a bomb cannot grow."""

    def __init__(self, reader: RangeReader, matrix: Matrix, start: int) -> None:
        self._reader, self._matrix, self._memory = reader, matrix, BlockMemory()
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._offset, self._end = matrix.offset, matrix.offset + matrix.deflated_bytes
        self._left, self._crc = matrix.header_bytes + matrix.rows * matrix.row_bytes, 0
        self._skip(matrix.header_bytes + start * matrix.row_bytes)

    def read(self, rows: int) -> NDArray[Any]:
        block = self._memory.take(rows, self._matrix.dimension, self._matrix.storage)
        view, done = _bytes_of(block), 0
        while done < len(view):
            piece = self._next(len(view) - done)
            view[done : done + len(piece)] = piece
            done += len(piece)
        return block

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._next(min(count, _DEFLATE_READ_BYTES)))

    def _next(self, limit: int) -> bytes:
        while True:
            pending = self._inflate.unconsumed_tail
            if not pending and self._offset < self._end:
                pending = self._reader.read(self._offset, min(_DEFLATE_READ_BYTES, self._end - self._offset))
                self._offset += len(pending)
            try:
                piece = self._inflate.decompress(pending, min(limit, _DEFLATE_READ_BYTES))
            except zlib.error as error:
                raise PoolError(f"{self._matrix.path}: damaged compressed data ({error}); copy it again") from error
            if piece:
                self._left -= len(piece)
                self._crc = zlib.crc32(piece, self._crc)
                if not self._left and self._crc != self._matrix.crc:
                    raise PoolError(f"{self._matrix.path}: damaged compressed data (wrong checksum); copy it again")
                return piece
            if not pending or self._inflate.eof:
                raise PoolError(
                    f"{self._matrix.path}: a compressed member ends before its {self._matrix.rows} rows; copy it again"
                )


def _bytes_of(block: NDArray[Any]) -> memoryview:
    return block.reshape(-1).view(np.uint8).data
