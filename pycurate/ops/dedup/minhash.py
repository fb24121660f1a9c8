"""Near-duplicate texts by MinHash, banding and verified Jaccard similarity.

A caption becomes the set of its shingles, n words or characters in a row, hashed to 64 bits. The value of one random
permutation's least element is the same for two sets with probability J, their Jaccard similarity; a signature is P such
values (Broder 1997). Signatures are cut into b bands of r values; two captions are compared when all values of any band
agree (Leskovec, Rajaraman, Ullman 2020, section 3.4), which a pair of similarity s *misses* with probability
(1 - s^r)^b. What is compared is verified: the similarity returned is that of the sets, not an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.arrow import arrow_texts, text_buffers
from pycurate.errors import InputError
from pycurate.kernels.arrays import float32_of, require_option
from pycurate.kernels.fused_similarity import MAX_PAIRS
from pycurate.kernels.ngram import ShingleSets, Tokens, shingle_sets, sign_texts
from pycurate.ops.dedup.removal import Duplicates, checked_rank, first_of_copies, with_copies
from pycurate.ops.text.row_keys import normalise_caption

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]
NGrams: TypeAlias = int | tuple[int, int]
"""How many tokens a shingle has: n, or every number from the first to the second."""

__all__ = [
    "PRESETS",
    "MinHashPairs",
    "MinHashPreset",
    "NGrams",
    "Signatures",
    "caption_shingles",
    "minhash_components",
    "minhash_duplicates",
    "minhash_pairs",
    "minhash_rule",
    "minhash_signatures",
    "missed_fraction",
    "normalised_captions",
]


class Signatures(NamedTuple):
    """MinHash signatures of captions."""

    signatures: NDArray[np.uint32]
    """(m, permutations). The share of equal values of two rows estimates their Jaccard similarity without bias."""
    shingles: Indices
    """(m,) shingles of each caption, repeats counted; 0 for an unjudged one, whose signature is all ones."""

    @property
    def unjudged(self) -> Indices:
        """(u,) rising rows without a caption or without a token in it."""
        return np.flatnonzero(self.shingles == 0)


@dataclass(frozen=True, slots=True, eq=False)
class MinHashPairs:
    """Similar captions, sorted by (row, col), and the rows that stand for others or for nothing."""

    rows: Indices  # (p,)
    cols: Indices  # (p,) row < col
    similarities: Floats  # (p,) Jaccard similarity of the sets of shingles, at or above the threshold
    copy_of: Indices  # (m,) the first row with the same set of shingles, -1 where the row itself is the first
    unjudged: Indices  # (u,) rising rows without a caption or without a token in it
    missed_at_threshold: float  # probability that a pair just at the threshold is not found; smaller above it


@dataclass(frozen=True, slots=True)
class MinHashPreset:
    """Shingles, bands and a threshold that go together."""

    n: NGrams
    of: Tokens
    bands: int
    rows: int
    threshold: float


PRESETS: Mapping[str, MinHashPreset] = MappingProxyType(
    {
        # FineWeb (Penedo et al. 2024): 112 values as 14 bands of 8, 5-grams of words, "at least 75 % similar".
        "minhash": MinHashPreset(5, "words", 14, 8, 0.75),
        # 256 permutations at 0.7 (The Stack, Kocetkov et al. 2022); the cut that weighs false positives and negatives
        # alike at this threshold is 25 bands of 10.
        "minhash-256": MinHashPreset(5, "words", 25, 10, 0.7),
        # Captions have a median of 8 words: 2- and 3-grams, and bands so short that hardly a pair is missed.
        "minhash-captions": MinHashPreset((2, 3), "words", 32, 4, 0.7),
    }
)


def missed_fraction(jaccard: float, bands: int, rows: int) -> float:
    """Probability that two captions of this Jaccard similarity share no band: (1 - jaccard**rows)**bands."""
    return float((1.0 - jaccard**rows) ** bands)


def minhash_signatures(
    captions: pa.Array,
    *,
    n: NGrams = (2, 3),
    of: Tokens = "words",
    permutations: int = 128,
    seed: int = 1,
    normalise: bool = True,
    threads: int | None = None,
) -> Signatures:
    """MinHash signatures of captions, shingled and hashed in one pass.

    Parameters
    ----------
    captions
        (m,) Arrow text. Without ``normalise``, and where all are ASCII and none is null, read in place.
    n
        Tokens of a shingle; a pair (lowest, highest) takes shingles of every length between. A caption of fewer tokens
        has one shingle, all of them.
    of
        ``"words"`` as ``str.split`` finds them, or ``"characters"``: code points, whitespace included.
    permutations
        Values of a signature; the standard error of an estimate is sqrt(J (1 - J) / permutations).
    seed
        Chooses the permutations; equal seeds give comparable signatures.
    normalise
        NFKC, case folding and one space for every run of whitespace first; else tokens are compared as they are.
    threads
        Threads to use; every processor this process may run on by default. The result does not depend on it.

    Returns
    -------
    Signatures

    Raises
    ------
    ValueError
        ``n``, ``of`` or ``permutations`` is not as above.
    InputError
        ``captions`` is not an Arrow array of text.
    KeyboardInterrupt
        Ctrl-C, within a second.

    References
    ----------
    Broder: On the resemblance and containment of documents (1997). Dietzfelbinger: Universal hashing and k-wise
    independent random variables via integer arithmetic without primes (1996), for the family of permutations.
    """
    data, offsets = _buffers(captions, normalise)
    return Signatures(
        *sign_texts(
            data, offsets, _lengths(n), of, permutations=permutations, seed=seed, fold=normalise, threads=threads
        )
    )


def minhash_pairs(
    captions: pa.Array,
    threshold: float | None = None,
    preset: str = "minhash-captions",
    *,
    n: NGrams | None = None,
    of: Tokens | None = None,
    bands: int | None = None,
    rows: int | None = None,
    seed: int = 1,
    normalise: bool = True,
    max_pairs: int = MAX_PAIRS,
    threads: int | None = None,
) -> MinHashPairs:
    """Pairs of captions whose sets of shingles have a Jaccard similarity at or above a threshold.

    Captions with the same set collapse first: only the first of them is in pairs, ``copy_of`` names it for the others.
    Every pair returned is verified, and named once; a pair of similarity s is missed with probability
    (1 - s**rows)**bands, :func:`missed_fraction`.

    Parameters
    ----------
    captions, seed, normalise, threads
        As in :func:`minhash_signatures`.
    threshold
        In [0, 1], rounded once to float32; that of the preset by default.
    preset
        ``"minhash-captions"`` (2- and 3-grams of words, 32 bands of 4 values, 0.7), ``"minhash"`` (5-grams of words, 14
        bands of 8, 0.75) or ``"minhash-256"`` (5-grams, 25 bands of 10 of 256 permutations, 0.7).
    n, of, bands, rows
        Each replaces what the preset says; a signature has bands * rows values.
    max_pairs
        More pairs than this are an error instead of a full memory; a pair takes 20 bytes.

    Returns
    -------
    MinHashPairs

    Raises
    ------
    ValueError
        An option is not as above, or ``threshold`` is NaN or outside [0, 1].
    InputError
        ``captions`` is not an Arrow array of text, or there are more than ``max_pairs`` pairs.
    KeyboardInterrupt
        Ctrl-C, within about a second.
    """
    rule = minhash_rule(preset, threshold, n, of, bands, rows)
    if max_pairs < 0:
        raise ValueError(f"max_pairs: expected at least 0, got {max_pairs}")
    sets = caption_shingles(captions, rule.n, rule.of, normalise=normalise, threads=threads)
    found = sets.pairs_above(rule.threshold, rule.bands, rule.rows, seed, max_pairs)
    if found is None:
        raise InputError(
            f"max_pairs: expected at most {max_pairs:,} pairs of captions at or above {rule.threshold:g}, but there "
            "are more; raise the threshold, allow more pairs (20 bytes each), or ask minhash_components or "
            "minhash_duplicates, which hold no pairs"
        )
    missed = missed_fraction(rule.threshold, rule.bands, rule.rows)
    return MinHashPairs(*found, sets.copy_of, np.flatnonzero(sets.sizes == 0), missed)


def minhash_components(
    captions: pa.Array,
    threshold: float | None = None,
    preset: str = "minhash-captions",
    *,
    n: NGrams | None = None,
    of: Tokens | None = None,
    bands: int | None = None,
    rows: int | None = None,
    seed: int = 1,
    normalise: bool = True,
    threads: int | None = None,
) -> Indices:
    """Groups of captions that are linked, directly or through others, by the pairs of :func:`minhash_pairs`.

    Holds no pairs: a clump of a million near-copies takes memory for its captions only, 8 bytes a different shingle and
    4 bytes a value of the signature.

    Parameters
    ----------
    captions, threshold, preset, n, of, bands, rows, seed, normalise, threads
        As in :func:`minhash_pairs`.

    Returns
    -------
    (m,) int64. The lowest row of each row's group. A row in no pair is its own group, so is an unjudged one.

    Raises
    ------
    ValueError, InputError, KeyboardInterrupt
        As :func:`minhash_pairs`.
    """
    rule = minhash_rule(preset, threshold, n, of, bands, rows)
    sets = caption_shingles(captions, rule.n, rule.of, normalise=normalise, threads=threads)
    return sets.components_above(rule.threshold, rule.bands, rule.rows, seed)


def minhash_duplicates(
    captions: pa.Array,
    rank: Indices,
    threshold: float | None = None,
    preset: str = "minhash-captions",
    *,
    removal: Literal["greedy", "component"] = "greedy",
    n: NGrams | None = None,
    of: Tokens | None = None,
    bands: int | None = None,
    rows: int | None = None,
    seed: int = 1,
    normalise: bool = True,
    threads: int | None = None,
) -> Duplicates:
    """Which captions go, and in favour of which row, by the pairs of :func:`minhash_pairs`.

    Holds no pairs: a caption that is removed is compared with kept ones only.

    Parameters
    ----------
    captions, threshold, preset, n, of, bands, rows, seed, normalise, threads
        As in :func:`minhash_pairs`.
    rank
        (m,) a permutation of 0 to m - 1; lower is earlier, and of two captions the earlier one survives.
    removal
        ``"greedy"``: a caption goes if an earlier one that is kept reaches the threshold. ``"component"``: of captions
        that are linked, directly or through others, only the earliest stays.

    Returns
    -------
    Duplicates
        For ``greedy`` the most similar earlier row that is kept, of equally similar ones the earliest; for
        ``component`` the earliest of the group, with the Jaccard similarity to it, which may lie below the threshold.

    Raises
    ------
    ValueError, InputError, KeyboardInterrupt
        As :func:`minhash_pairs`; also where ``rank`` is no permutation.
    """
    rule = minhash_rule(preset, threshold, n, of, bands, rows)
    require_option("removal", removal, Literal["greedy", "component"])
    none = np.empty(0, np.int64)
    rank, row_of_rank = checked_rank(len(captions), none, none, np.empty(0, np.float32), rank)
    sets = caption_shingles(captions, rule.n, rule.of, normalise=normalise, threads=threads)
    if removal == "component":
        labels = sets.components_above(rule.threshold, rule.bands, rule.rows, seed)
        lowest = rank.copy()
        np.minimum.at(lowest, labels, rank)
        earliest = row_of_rank[lowest[labels]]
        removed = np.flatnonzero(earliest != np.arange(len(captions)))
        found = _none_removed(len(captions))
        found.duplicate_of[removed] = earliest[removed]
        found.similarity[removed] = sets.jaccard(removed, earliest[removed])
        return found
    first = first_of_copies(sets.copy_of, rank, row_of_rank)
    order = np.argsort(rank[first[sets.distinct]])
    keeper, similarity = sets.greedy(rule.threshold, rule.bands, rule.rows, seed, order)
    found = _none_removed(len(captions))
    firsts = first[sets.distinct]
    removed = np.flatnonzero(keeper >= 0)
    found.duplicate_of[firsts[removed]] = firsts[keeper[removed]]
    found.similarity[firsts[removed]] = similarity[removed]
    return with_copies(found, first, rule.threshold, strict=False)


def caption_shingles(
    captions: pa.Array, n: NGrams, of: Tokens = "words", *, normalise: bool = True, threads: int | None = None
) -> ShingleSets:
    """The set of shingles of each caption; parameters as in :func:`minhash_signatures`."""
    data, offsets = _buffers(captions, normalise)
    return shingle_sets(data, offsets, _lengths(n), of, fold=normalise, threads=threads)


def normalised_captions(captions: pa.Array) -> pa.Array:
    """Captions that the kernels fold to ``normalise_caption`` of each.

    An ASCII caption is left as it is, since for these NFKC changes nothing and case folding is what the kernels do; so
    is null.
    """
    import pyarrow.compute as pc  # here: 40 ms, and a run that reads numbers needs none of it

    other = pc.fill_null(pc.invert(pc.string_is_ascii(captions)), False)
    if not pc.any(other).as_py():
        return captions
    texts = arrow_texts([normalise_caption(text) for text in captions.filter(other).to_pylist()])
    return pc.replace_with_mask(captions.cast(pa.large_string()), other, texts)


def _buffers(captions: pa.Array, normalise: bool) -> tuple[NDArray[np.uint8], NDArray[np.int32] | NDArray[np.int64]]:
    if not isinstance(captions, pa.Array) or not (
        pa.types.is_string(captions.type) or pa.types.is_large_string(captions.type)
    ):
        kind = captions.type if isinstance(captions, pa.Array | pa.ChunkedArray) else type(captions).__name__
        raise InputError(
            f"captions: expected an Arrow array of string or large_string, got {type(captions).__name__} of {kind}; "
            "pass pyarrow.array(captions), or combine_chunks() of a column"
        )
    if captions.null_count:
        captions = captions.fill_null("")
    return text_buffers(normalised_captions(captions) if normalise else captions)


def _none_removed(m: int) -> Duplicates:
    return Duplicates(np.full(m, -1, np.int64), np.full(m, np.nan, np.float32))


def _lengths(n: NGrams) -> tuple[int, int]:
    return (n, n) if isinstance(n, int) else (n[0], n[1])


def minhash_rule(
    preset: str, threshold: float | None, n: NGrams | None, of: Tokens | None, bands: int | None, rows: int | None
) -> MinHashPreset:
    """The preset with what was given in its place; ValueError where it is not as `minhash_pairs` says."""
    require_option("preset", preset, Literal["minhash-captions", "minhash", "minhash-256"])
    base = PRESETS[preset]
    rule = MinHashPreset(
        base.n if n is None else n,
        base.of if of is None else of,
        base.bands if bands is None else bands,
        base.rows if rows is None else rows,
        float32_of("threshold", base.threshold if threshold is None else threshold),
    )
    if rule.bands < 1 or rule.rows < 1:
        raise ValueError(f"bands, rows: expected at least 1 each, got {rule.bands} and {rule.rows}")
    if not 0 <= rule.threshold <= 1:
        raise ValueError(f"threshold: expected a Jaccard similarity in [0, 1], got {rule.threshold:g}")
    return rule
