"""The definition of the n-gram kernels: shingles of texts, MinHash signatures, bands and Jaccard similarity.

A *token* is a word or a character of a text, a *shingle* n tokens in a row. All arithmetic is modulo 2**64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_BASE = 0x9E3779B97F4A7C15
_LENGTH_FACTOR = 0xC2B2AE3D27D4EB4F
_ASCII_SPACE = b"\t\n\v\f\r\x1c\x1d\x1e\x1f "


def mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit over all."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def hash_token(token: bytes) -> int:
    """A token's 8 bytes at a time, little-endian, the last with zeros behind, on top of its length."""
    value = len(token) * _LENGTH_FACTOR & _MASK
    for start in range(0, len(token), 8):
        value = mix(value ^ int.from_bytes(token[start : start + 8], "little"))
    return value


def words(text: bytes) -> list[bytes]:
    """``str.split``."""
    return [word.encode("utf-8", "surrogateescape") for word in text.decode("utf-8", "surrogateescape").split()]


def characters(text: bytes) -> list[bytes]:
    """Code points. In broken UTF-8, a byte that continues no character begins one, as does the first byte."""
    starts = [i for i, byte in enumerate(text) if i == 0 or byte & 0xC0 != 0x80]
    return [text[begin:end] for begin, end in zip(starts, [*starts[1:], None], strict=False)]


def tokens(text: bytes, of: str, fold: bool) -> list[bytes]:
    """The tokens of a text. ``fold``: ASCII capitals are small letters, runs of ASCII whitespace one space."""
    if fold:
        text = text.lower()
    if of == "words":
        return words(text)
    if not fold:
        return characters(text)
    for space in _ASCII_SPACE:
        text = text.replace(bytes([space]), b" ")
    parts = [characters(part) for part in text.split(b" ") if part]
    return [token for part in parts for token in (b" ", *part)][1:]


def shingle_hashes(text: bytes, lowest: int, highest: int, of: str, fold: bool) -> list[int]:
    """Hash of every run of ``lowest`` to ``highest`` tokens, by its first token and then by its length.

    A text of fewer tokens than ``lowest`` has one shingle, all of its tokens; a text without tokens has none. The hash
    of a run t1 ... tn is mix(t1 B^(n-1) + ... + tn).
    """
    hashed = [hash_token(token) for token in tokens(text, of, fold)]
    lowest = min(lowest, len(hashed))
    found = []
    for first in range(len(hashed) - lowest + 1 if hashed else 0):
        for n in range(lowest, min(highest, len(hashed) - first) + 1):
            value = 0
            for token in hashed[first : first + n]:
                value = value * _BASE + token & _MASK
            found.append(mix(value))
    return found


def shingle_sets(
    texts: Sequence[bytes], lowest: int, highest: int, of: str, fold: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The different hashes of each text, rising, one text behind the other, and where each begins (n + 1,)."""
    sets = [sorted(set(shingle_hashes(text, lowest, highest, of, fold))) for text in texts]
    starts = np.cumsum([0, *map(len, sets)]).astype(np.int64)
    return np.array([value for values in sets for value in values], np.uint64), starts


def permutation_parameters(permutations: int, seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(permutations,) factors a and summands b: outputs 2j and 2j + 1 of SplitMix64 seeded with ``seed``."""
    counter = np.uint64(seed & _MASK) + np.arange(1, 2 * permutations + 1, dtype=np.uint64) * np.uint64(_BASE)
    counter = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    counter = (counter ^ (counter >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    drawn = counter ^ (counter >> np.uint64(31))
    return drawn[::2].copy(), drawn[1::2].copy()


def min_hash(hashes: NDArray[np.uint64], a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """(permutations,) the least upper 32 bits of a (h >> 32) + b over all hashes h; all ones where there is none.

    For a 32-bit key this family is strongly universal (Dietzfelbinger 1996). The keys are the upper halves of mixed
    hashes, so that each element of a union is equally likely to be the least.
    """
    if not len(hashes):
        return np.full(len(a), 0xFFFFFFFF, np.uint32)
    keys = hashes >> np.uint64(32)
    values = (a[:, None] * keys + b[:, None]) >> np.uint64(32)
    least: NDArray[np.uint32] = values.min(axis=1).astype(np.uint32)
    return least


def band_keys(signature: NDArray[np.uint32], bands: int, rows: int) -> list[int]:
    """One key for each run of ``rows`` values of a signature, told apart by the band's number."""
    keys = []
    for band in range(bands):
        value = band + 1
        for entry in signature[band * rows : (band + 1) * rows].tolist():
            value = value * _BASE + entry & _MASK
        keys.append(mix(value))
    return keys


def jaccard(x: NDArray[np.uint64], y: NDArray[np.uint64]) -> np.float32:
    """Elements in common divided by elements of both, in float64, rounded once; 0 for two empty sets."""
    common = len(np.intersect1d(x, y, assume_unique=True))
    both = len(x) + len(y) - common
    return np.float32(common / both) if both else np.float32(0)


def pairs_above(
    hashes: NDArray[np.uint64], starts: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """All pairs of non-empty sets at or above a threshold, by trying each; sorted by (row, col)."""
    limit = np.float32(threshold)
    sets = [hashes[begin:end] for begin, end in pairwise(starts.tolist())]
    found = [
        (i, j, similarity)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i]) and len(sets[j]) and (similarity := jaccard(sets[i], sets[j])) >= limit
    ]
    rows, cols, similarities = zip(*found, strict=True) if found else ((), (), ())
    return np.array(rows, np.int64), np.array(cols, np.int64), np.array(similarities, np.float32)
