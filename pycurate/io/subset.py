"""Subset files: sorted uids with repeats, as DataComp's resharder takes them, and multiset algebra on them.

A subset file is an ``.npy`` of ``u8,u8``, shape (n,), sorted lexicographically; a uid that is there c times stands for
c copies of its row. A file without a header, the bare array, is read too.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.lib import format as npy_format

from pycurate.errors import InputError
from pycurate.io.atomic import Flush, atomic_write
from pycurate.kernels import uid as kernels
from pycurate.types import UID_DTYPE, UidArray

SubsetOperation: TypeAlias = Literal["and", "or", "minus", "without", "plus"]
"""Copies in the result of a uid that is c times in a and d times in b: min(c, d), max(c, d), max(c - d, 0), c if d is
0 else 0, c + d."""

_OPERATIONS: dict[str, kernels.Operation] = {
    "and": "intersect",
    "or": "union",
    "minus": "minus",
    "without": "without",
    "plus": "add",
}
_MAGIC = b"\x93NUMPY"
_CHUNK_ROWS = 1 << 18  # 4 MiB
PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class UidLayout:
    """Where the uids of a file lie: ``rows`` times 16 bytes from ``offset_bytes`` on."""

    rows: int
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class SubsetDiff:
    """Rows, with repeats, that only one of two subsets has, and those in both: only_a + both is the length of a."""

    only_a: int
    only_b: int
    both: int


class Subset:
    """Sorted uids with repeats, in memory or memory-mapped.

    ``a & b``, ``a | b``, ``a - b`` and ``a + b`` take the minimum, the maximum, the difference and the sum of the
    copies of each uid; `without` drops every copy. Results are in memory: `subset_algebra` streams from files to a
    file.
    """

    def __init__(self, uids: UidArray, *, name: str = "uids") -> None:
        self._uids = uids
        self._name = name
        self._checked = False

    @classmethod
    def load(cls, path: PathLike) -> Subset:
        """Open a subset file as a memory map. That it is sorted is checked when its uids are first used.

        Raises
        ------
        InputError
            There is no such file, or it is not an array of ``u8,u8`` of shape (n,); pickled objects are refused.
        """
        layout = read_layout(path)
        if layout.rows == 0:
            return cls(np.empty(0, UID_DTYPE), name=str(path))
        uids = np.memmap(path, UID_DTYPE, "r", layout.offset_bytes, (layout.rows,))
        return cls(uids, name=str(path))

    @classmethod
    def from_uids(cls, uids: UidArray) -> Subset:
        """The subset of these uids in any order; they are copied only where they are not sorted."""
        if not kernels.is_sorted(uids):
            uids = uids.copy()
            kernels.sort_uids(uids)
        return cls(uids)

    @classmethod
    def from_hex(cls, texts: Iterable[str]) -> Subset:
        """The subset of these texts of 32 hex digits, in any order; an error names the place of a wrong one."""
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls.from_uids(kernels.parse_hex_offsets(np.frombuffer(b"".join(encoded), np.uint8), offsets))

    def save(self, path: PathLike) -> None:
        """Write the subset as ``.npy``; ``path`` appears only when it is whole."""
        uids = self.uids
        with uid_writer(path) as append:
            for begin in range(0, len(uids), _CHUNK_ROWS):
                append(uids[begin : begin + _CHUNK_ROWS])

    @property
    def uids(self) -> UidArray:
        """(n,) sorted; a memory map where the subset was loaded. The first use reads all of it once, to check the
        order."""
        if not self._checked:
            row = kernels.first_unsorted(self._uids)
            if row is not None:
                raise InputError(
                    f"subset: {self._name} is not sorted: row {row} is less than the row before it; "
                    "write it with Subset.from_uids(...).save(...)"
                )
            self._checked = True
        return self._uids

    @property
    def distinct(self) -> int:
        """How many different uids there are."""
        return kernels.count_distinct(self.uids)

    def without(self, other: Subset) -> Subset:
        """Every row whose uid ``other`` does not have at all."""
        return Subset(kernels.minus(self._uids, other._uids, all_copies=True))

    def info(self) -> dict[str, Any]:
        """``rows`` with repeats, ``distinct`` uids, ``copies`` beyond the first, ``first`` and ``last`` uid."""
        uids, distinct = self.uids, self.distinct
        ends = [text.decode() for text in kernels.format_hex(uids[[0, -1]])] if len(uids) else ["", ""]
        return {
            "rows": len(uids),
            "distinct": distinct,
            "copies": len(uids) - distinct,
            "first": ends[0],
            "last": ends[1],
        }

    def __len__(self) -> int:
        """Rows, with repeats."""
        return len(self._uids)

    def __and__(self, other: Subset) -> Subset:
        return Subset(kernels.intersect(self._uids, other._uids))

    def __or__(self, other: Subset) -> Subset:
        return Subset(kernels.union(self._uids, other._uids))

    def __sub__(self, other: Subset) -> Subset:
        return Subset(kernels.minus(self._uids, other._uids))

    def __add__(self, other: Subset) -> Subset:
        return Subset(kernels.add(self._uids, other._uids))

    def __contains__(self, uid: object) -> bool:
        """Whether a uid, as 32 hex digits or as its two numbers, is there."""
        if isinstance(uid, str):
            query = kernels.parse_hex_offsets(
                np.frombuffer(uid.encode(), np.uint8), np.array([0, len(uid.encode())], np.int64)
            )
        else:
            query = np.array([uid], UID_DTYPE)
        return bool(kernels.find(self.uids, query)[0] >= 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Subset):
            return NotImplemented
        a, b = self.uids, other.uids
        chunks = (slice(begin, begin + _CHUNK_ROWS) for begin in range(0, len(a), _CHUNK_ROWS))
        return len(a) == len(b) and all(np.array_equal(a[rows], b[rows]) for rows in chunks)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Subset({len(self):,} rows of {self._name})"


def subset_algebra(operation: SubsetOperation, a_path: PathLike, b_path: PathLike, out_path: PathLike) -> int:
    """Combine two subset files into a third, streaming: memory does not grow with any of them.

    Returns
    -------
    Rows written.

    Raises
    ------
    InputError
        A file is no subset file or not sorted; then ``out_path`` is as it was.
    WorkspaceError
        ``out_path`` cannot be written.
    """
    if operation not in _OPERATIONS:
        raise InputError(f"operation: expected one of {', '.join(_OPERATIONS)}, got {operation!r}")
    a, b = Subset.load(a_path), Subset.load(b_path)
    rows = 0
    with uid_writer(out_path) as append:
        for part in _merged(_OPERATIONS[operation], a, b):
            append(part)
            rows += len(part)
    return rows


def diff(a: Subset, b: Subset) -> SubsetDiff:
    """How many rows two subsets share, counting copies, and how many only one has; streams."""
    both = sum(len(part) for part in _merged("intersect", a, b))
    return SubsetDiff(len(a) - both, len(b) - both, both)


def _merged(operation: kernels.Operation, a: Subset, b: Subset) -> Iterator[UidArray]:
    try:
        yield from kernels.merge_chunks(operation, a._uids, b._uids, np.empty(_CHUNK_ROWS, UID_DTYPE))
    except InputError as error:  # the kernel knows the sides as a and b
        raise InputError(
            f"subset: {a._name if str(error).startswith('a:') else b._name} is not sorted ({error})"
        ) from None


@contextlib.contextmanager
def uid_writer(path: PathLike, flush: Flush = "folder") -> Iterator[Callable[[UidArray], None]]:
    """A function that appends uids to a new ``.npy``, which appears under ``path`` when the block ends."""
    rows = 0
    with atomic_write(path, flush) as file:

        def append(uids: UidArray) -> None:
            nonlocal rows
            file.write(np.ascontiguousarray(uids).view(np.uint8).data)
            rows += len(uids)

        file.write(_header(0))
        yield append
        file.seek(0)
        file.write(_header(rows))


def read_layout(path: PathLike) -> UidLayout:
    """Where the uids of a subset file lie; refuses what is no (n,) array of ``u8,u8``.

    Raises
    ------
    InputError
        Says what the file is instead.
    """
    path = Path(path)
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise InputError(f"subset: cannot read {path}: {error.strerror or error}") from None
    if not start.startswith(_MAGIC):
        if size_bytes % UID_DTYPE.itemsize:
            raise InputError(
                f"subset: {path} is neither an .npy file nor a bare array of 16-byte uids: it has {size_bytes:,} bytes"
            )
        return UidLayout(size_bytes // UID_DTYPE.itemsize, 0)
    with path.open("rb") as file:
        try:
            version = npy_format.read_magic(file)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, _, dtype = read(file)
        except ValueError as error:
            raise InputError(f"subset: {path} has a broken .npy header ({error})") from None
        offset_bytes = file.tell()
    if dtype != UID_DTYPE:
        refused = "; pickled objects are never loaded" if dtype.hasobject else ""
        raise InputError(f'subset: expected {path} to hold dtype "u8,u8", got {dtype}{refused}')
    if len(shape) != 1:
        raise InputError(f"subset: expected {path} to hold an array of shape (n,), got {shape}")
    if size_bytes != offset_bytes + shape[0] * UID_DTYPE.itemsize:
        raise InputError(
            f"subset: {path} is truncated or has something appended: its header says {shape[0]:,} uids, which is "
            f"{offset_bytes + shape[0] * UID_DTYPE.itemsize:,} bytes, and it has {size_bytes:,}"
        )
    return UidLayout(shape[0], offset_bytes)


def _header(rows: int) -> bytes:
    """What ``numpy.save`` writes. NumPy pads it for the largest row count, so it can be written over later."""
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(buffer, {"descr": UID_DTYPE.descr, "fortran_order": False, "shape": (rows,)})
    return buffer.getvalue()
