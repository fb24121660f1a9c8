"""Sets of hashed n-grams of texts, their MinHash signatures and pairs of similar sets.

``pycurate.reference.ngram`` defines every hash. Texts are read in place from the buffers of an Arrow column
(``pycurate.arrow.text_buffers``). No answer depends on threads or instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.arrays import require_option, thread_count_of
from pycurate.reference.ngram import permutation_parameters

__all__ = ["ShingleSets", "Tokens", "band_keys", "shingle_sets", "sign_texts"]

Tokens: TypeAlias = Literal["words", "characters"]
Indices = NDArray[np.int64]
Floats = NDArray[np.float32]
Offsets = NDArray[np.signedinteger[Any]]
_LARGEST_N = 1024
_MOST_PERMUTATIONS = 65_536


@dataclass(frozen=True, eq=False)
class ShingleSets:
    """The different shingles of each of n texts, as 64-bit hashes.

    Attributes
    ----------
    hashes
        (total,) uint64: the set of text 0, of text 1, ..., each rising.
    starts
        (n + 1,) int64: set i is ``hashes[starts[i]:starts[i + 1]]``; empty for a text without tokens.
    threads
        Threads to use; None: every processor this process may run on.
    """

    hashes: NDArray[np.uint64]
    starts: Indices
    threads: int | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def sizes(self) -> Indices:
        """(n,) different shingles of each text."""
        return np.diff(self.starts)

    @cached_property
    def copy_of(self) -> Indices:
        """(n,) the first set equal to each, -1 where that is the set itself or it is empty."""
        return _core.ngram.find_copies(self.hashes, self.starts, thread_count_of(self.threads))

    @cached_property
    def distinct(self) -> Indices:
        """(g,) rising: the non-empty sets that are no copies."""
        return np.flatnonzero((self.copy_of < 0) & (self.sizes > 0))

    def jaccard(self, rows: Indices, cols: Indices) -> Floats:
        """(p,) Jaccard similarity in [0, 1] of set rows[i] and set cols[i]; 0 for two empty sets."""
        return _core.ngram.jaccard(self.hashes, self.starts, rows, cols)

    def sign(self, rows: Indices, permutations: int, seed: int) -> NDArray[np.uint32]:
        """(len(rows), permutations) MinHash signatures of the sets with these numbers."""
        a, b = _permutations(permutations, seed)
        return _core.ngram.sign_sets(self.hashes, self.starts, rows, a, b, thread_count_of(self.threads))

    def pairs_above(
        self, threshold: float, bands: int, rows: int, seed: int, max_pairs: int
    ) -> tuple[Indices, Indices, Floats] | None:
        """Pairs of distinct sets that share a band and whose Jaccard similarity is at or above ``threshold``.

        Returns
        -------
        rows, cols, similarities
            (p,) each, sorted by (row, col), row < col; None where they are more than ``max_pairs``.
        """
        return _core.ngram.pairs_above(*self._candidates(threshold, bands, rows, seed, max_pairs))

    def components_above(self, threshold: float, bands: int, rows: int, seed: int) -> Indices:
        """(n,) the lowest set that each set is linked to by such pairs or by being a copy; memory for the sets only."""
        labels = _core.ngram.components_above(*self._candidates(threshold, bands, rows, seed))
        copies = np.flatnonzero(self.copy_of >= 0)
        labels[copies] = labels[self.copy_of[copies]]
        return labels

    def greedy(self, threshold: float, bands: int, rows: int, seed: int, order: Indices) -> tuple[Indices, Floats]:
        """Take the distinct sets in ``order``, a permutation of their places, and remove each that such a pair joins
        with one that is kept.

        Returns
        -------
        keeper, similarity
            (g,) the place in ``distinct`` of the most similar kept set, of equally similar ones the first in ``order``,
            -1 where the set is kept; similarity to it, NaN where kept. Holds no pair.
        """
        candidates = self._candidates(threshold, bands, rows, seed, np.ascontiguousarray(order, np.int64))
        return _core.ngram.greedy(*candidates)

    def _candidates(self, threshold: float, bands: int, rows: int, seed: int, *more: Any) -> Any:
        signatures = self.sign(self.distinct, bands * rows, seed)
        given = (self.hashes, self.starts, self.distinct, signatures, bands, rows, threshold, *more)
        return (*given, thread_count_of(self.threads))


def shingle_sets(
    data: NDArray[np.uint8],
    offsets: Offsets,
    n: tuple[int, int],
    of: Tokens = "words",
    *,
    fold: bool = True,
    threads: int | None = None,
) -> ShingleSets:
    """The sets of shingles of texts.

    Parameters
    ----------
    data : (bytes,) uint8
        The texts in UTF-8, one after the other.
    offsets : (m + 1,) int32 or int64, C order
        Text i is ``data[offsets[i]:offsets[i + 1]]``.
    n
        The least and the largest number of tokens of a shingle: every number between counts. A text of fewer tokens
        than the least has one shingle of all its tokens; a text without tokens has none.
    of
        ``"words"`` as ``str.split`` finds them, or ``"characters"``: code points.
    fold
        ASCII capitals count as small letters and, for characters, runs of ASCII whitespace as one space and none at the
        ends. Other characters are as they are.
    threads
        Threads to use; every processor this process may run on by default.

    Raises
    ------
    ValueError
        An offset falls or points outside ``data``; ``n`` is not 1 <= least <= largest <= 1,024; an unknown option.
    TypeError
        Another dtype; names the argument.
    """
    lowest, highest = _lengths(n)
    require_option("of", of, Tokens)
    hashes, starts = _core.ngram.shingle_sets(
        data, offsets, lowest, highest, of == "words", fold, thread_count_of(threads)
    )
    return ShingleSets(hashes, starts, threads)


def sign_texts(
    data: NDArray[np.uint8],
    offsets: Offsets,
    n: tuple[int, int],
    of: Tokens = "words",
    *,
    permutations: int,
    seed: int,
    fold: bool = True,
    threads: int | None = None,
) -> tuple[NDArray[np.uint32], Indices]:
    """MinHash signatures of texts, in one pass over their bytes and without holding their shingles.

    Parameters
    ----------
    data, offsets, n, of, fold, threads
        As in :func:`shingle_sets`.
    permutations
        Values of a signature, 1 to 65,536.
    seed
        Chooses the permutations; any integer, modulo 2**64.

    Returns
    -------
    signatures, counts
        (m, permutations) uint32, all ones for a text without tokens; (m,) shingles of each text, repeats counted.
    """
    lowest, highest = _lengths(n)
    require_option("of", of, Tokens)
    a, b = _permutations(permutations, seed)
    return _core.ngram.sign_texts(data, offsets, lowest, highest, of == "words", fold, a, b, thread_count_of(threads))


def band_keys(signatures: NDArray[np.uint32], bands: int, rows: int) -> NDArray[np.uint64]:
    """(m, bands) a 64-bit key of each ``rows`` values in a row of signatures (m, bands * rows).

    Two signatures with equal values in a band have the same key in it; different values have different keys but for one
    chance in 2**64, and so have different bands.
    """
    return _core.ngram.band_keys(signatures, bands, rows)


def _lengths(n: tuple[int, int]) -> tuple[int, int]:
    lowest, highest = n
    if not 1 <= lowest <= highest <= _LARGEST_N:
        raise ValueError(f"n: expected 1 <= least <= largest <= {_LARGEST_N:,} tokens, got {lowest} and {highest}")
    return lowest, highest


def _permutations(permutations: int, seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    if not 1 <= permutations <= _MOST_PERMUTATIONS:
        raise ValueError(f"permutations: expected 1 to {_MOST_PERMUTATIONS:,}, got {permutations}")
    return permutation_parameters(permutations, seed)
