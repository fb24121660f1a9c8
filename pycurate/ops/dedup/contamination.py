"""Rows of a pool that are near items of an evaluation set: by embedding, by n-grams of the caption, by equal keys.

Of each row the nearest item is named, of equally near ones the first. Of items that are equal (the same bits, the same
caption) only the first is compared, and what is near counts for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.fused_similarity import pairs_above
from pycurate.kernels.hamming import Codes, hamming_pairs
from pycurate.kernels.uid import find, sort_uids
from pycurate.ops.dedup.exact import missing_keys, text_keys
from pycurate.ops.dedup.minhash import caption_shingles, normalised_captions
from pycurate.ops.text.caption_measures import caption_words
from pycurate.types import UidArray

Indices = NDArray[np.int64]
GRAM_LENGTHS = (3, 4, 5, 6, 7, 8)
"""Words of the n-grams that a pack holds."""

_MOST_PAIRS = 1 << 22  # of one step: 84 MB; a block with more is halved


class Near(NamedTuple):
    """What of a block of rows is near the items of one pack by one measure."""

    rows: Indices  # (h,) rising rows of the block that are near any item
    items: Indices  # (h,) the nearest item of each
    values: NDArray[np.float64]  # (h,) how near: similarity, n-grams in common, or 1 for equal keys
    touched: Indices  # (t,) rising items that any row is near
    counts: Indices  # (t,) rows that are near each
    best: NDArray[np.float64]  # (t,) the largest value of each


class SortedKeys(NamedTuple):
    """Distinct keys of items, sorted, and the first item that has each."""

    keys: UidArray
    items: Indices

    @classmethod
    def of(cls, keys: UidArray) -> SortedKeys:
        """From (m,) keys of items; ``NO_KEY`` is left out."""
        judged = np.flatnonzero(~missing_keys(keys))
        ordered, items = np.array(keys[judged]), judged.astype(np.uint64)
        sort_uids(ordered, items)  # stable: of equal keys the first item comes first
        first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
        return cls(ordered[first], items[first].astype(np.int64))


class ItemHashes(NamedTuple):
    """Perceptual hashes of the items that have one, and these items."""

    codes: Codes
    items: Indices


class CaptionGrams(NamedTuple):
    """Hashes of n-grams of items' captions, sorted, and the item that has each."""

    n: int
    hashes: NDArray[np.uint64]
    items: NDArray[np.uint32]


def caption_keys(captions: pa.Array) -> UidArray:
    """(m,) keys of captions, equal where these read alike (``normalise_caption``); ``NO_KEY`` for empty ones."""
    return text_keys(captions, "caption")


def caption_grams(captions: pa.Array, keys: UidArray, n: int, *, threads: int | None = None) -> CaptionGrams:
    """The different n-grams of words of each caption that has as many; of equal captions, by ``keys``, the first's."""
    sets = caption_shingles(captions, n, threads=threads)
    firsts = np.zeros(len(captions), np.bool_)
    firsts[SortedKeys.of(keys).items] = True
    owner = np.repeat(np.arange(len(sets)), sets.sizes)
    kept = (firsts & _has_words(captions, n))[owner]
    hashes, items = sets.hashes[kept], owner[kept]
    order = np.argsort(hashes, kind="stable")
    return CaptionGrams(n, hashes[order], items[order].astype(np.uint32))


def near_by_key(keys: UidArray, items: SortedKeys) -> Near:
    """Rows whose key an item has; value 1."""
    found = find(items.keys, keys)
    rows = np.flatnonzero((found >= 0) & ~missing_keys(keys))
    partners = items.items[found[rows]]
    return _near(rows, partners, np.ones(len(rows)), partners, np.ones(len(rows)))


def near_by_grams(captions: pa.Array, grams: CaptionGrams, *, threads: int | None = None) -> Near:
    """Rows whose caption has an n-gram of words in common with that of an item; value: how many different ones.

    A caption of fewer words than n has no n-gram and is near nothing by this measure; ``near_by_key`` looks at those.
    """
    sets = caption_shingles(captions, grams.n, threads=threads)
    owner = np.repeat(np.arange(len(sets)), sets.sizes)
    asked = np.flatnonzero(_has_words(captions, grams.n)[owner])
    begin = np.searchsorted(grams.hashes, sets.hashes[asked])
    end = np.searchsorted(grams.hashes, sets.hashes[asked], side="right")
    hit = np.flatnonzero(end > begin)
    owner, begin, counts = owner[asked[hit]], begin[hit], (end - begin)[hit]
    parts = []
    ends = np.cumsum(counts)
    done = 0
    while done < len(owner):
        # Whole rows at a time, so that what a row has in common with an item is in one part.
        stop = int(np.searchsorted(ends, (ends[done - 1] if done else 0) + _MOST_PAIRS, side="right"))
        stop = int(np.searchsorted(owner, owner[min(max(stop, done + 1), len(owner)) - 1], side="right"))
        parts.append(_common_grams(owner[done:stop], begin[done:stop], counts[done:stop], grams.items))
        done = stop
    rows, items, common = (
        np.concatenate([np.empty(0, np.int64), *column]) for column in (zip(*parts, strict=True) if parts else [[]] * 3)
    )
    return _best_of_rows(rows, items, common.astype(np.float64))


