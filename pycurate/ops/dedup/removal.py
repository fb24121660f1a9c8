"""Which duplicates go: three semantics over similar pairs, whatever made the pairs.

``pycurate.reference.removal`` defines them. Similarities may be cosines, Jaccard indices, or 1 - hamming / bits: larger
is more alike, and 1 is the same. ``rank`` says who is earlier, and of two rows the earlier one survives. A threshold is
rounded once to float32; a pair reaches it when its similarity is equal to it or larger, and with ``strict`` only when
it is larger.

References
----------
Abbas, Tirumala, Simig, Ganguli, Morcos: SemDeDup: data-efficient learning at web-scale through semantic deduplication
(2023), whose rule is `published` with ``strict``; NVIDIA NeMo Curator's is `published` without.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.arrays import float32_of
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.fused_similarity import MostSimilarEarlier
from pycurate.kernels.spanning_forest import heaviest_forest
from pycurate.ops.dedup import sweeps

Removal: TypeAlias = Literal["published", "greedy", "component"]
"""Any earlier row removes; only rows that are kept remove; of linked rows one is kept."""


class Duplicates(NamedTuple):
    """What is removed, and why."""

    duplicate_of: Indices  # (n,) the row in whose favour a row is removed, -1 where it is kept
    similarity: Floats  # (n,) to that row (component: of the weakest link to it), NaN where the row is kept

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) which rows are kept."""
        return self.duplicate_of < 0


def published(best: MostSimilarEarlier, threshold: float, strict: bool = False) -> Duplicates:
    """Remove a row if any earlier row reaches the threshold, even one that is removed itself.

    Parameters
    ----------
    best
        For every row the most similar earlier one, as `pycurate.most_similar_earlier` returns it with a floor at or
        below ``threshold``.
    threshold, strict
        See the module's description.

    Returns
    -------
    Duplicates
        ``duplicate_of`` is the most similar earlier row.

    Raises
    ------
    ValueError
        ``threshold`` is NaN.
    """
    removed = reaches(best.similarities, threshold, strict)
    return Duplicates(
        np.where(removed, best.indices, np.int64(-1)), np.where(removed, best.similarities, np.float32(np.nan))
    )


def greedy(
    n: int,
    rows: Indices,
    cols: Indices,
    similarities: Floats,
    rank: Indices,
    threshold: float,
    strict: bool = False,
    *,
    copy_of: Indices | None = None,
) -> Duplicates:
    """Remove a row if an earlier row that is kept reaches the threshold; the order of the pairs changes nothing.

    Parameters
    ----------
    n
        Rows there are.
    rows, cols, similarities
        (p,) pairs of different rows, each once or more often; all that reach the threshold, and others are left out.
    rank
        (n,) a permutation of 0 to n - 1; lower is earlier.
    threshold, strict
        See the module's description.
    copy_of
        (n,) the first row with the same content, -1 where a row is it. Then pairs name only first rows and stand for
        the others, and rows with the same content have similarity 1.

    Returns
    -------
    Duplicates
        ``duplicate_of`` is the most similar earlier row that is kept, of equally similar ones the earliest. Rows with
        the same content name the earliest of them, or where that is removed the row that it names.

    Raises
    ------
    ValueError
        Shapes differ, a row number is out of range, ``rank`` is no permutation, or ``threshold`` is NaN.
    """
    rank, row_of_rank = checked_rank(n, rows, cols, similarities, rank)
    first = None if copy_of is None else first_of_copies(copy_of, rank, row_of_rank)
    ranks, best = sweeps.sweep_greedy(
        rank if first is None else rank[first], rows, cols, similarities, least_reaching(threshold, strict)
    )
    found = Duplicates(np.append(row_of_rank, -1)[ranks[rank]], best[rank])
    return found if first is None else with_copies(found, first, threshold, strict)


def component(
    n: int,
    rows: Indices,
    cols: Indices,
    similarities: Floats,
    rank: Indices,
    threshold: float,
    strict: bool = False,
    *,
    copy_of: Indices | None = None,
) -> Duplicates:
    """Of rows that are linked, directly or through others, keep only the earliest.

    A chain joins rows that are not alike: 0.9 and 0.9 may make 0.6. How far a group goes is for the caller to look at,
    by the similarity of its rows to the one that is kept.

    Parameters
    ----------
    n, rank, threshold, strict
        As in `greedy`.
    rows, cols, similarities
        (p,) pairs, or only those of their maximum spanning forest, which give the same result.
    copy_of
        (n,) as in `greedy`: each such row is linked to the first one with similarity 1.

    Returns
    -------
    Duplicates
        ``duplicate_of`` is the earliest row of the component. ``similarity`` is that of the weakest link of the best
        chain to it: the largest threshold at which the two are linked, never below ``threshold``.

    Raises
    ------
    ValueError
        As `greedy`.
    """
    rank, row_of_rank = checked_rank(n, rows, cols, similarities, rank)
    reaching = reaches(similarities, threshold, strict)
    a, b, weights = rows[reaching], cols[reaching], similarities[reaching]
    if copy_of is not None and reaches(np.ones(1, np.float32), threshold, strict)[0]:
        copies = np.flatnonzero(copy_of >= 0)
        a, b = np.concatenate([copy_of[copies], a]), np.concatenate([copies, b])
        weights = np.concatenate([np.ones(len(copies), np.float32), weights])
    a, b, weights = heaviest_forest(n, a, b, weights)
    ranks, weakest = sweeps.links_to_earliest(n, rank[a], rank[b], weights)
    return Duplicates(np.append(row_of_rank, -1)[ranks[rank]], weakest[rank])


