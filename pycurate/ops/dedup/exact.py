"""Exact duplicates: rows with the same bytes, url, caption or embedding bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from pycurate.arrow import arrow_texts
from pycurate.errors import InputError
from pycurate.kernels.uid import sort_uids
from pycurate.ops.dedup.priority import Order, priority_keys
from pycurate.ops.dedup.urls import normalise_url
from pycurate.ops.text.row_keys import NO_KEY, normalise_caption, row_keys
from pycurate.types import UID_DTYPE, ScoreArray, UidArray

Normalise: TypeAlias = Literal["caption", "url"]

_NORMALISERS: dict[Normalise, Callable[[str], str]] = {"caption": normalise_caption, "url": normalise_url}
_BFLOAT16_EXPONENT = np.uint16(0x7F80)


def exact_duplicates(
    values: pa.Array | pa.ChunkedArray | NDArray[Any] | Sequence[str | None],
    *,
    normalise: Normalise | None = None,
    priority: ScoreArray | None = None,
    keep: Literal["first", "highest", "lowest"] = "first",
) -> NDArray[np.int64]:
    """Which rows repeat another row, and which one.

    Values are compared by their 128-bit xxh3 hash: two different ones among a billion rows are mistaken for equal with
    a probability of 1e-21. Time grows with n log n, however many rows are equal. For a pool on disk, or one that does
    not fit in memory, use the recipe step ``exact_dedup``.

    Parameters
    ----------
    values
        (n,) Arrow array or chunked array of text, bytes or numbers; (n,) NumPy array; (n, d) NumPy array, whose rows
        are compared bit by bit; or a list of texts.
    normalise
        ``caption``: compare after NFKC, case folding and collapsing white space; ``url``: after `normalise_url`. By
        default values are compared as they are.
    priority
        (n,) numbers, by which the survivor among equal rows is chosen; needed by ``keep`` other than ``first``. NaN
        comes last.
    keep
        ``first`` (default): the first row survives; ``highest``, ``lowest``: that of highest or lowest ``priority``,
        the first of equal ones.

    Returns
    -------
    (n,) int64: the surviving row that a row repeats, -1 where the row itself survives. Rows without a value (null, text
    that is empty or all white space, a vector that is zero or not finite) repeat nothing and survive.

    Raises
    ------
    InputError
        An argument of another type or length; ``normalise`` of what is not text.
    """
    keys = _keys_of(values, normalise)
    order = _order_of(keep, priority is not None)
    places = np.zeros(len(keys), np.uint64) if priority is None else priority_keys(priority, order)
    if len(places) != len(keys):
        raise InputError(f"priority: expected one number for each of {len(keys):,} values, got {len(places):,}")
    rows = np.argsort(places, kind="stable")
    keys = keys[rows]
    sort_uids(keys, rows.view(np.uint64))
    survivors = run_starts(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    duplicate_of = np.full(len(keys), -1, np.int64)
    repeats = (survivors != np.arange(len(keys))) & ~missing_keys(keys)
    duplicate_of[rows[repeats]] = rows[survivors[repeats]]
    return duplicate_of


def run_starts(begins: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) where the run of each sorted row begins, given (n,) True where a run begins; the first row begins one."""
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))


def text_keys(values: pa.Array, normalise: Normalise | None) -> UidArray:
    """(n,) 128-bit keys, equal for equal values; ``NO_KEY`` for null, and for text that is empty or all white space.

    Parameters
    ----------
    values
        (n,) text; or, without ``normalise``, bytes, or numbers, which are compared by their text form.
    """
    kind = values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        if normalise is not None and not pa.types.is_null(kind):
            raise InputError(f"normalise: expected text to compare as {normalise}, got {kind}; compare it as it is")
        return row_keys(values)
    change = _unchanged if normalise is None else _NORMALISERS[normalise]
    texts = [None if text is None or not text.strip() else change(text) for text in values.to_pylist()]
    return row_keys(arrow_texts(texts))


def embedding_keys(x: NDArray[Any]) -> UidArray:
    """(n,) 128-bit keys of the rows of ``x`` (n, d), equal for equal bits; ``NO_KEY`` for zero and non-finite rows.

    uint16 is bfloat16.
    """
    x = np.ascontiguousarray(x)
    if x.dtype == np.uint16:
        judged = ~((x & _BFLOAT16_EXPONENT) == _BFLOAT16_EXPONENT).any(axis=1)
        judged &= (x & np.uint16(0x7FFF)).any(axis=1)
    else:
        judged = x.any(axis=1) & (np.isfinite(x).all(axis=1) if x.dtype.kind == "f" else True)
    width = x.itemsize * x.shape[1]
    data = x.reshape(-1).view(np.uint8).data if x.size else memoryview(b"")
    digests = [xxh3_128_digest(data[row * width : (row + 1) * width]) for row in range(len(x))]
    keys: UidArray = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).view(UID_DTYPE)
    keys[~judged] = np.array(NO_KEY, UID_DTYPE)
    return keys


def missing_keys(keys: UidArray) -> NDArray[np.bool_]:
    """(n,) True for ``NO_KEY``."""
    return np.asarray((keys["f0"] == NO_KEY[0]) & (keys["f1"] == NO_KEY[1]))


def _keys_of(values: Any, normalise: Normalise | None) -> UidArray:
    if normalise is not None and normalise not in _NORMALISERS:
        raise InputError(f"normalise: expected 'caption', 'url' or None, got {normalise!r}")
    if isinstance(values, np.ndarray) and values.ndim == 2:
        if normalise is not None:
            raise InputError(f"normalise: expected text to compare as {normalise}, got an array of {values.dtype}")
        return embedding_keys(values)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    elif not isinstance(values, pa.Array):
        if isinstance(values, np.ndarray) and values.ndim != 1:
            raise InputError(f"values: expected shape (n,) or (n, d), got {values.shape}")
        try:
            values = pa.array(values)
        except (pa.ArrowException, TypeError) as error:
            raise InputError(
                f"values: expected one text, number or bytes a row, got what Arrow cannot hold ({error})"
            ) from error
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_nested(values.type):
        raise InputError(f"values: expected one text, number or bytes a row, got {values.type}")
    return text_keys(values, normalise)


def _order_of(keep: str, has_priority: bool) -> Order:
    if keep not in ("first", "highest", "lowest"):
        raise InputError(f"keep: expected 'first', 'highest' or 'lowest', got {keep!r}")
    if has_priority != (keep != "first"):
        told = "ignores a priority, and one was given" if has_priority else "needs a priority, and none was given"
        raise InputError(f"priority: keep={keep!r} {told}")
    return "highest" if keep == "highest" else "lowest"


def _unchanged(text: str) -> str:
    return text
