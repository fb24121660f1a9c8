"""128-bit uids: hex digits in and out, radix sort, and multiset algebra of sorted arrays.

A uid array is (n,) of ``UID_DTYPE`` (``u8,u8``: the first and the last 16 of 32 hex digits), C-contiguous, ordered
lexicographically by its two fields, so in the order of the hex text. A sorted array with repeats is a multiset. Arrays
may be memory maps: no function here copies an input, except `find`, which sorts unsorted queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pycurate._core import uid as _uid
from pycurate.errors import InputError
from pycurate.types import UID_DTYPE, UidArray

Operation: TypeAlias = Literal["intersect", "union", "minus", "without", "add"]
"""Copies in the result of a uid that is there c times in a and d times in b: min(c, d), max(c, d), max(c - d, 0),
c if d is 0 else 0, c + d."""

_OPERATIONS = {
    "intersect": _uid.Algebra.intersect,
    "union": _uid.Algebra.unite,
    "minus": _uid.Algebra.minus,
    "without": _uid.Algebra.without,
    "add": _uid.Algebra.add,
}
_STEP_ROWS = 1 << 22  # rows looked at between two looks at the signals: some 20 ms


def parse_hex(text: NDArray[np.uint8] | NDArray[np.bytes_]) -> UidArray:
    """Uids of n texts of 32 hex digits, upper or lower case.

    Parameters
    ----------
    text
        (n, 32) uint8, C order, or (n,) ``S32``, contiguous.

    Raises
    ------
    InputError
        A row is not 32 hex digits; names the row and shows the text.
    """
    if text.dtype == np.dtype("S32") and text.ndim == 1:
        if not text.flags.c_contiguous:
            raise InputError("text: expected a contiguous array; pass numpy.ascontiguousarray(text)")
        text = text.view(np.uint8).reshape(-1, 32)
    elif text.dtype.kind == "S":
        raise InputError(f"text: expected shape (n,) and dtype S32, got shape {text.shape} and dtype {text.dtype}")
    text = cast("NDArray[np.uint8]", text)
    words, good = _uid.parse_hex(text)
    if good < len(text):
        raise _bad_hex(good, text[good].tobytes())
    return _uids(words)


def parse_hex_offsets(data: NDArray[np.uint8], offsets: NDArray[Any]) -> UidArray:
    """Uids of an Arrow ``string`` or ``large_string`` array, from its buffers, without a copy.

    Parameters
    ----------
    data
        (bytes,) uint8: the data buffer.
    offsets
        (n + 1,) int32 or int64: row i is ``data[offsets[i]:offsets[i + 1]]``; need not begin at 0, so the offsets of a
        slice do. The validity buffer is not looked at: a null is a row like any other, nearly always an empty one.

    Raises
    ------
    InputError
        A row is not 32 hex digits; names the row and shows the text.
    """
    words, good = _uid.parse_hex_offsets(data, offsets)
    if good < len(offsets) - 1:
        raise _bad_hex(good, data[offsets[good] : max(offsets[good], offsets[good + 1])].tobytes())
    return _uids(words)


def format_hex(uids: UidArray) -> NDArray[np.bytes_]:
    """(n,) ``S32``: the 32 lower-case hex digits of each uid."""
    return _uid.format_hex(_words(uids, "uids")).reshape(-1).view("S32")


def sort_uids(
    uids: UidArray, payload: NDArray[np.unsignedinteger[Any]] | None = None, threads: int | None = None
) -> None:
    """Sort in place by (f0, f1); stable. Needs as much memory again while it runs.

    Parameters
    ----------
    uids
        (n,) writeable.
    payload
        (n,) uint32 or uint64, writeable; permuted along with the uids.
    threads
        None: every processor this process may use. The result does not depend on it.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, within a second; ``uids`` and ``payload`` are then in no order, with rows lost.
    """
    if not uids.flags.writeable:
        raise InputError("uids: expected a writeable array, which is sorted in place; pass a copy")
    if payload is not None and not payload.flags.writeable:
        raise InputError("payload: expected a writeable array, which is permuted in place; pass a copy")
    _uid.sort(_words(uids, "uids"), payload, threads or 0)


def first_unsorted(uids: UidArray, *, unique: bool = False) -> int | None:
    """The first row that is less than the one before it (``unique``: not greater), or None."""
    words = _words(uids, "uids")
    for begin in range(0, len(words), _STEP_ROWS):
        part = words[max(begin - 1, 0) : begin + _STEP_ROWS]
        row = _uid.first_unsorted(part, unique)
        if row < len(part):
            return max(begin - 1, 0) + row
    return None


def is_sorted(uids: UidArray) -> bool:
    """True when no row is less than the one before it."""
    return first_unsorted(uids) is None


def is_sorted_unique(uids: UidArray) -> bool:
    """True when every row is greater than the one before it."""
    return first_unsorted(uids, unique=True) is None


def merge_chunks(operation: Operation, a: UidArray, b: UidArray, chunk: UidArray) -> Iterator[UidArray]:
    """The sorted result of ``operation`` on sorted ``a`` and ``b``, part by part, in O(1) memory.

    Each part is a view of ``chunk``, valid until the next one is asked for. ``a`` and ``b`` are read once from front to
    back, so they may be memory maps of any size, and are checked for order as they are read.

    Raises
    ------
    InputError
        ``a`` or ``b`` is not sorted; may come after some parts were given out.
    """
    words_a, words_b, words_out = _words(a, "a"), _words(b, "b"), _words(chunk, "chunk")
    if len(chunk) == 0:
        raise InputError("chunk: expected at least one row")
    done_a = done_b = filled = 0
    while done_a < len(a) or done_b < len(b):
        before_a, before_b = done_a, done_b
        done_a, done_b, produced = _uid.merge(
            _OPERATIONS[operation], words_a, words_b, done_a, done_b, words_out[filled:], _STEP_ROWS
        )
        _require_order(words_a, before_a, done_a, "a")
        _require_order(words_b, before_b, done_b, "b")
        filled += produced
        if filled == len(chunk):
            yield chunk
            filled = 0
    if filled:
        yield chunk[:filled]


def intersect(a: UidArray, b: UidArray) -> UidArray:
    """Each uid of both, min(copies in a, copies in b) times; sorted. ``a`` and ``b``: sorted."""
    return _merged("intersect", a, b, min(len(a), len(b)))


def union(a: UidArray, b: UidArray) -> UidArray:
    """Each uid of either, max(copies in a, copies in b) times; sorted. ``a`` and ``b``: sorted."""
    return _merged("union", a, b, len(a) + len(b))


def minus(a: UidArray, b: UidArray, *, all_copies: bool = False) -> UidArray:
    """Each uid of a, copies in a less copies in b times (``all_copies``: none if it is in b at all); sorted."""
    return _merged("without" if all_copies else "minus", a, b, len(a))


def add(a: UidArray, b: UidArray) -> UidArray:
    """Each uid of either, copies in a plus copies in b times; sorted. ``a`` and ``b``: sorted."""
    return _merged("add", a, b, len(a) + len(b))


def find(sorted_uids: UidArray, queries: UidArray) -> NDArray[np.int64]:
    """The first position of each query in ``sorted_uids``, or -1.

    Parameters
    ----------
    sorted_uids
        (n,) sorted, with or without repeats; not checked, as that would read all of what may be a large memory map.
    queries
        (m,) in any order. Sorted ones are found by galloping; others are sorted first in a copy of 20 bytes a query,
        because m random descents into a large memory map would fault in nearly a page each.
    """
    table, words = _words(sorted_uids, "sorted_uids"), _words(queries, "queries")
    if is_sorted(queries):
        return _uid.find(table, words)
    if len(queries) > 2**32:
        raise InputError(f"queries: expected at most 2**32 unsorted rows, got {len(queries)}; pass them in parts")
    copy, order = queries.copy(), np.arange(len(queries), dtype=np.uint32)
    sort_uids(copy, order, threads=1)
    positions = np.empty(len(queries), np.int64)
    positions[order] = _uid.find(table, _words(copy, "queries"))
    return positions


def count_distinct(sorted_uids: UidArray) -> int:
    """How many different uids a sorted array holds."""
    words = _words(sorted_uids, "sorted_uids")
    distinct = 0
    for begin in range(0, len(words), _STEP_ROWS):
        distinct += _uid.count_distinct(words[begin : begin + _STEP_ROWS])
        distinct -= begin > 0 and bool((words[begin] == words[begin - 1]).all())
    return distinct


def run_lengths(sorted_uids: UidArray) -> tuple[UidArray, NDArray[np.int64]]:
    """Each different uid of a sorted array, and how often it is there: (keys, counts), both (count_distinct,)."""
    keys, counts = _uid.run_lengths(_words(sorted_uids, "sorted_uids"))
    return _uids(keys), counts


def _words(uids: UidArray, name: str) -> NDArray[np.uint64]:
    """The same memory as (n, 2) uint64."""
    if uids.dtype != UID_DTYPE:
        raise InputError(f'{name}: expected dtype "u8,u8" (pycurate.types.UID_DTYPE), got {uids.dtype}')
    if uids.ndim != 1:
        raise InputError(f"{name}: expected a 1-D array (n,), got {uids.ndim}-D")
    if not uids.flags.c_contiguous or not uids.flags.aligned:
        raise InputError(f"{name}: expected a contiguous, aligned array; pass a copy")
    return uids.view(np.uint64).reshape(-1, 2)


def _uids(words: NDArray[np.uint64]) -> UidArray:
    return words.reshape(-1).view(UID_DTYPE)


def _bad_hex(row: int, text: bytes) -> InputError:
    shown = repr(text[:40].decode("utf-8", "backslashreplace")) + ("…" if len(text) > 40 else "")
    return InputError(f"uid: expected 32 hex digits at row {row}, got {shown}")


def _require_order(words: NDArray[np.uint64], begin: int, end: int, name: str) -> None:
    part = words[max(begin - 1, 0) : end]
    row = _uid.first_unsorted(part, False)
    if row < len(part):
        raise InputError(
            f"{name}: expected uids in rising order, but row {max(begin - 1, 0) + row} is less than the row before it; "
            "sort them with sort_uids first"
        )


def _merged(operation: Operation, a: UidArray, b: UidArray, most: int) -> UidArray:
    out = np.empty(max(most, 1), UID_DTYPE)  # pages that are never written take no memory
    rows = sum(len(part) for part in merge_chunks(operation, a, b, out))
    out.resize(rows, refcheck=False)
    return out