def spanning_forest(n: int, rows: Indices, cols: Indices, similarities: Floats) -> tuple[Indices, Indices, Floats]:
    """The maximum spanning forest of pairs: what `component` needs of them, for every threshold at once.

    Parameters
    ----------
    n, rows, cols, similarities
        As in `greedy`, row < col; NaN is no similarity.

    Returns
    -------
    rows, cols, similarities
        (e,), e < n, the most similar first, equally similar ones by (row, col).
    """
    _require_pairs(n, rows, cols, similarities)
    judged = ~np.isnan(similarities)
    return heaviest_forest(n, rows[judged], cols[judged], similarities[judged])


def least_reaching(threshold: float, strict: bool) -> float:
    """The least float32 similarity that reaches a threshold, which is rounded to float32 first.

    Raises
    ------
    ValueError
        ``threshold`` is NaN.
    """
    limit = np.float32(float32_of("threshold", threshold))
    return float(np.nextafter(limit, np.float32(np.inf)) if strict else limit)


def reaches(similarities: Floats, threshold: float, strict: bool) -> NDArray[np.bool_]:
    """(p,) whether each similarity reaches a threshold; NaN reaches none."""
    return similarities >= np.float32(least_reaching(threshold, strict))


def checked_rank(n: int, rows: Indices, cols: Indices, similarities: Floats, rank: Indices) -> tuple[Indices, Indices]:
    """``rank`` as int64, and the row of each rank; ValueError where it or the pairs are not as `greedy` says."""
    _require_pairs(n, rows, cols, similarities)
    given = np.asarray(rank)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise ValueError(f"rank: expected integers of shape ({n},), got {given.dtype} of shape {given.shape}")
    row_of_rank = np.full(n, -1, np.int64)
    inside = (given >= 0) & (given < n)
    row_of_rank[given[inside]] = np.flatnonzero(inside)
    if len(missing := np.flatnonzero(row_of_rank < 0)):
        raise ValueError(
            f"rank: expected each of 0 to {n - 1} once, but no row has rank {missing[0]}; "
            "for a priority p, largest first, give numpy.argsort(numpy.argsort(-p, kind='stable'))"
        )
    return given.astype(np.int64, copy=False), row_of_rank


def _require_pairs(n: int, rows: Indices, cols: Indices, similarities: Floats) -> None:
    if not rows.shape == cols.shape == similarities.shape or rows.ndim != 1:
        raise ValueError(
            "rows, cols, similarities: expected (p,) each, got shapes "
            f"{rows.shape}, {cols.shape} and {similarities.shape}"
        )
    for name, ends in (("rows", rows), ("cols", cols)):
        if len(ends) and not 0 <= ends.min() <= ends.max() < n:
            raise ValueError(f"{name}: expected row numbers from 0 to {n - 1}, got {ends.min()} to {ends.max()}")


def first_of_copies(copy_of: Indices, rank: Indices, row_of_rank: Indices) -> Indices:
    """(n,) the earliest row with the same content as each row, itself included."""
    content = np.where(copy_of < 0, np.arange(len(rank)), copy_of)
    lowest = rank.copy()
    np.minimum.at(lowest, content, rank)
    return row_of_rank[lowest[content]]


def with_copies(found: Duplicates, first: Indices, threshold: float, strict: bool) -> Duplicates:
    """Carry what `greedy` decided of the earliest rows of their content (``first``, (n,)) to the others, in place."""
    if not reaches(np.ones(1, np.float32), threshold, strict)[0]:
        return found
    duplicate_of, similarity = found
    others = np.flatnonzero(first != np.arange(len(first)))
    firsts = first[others]
    is_kept = duplicate_of[firsts] < 0
    duplicate_of[others] = np.where(is_kept, firsts, duplicate_of[firsts])
    similarity[others] = np.where(is_kept, np.float32(1), similarity[firsts])
    return found
