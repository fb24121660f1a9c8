"""Uni- and bigrams of captions as 64-bit hashes, and which of them are the most frequent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from pycurate.ops.text.row_keys import normalise_caption

_FIRST, _SECOND, _PAIR = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


def caption_grams(captions: pa.Array, normalise: bool = False) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Every word and every two neighbouring words of each caption, hashed to 64 bits.

    Words are those of ``str.split``. A caption of w words has w unigrams and w - 1 bigrams; a gram that is there twice
    counts twice. Among a billion different grams two share a hash with a probability of 3 %; they count as one.

    Parameters
    ----------
    captions : (n,) Arrow text
    normalise
        Take words of ``normalise_caption`` of the caption instead: NFKC, case folded.

    Returns
    -------
    grams : ndarray
        (m,) uint64 hashes: the unigrams of all captions, then the bigrams.
    rows : ndarray
        (m,) uint32, the caption that has each gram. A null caption has none.
    """
    texts = captions.to_pylist()
    if normalise:
        texts = [None if text is None else normalise_caption(text) for text in texts]
    split = [[] if text is None else text.split() for text in texts]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    hashes = _WordHashes()
    words = np.fromiter((hashes[word] for caption in split for word in caption), np.uint64, int(lengths.sum()))
    rows = np.repeat(np.arange(len(split), dtype=np.uint32), lengths)
    neighbours = rows[1:] == rows[:-1]
    pairs = _mixed(words[:-1][neighbours] * _FIRST + words[1:][neighbours] * _SECOND + _PAIR)
    return np.concatenate([words, pairs]), np.concatenate([rows, rows[1:][neighbours]])


def frequent_cut(sizes: Mapping[int, int], limit: int) -> tuple[int, int] | None:
    """Where the ``limit`` most frequent grams end, given how many grams there are of each count.

    Parameters
    ----------
    sizes
        Count -> number of different grams that occur so often.
    limit
        At least 1.

    Returns
    -------
    tuple or None
        (count, grams): all grams that occur more often than ``count`` and ``grams`` of those that occur so often are
        among them. None where there are no more than ``limit`` grams at all.
    """
    left = limit
    if sum(sizes.values()) <= limit:
        return None
    for count in sorted(sizes, reverse=True):
        if sizes[count] >= left:
            return count, left
        left -= sizes[count]
    raise AssertionError("more grams than the sum of all")


class _WordHashes(dict[str, int]):
    """Each word is hashed once: captions repeat them."""

    def __missing__(self, word: str) -> int:
        self[word] = xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return self[word]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits that spreads every bit over all (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