def near_by_embedding(
    x: NDArray[Any],
    y: NDArray[Any],
    threshold: float,
    *,
    dtype: Literal["bfloat16"] | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> tuple[Near, Indices]:
    """Rows of x (n, d) whose cosine with any row of y (m, d) is at or above a threshold, and the unjudged rows of x.

    Exact. Where the pairs are too many to hold, the block is halved.
    """

    def found(part: slice, most: int) -> tuple[Near, Indices]:
        pairs = pairs_above(x[part], threshold, y, max_pairs=most, dtype=dtype, threads=threads, device=device)
        near = _near_of_pairs(pairs.rows, pairs.cols, pairs.similarities.astype(np.float64), pairs.copy_of, len(y))
        return near, pairs.unjudged

    return _halved_where_many(found, slice(0, len(x)), len(y))


def near_by_hash(
    codes: Codes, hashed: NDArray[np.bool_], items: ItemHashes, radius: int, *, threads: int | None = None
) -> Near:
    """Rows whose perceptual hash differs in at most ``radius`` bits from that of any item; value: 1 - distance / bits.

    Parameters
    ----------
    codes, hashed
        (n, w) hashes of rows, and (n,) which rows have one.
    """
    rows = np.flatnonzero(hashed)
    mine, bits = np.ascontiguousarray(codes[rows]), 64 * codes.shape[1]

    def found(part: slice, most: int) -> tuple[Near, Indices]:
        pairs = hamming_pairs(mine[part], radius, items.codes, max_pairs=most, threads=threads)
        alike = 1 - pairs.distances / bits
        return _near_of_pairs(pairs.rows, pairs.cols, alike, pairs.copy_of, len(items.codes)), pairs.rows[:0]

    near, _ = _halved_where_many(found, slice(0, len(rows)), len(items.codes))
    return near._replace(rows=rows[near.rows], items=items.items[near.items], touched=items.items[near.touched])


def _halved_where_many(
    found: Callable[[slice, int], tuple[Near, Indices]], part: slice, items: int
) -> tuple[Near, Indices]:
    """What ``found`` says of a part of the rows, asked of halves where the pairs would be too many to hold."""
    try:
        return found(part, _MOST_PAIRS if part.stop - part.start > 1 else items)
    except InputError:
        if part.stop - part.start <= 1:
            raise
    half = (part.stop - part.start) // 2
    a, unjudged_a = _halved_where_many(found, slice(part.start, part.start + half), items)
    b, unjudged_b = _halved_where_many(found, slice(part.start + half, part.stop), items)
    return _joined(a, b, half), np.concatenate([unjudged_a, unjudged_b + half])


def _near_of_pairs(
    rows: Indices, items: Indices, values: NDArray[np.float64], copy_of: Indices, items_there: int
) -> Near:
    """From pairs of distinct rows and distinct items; copies of a row are near what it is near.

    They take its item, and count for every item that it counts for.
    """
    first = _best_of_rows(rows, items, values)
    copies = np.flatnonzero(copy_of >= 0)
    if not len(copies):
        return first
    sizes = np.bincount(copy_of[copies], minlength=len(copy_of)) + 1
    place = np.full(len(copy_of), -1)
    place[first.rows] = np.arange(len(first.rows))
    copies = copies[place[copy_of[copies]] >= 0]
    source = np.concatenate([np.arange(len(first.rows)), place[copy_of[copies]]])
    all_rows = np.concatenate([first.rows, copies])
    order = np.argsort(all_rows, kind="stable")
    counts = np.bincount(items, sizes[rows], minlength=items_there)[first.touched].astype(np.int64)
    return first._replace(
        rows=all_rows[order], items=first.items[source[order]], values=first.values[source[order]], counts=counts
    )


def widened(x: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Rows of float16, bfloat16 (as uint16) or float32 as float32, exactly: no similarity changes."""
    if dtype == "bfloat16":
        return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.astype(np.float32)


def _has_words(captions: pa.Array, n: int) -> NDArray[np.bool_]:
    """(m,) whether a caption, normalised, has n words or more."""
    return np.asarray(caption_words(normalised_captions(captions)) >= n)  # NaN, of a null caption, is not


def _common_grams(
    owner: Indices, begin: Indices, counts: Indices, items: NDArray[np.uint32]
) -> tuple[Indices, Indices, Indices]:
    """Rows and items that share n-grams, sorted, and how many, from the ranges of ``items`` of each n-gram of rows."""
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    partners = items[np.repeat(begin, counts) + offset].astype(np.int64)
    pairs = np.repeat(owner, counts) << 32 | partners
    distinct, common = np.unique(pairs, return_counts=True)
    return distinct >> 32, distinct & 0xFFFFFFFF, common


def _best_of_rows(rows: Indices, items: Indices, values: NDArray[np.float64]) -> Near:
    """From all near pairs, sorted by row and then by item."""
    order = np.lexsort((items, -values, rows))
    first = order[np.append(True, rows[order][1:] != rows[order][:-1])[: len(rows)]]
    return _near(rows[first], items[first], values[first], items, values)


def _near(
    rows: Indices, partners: Indices, nearness: NDArray[np.float64], items: Indices, values: NDArray[np.float64]
) -> Near:
    touched, place = np.unique(items, return_inverse=True)
    best = np.full(len(touched), -np.inf)
    np.maximum.at(best, place, values)
    return Near(rows, partners, nearness, touched, np.bincount(place, minlength=len(touched)), best)


def _joined(a: Near, b: Near, offset: int) -> Near:
    """What is near in two blocks, of which the second begins at row ``offset``."""
    touched, place = np.unique(np.concatenate([a.touched, b.touched]), return_inverse=True)
    best = np.full(len(touched), -np.inf)
    np.maximum.at(best, place, np.concatenate([a.best, b.best]))
    counts = np.bincount(place, np.concatenate([a.counts, b.counts]), minlength=len(touched)).astype(np.int64)
    return Near(
        np.concatenate([a.rows, b.rows + offset]),
        np.concatenate([a.items, b.items]),
        np.concatenate([a.values, b.values]),
        touched,
        counts,
        best,
    )
