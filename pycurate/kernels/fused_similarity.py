"""Questions about the similarities of all pairs of rows, answered without ever storing them.

Every similarity that decides something is canonical (``pycurate.reference.rowwise``), so that answers equal brute force
bit for bit on every instruction set and for any number of threads. ``pycurate.reference.fused_similarity`` defines each
answer. A row is *judged* when its squared norm is a finite float32 and, for cosine, not zero; the others take part in
no pair and are named in ``unjudged``. Two rows whose similarity overflows float32 are no pair either.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.errors import InputError
from pycurate.kernels.arrays import float32_of, matrix_of, ranks_of, require_option, thread_count_of
from pycurate.kernels.distinct import (
    DistinctRows,
    Floats,
    Indices,
    expand_earlier,
    expand_nearest,
    first_and_later,
    linked_copies,
)
from pycurate.kernels.join import Join, Precision, Unjudged, join_of
from pycurate.kernels.rowwise import Metric

Progress: TypeAlias = Callable[[float], object] | None

# A pair takes 20 bytes, so these are 2 GB, twice that while they are sorted: what a machine of 8 GB still bears.
MAX_PAIRS = 100_000_000

__all__ = [
    "MAX_PAIRS",
    "LogSumExp",
    "MostSimilarEarlier",
    "Nearest",
    "Pairs",
    "components_above",
    "count_above",
    "log_sum_exp",
    "most_similar_earlier",
    "nearest",
    "pairs_above",
    "unjudged_rows",
]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of rows, sorted by (row, col), and the rows that stand for others or for nothing."""

    rows: Indices  # (p,) rows of x
    cols: Indices  # (p,) rows of y; of x in a self-join, and then row < col
    similarities: Floats  # (p,)
    copy_of: Indices  # (n,) of x: the first row with the same bits, -1 where the row itself is the first
    copy_of_y: Indices | None  # (m,) of y; None in a self-join
    unjudged: Indices  # (u,) rising rows of x that cannot be judged
    unjudged_y: Indices | None  # of y; None in a self-join


@dataclass(frozen=True, slots=True, eq=False)
class MostSimilarEarlier:
    """For every row the most similar one of higher priority."""

    indices: Indices  # (n,) rows, -1 where no row of higher priority reaches the floor
    similarities: Floats  # (n,) NaN where there is none
    unjudged: Indices  # (u,) rising rows that cannot be judged


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """Nearest rows, nearest first, ties to the lower row number."""

    indices: Indices  # (n, k) rows of y, of x in a self-join; -1 beyond the last
    similarities: Floats  # (n, k) NaN beyond the last
    unjudged: Indices  # (u,) rising rows of x that cannot be judged
    unjudged_y: Indices | None  # of y; None in a self-join


@dataclass(frozen=True, slots=True, eq=False)
class LogSumExp:
    """Log of the sum of exp(scale * similarity) over each row and over each column."""

    rows: NDArray[np.float64]  # (n,) NaN where the row of x cannot be judged, -inf where it is in no pair
    cols: NDArray[np.float64]  # (m,) likewise of y
    unjudged: Indices  # (u,) rising rows of x that cannot be judged
    unjudged_y: Indices  # of y


def pairs_above(
    x: Any,
    threshold: float,
    y: Any = None,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    max_pairs: int = MAX_PAIRS,
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> Pairs:
    """All pairs of distinct rows whose similarity is at or above a threshold.

    Rows with the same bits collapse first: only the first of them is in pairs, ``copy_of`` names it for the others. In
    a cross-join the rows of x and of y collapse apart, and a row of x pairs with an equal row of y.

    Parameters
    ----------
    x
        (n, d) float16, bfloat16 (of ml_dtypes or torch, or uint16 bits with ``dtype="bfloat16"``), float32 or int8;
        normalised or not. A NumPy array or memory map, or a tensor in CPU memory that offers DLPack. The elements of a
        row must be adjacent; rows may be any stride apart. Nothing is copied.
    threshold
        Rounded once to float32; a pair is returned when its float32 similarity is equal to it or larger. -inf gives
        every pair.
    y
        (m, d) rows of the same kind to join x with; by default x is joined with itself and a pair is named once.
    metric
        ``"cosine"`` in [-1, 1], ``"inner_product"``, or ``"l2"``: the negated squared distance, at most 0. Larger is
        nearer.
    precision
        ``"exact"`` screens tiles in int8 with proven bounds and scores what may pass; ``"float32"`` scores every pair.
        Both give the same results; the second is there to compare with, and is much slower.
    max_pairs
        More pairs than this are an error instead of a full memory; a pair takes 20 bytes.
    unjudged
        Rows whose squared norm is NaN, infinite or overflows float32, and for cosine zero rows: ``"skip"`` leaves them
        out and names them in the result, ``"raise"`` is an error that names the first of them.
    threads
        Threads to use; every processor this process may run on by default. The result does not depend on it.
    dtype
        ``"bfloat16"`` to read uint16 arrays as bfloat16 bits.
    device
        ``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:1"``, ``"auto"`` (a GPU where one can be used); None: where the
        arrays lie. Tensors in CUDA memory come in by DLPack. The result is the same and lies in the CPU's memory.
    progress
        Called about every 100 ms with the fraction that is done, in [0, 1]; not at all in a short call.

    Returns
    -------
    Pairs

    Raises
    ------
    TypeError
        ``x`` or ``y`` is not an array of a dtype above, or they differ.
    ValueError
        A shape, stride or option is not as above, or ``threshold`` is NaN.
    InputError
        More than ``max_pairs`` pairs (a ValueError, too).
    KeyboardInterrupt
        Ctrl-C, within a second.
    """
    limit, most = float32_of("threshold", threshold), operator.index(max_pairs)
    if most < 0:
        raise ValueError(f"max_pairs: expected at least 0, got {max_pairs}")
    join = join_of(x, y, metric, precision, unjudged, threads, dtype, device)
    found = join.kernels.pairs_above(*join.operands(limit=limit), limit, most, join.threads, progress)
    if found is None:
        raise _too_many_pairs(most, limit)
    left, right = join.left.distinct, join.right
    return Pairs(
        *found,
        left.copy_of,
        None if right is None else right.distinct.copy_of,
        left.unjudged,
        None if right is None else right.distinct.unjudged,
    )


def _too_many_pairs(most: int, limit: float) -> InputError:
    return InputError(
        f"max_pairs: expected at most {most:,} pairs at or above {limit:g}, but there are more; raise the threshold, "
        "allow more pairs (20 bytes each), or ask components_above, count_above or most_similar_earlier, which hold no "
        "pairs"
    )


def components_above(
    x: Any,
    threshold: float,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> Indices:
    """Groups of rows that are linked, directly or through others, by pairs at or above a threshold.

    Holds no pairs: a clump of a million near-copies takes memory for its rows only.

    Parameters
    ----------
    x, threshold, metric, precision, unjudged, threads, dtype, device, progress
        As in :func:`pairs_above`.

    Returns
    -------
    (n,) int64. The lowest row of each row's group. A row in no pair is its own group, so is a row that cannot be judged
    (:func:`unjudged_rows` names those). Rows with the same bits are rows like others.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`.
    """
    limit = float32_of("threshold", threshold)
    join = join_of(x, None, metric, precision, unjudged, threads, dtype, device)
    rows, cols = join.kernels.forest_above(*join.operands(limit=limit), limit, join.threads, progress)
    distinct = join.left.distinct
    if distinct.has_copies:
        copies = linked_copies(distinct, rows, cols, join.left.self_similarities(metric) >= limit)
        rows, cols = np.concatenate([rows, distinct.copy_of[copies]]), np.concatenate([cols, copies])
    return _core.fused_similarity.components(distinct.n, rows, cols)


def count_above(
    x: Any,
    threshold: float,
    y: Any = None,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> Indices:
    """How many rows of y, or other rows of x, are at or above a threshold from each row of x.

    Parameters
    ----------
    x, threshold, y, metric, precision, unjudged, threads, dtype, device, progress
        As in :func:`pairs_above`.

    Returns
    -------
    (n,) int64. Each row with the same bits counts. -1 for a row of x that cannot be judged; rows of y that cannot be
    judged are not counted.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`.
    """
    limit = float32_of("threshold", threshold)
    join = join_of(x, y, metric, precision, unjudged, threads, dtype, device)
    distinct = join.left.distinct
    counted = (join.right or join.left).distinct
    weights = counted.sizes if counted.has_copies else None
    of_x, of_y = (weights, None) if join.right is None else (None, weights)
    counts, _ = join.kernels.count_above(*join.operands(limit=limit), limit, of_x, of_y, join.threads, progress)
    if join.right is None and distinct.has_copies:
        counts += (distinct.sizes - 1) * (join.left.self_similarities(metric) >= limit)
    return distinct.spread(counts, -1)


def most_similar_earlier(
    x: Any,
    order: NDArray[np.integer[Any]],
    floor: float,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> MostSimilarEarlier:
    """For every row the most similar row of higher priority: what SemDeDup needs, for every threshold at once.

    Dropping the rows whose ``similarities`` are at or above t removes each row that has a row of higher priority within
    t, for any t from ``floor`` upwards.

    Parameters
    ----------
    x, metric, precision, unjudged, threads, dtype, device, progress
        As in :func:`pairs_above`.
    order
        (n,) integers, a permutation of the rows: ``order[0]`` is the row of highest priority, which has no earlier one,
        ``order[-1]`` that of lowest. ``numpy.arange(n)`` prefers rows as they stand; ``numpy.argsort(-score,
        kind="stable")`` those of high score.
    floor
        Similarities below it are of no interest; rounded once to float32, and work is saved the higher it is.

    Returns
    -------
    MostSimilarEarlier
        Of equally similar rows that of highest priority. Rows with the same bits are rows like others. -1 and NaN where
        no row reaches the floor, and for rows that cannot be judged, which are no row's most similar one either.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`; also where ``order`` is not a permutation.

    References
    ----------
    Abbas, Tirumala, Simig, Ganguli, Morcos: SemDeDup: data-efficient learning at web-scale through semantic
    deduplication (2023), which asks this within k-means clusters.
    """
    limit = float32_of("floor", floor)
    join = join_of(x, None, metric, precision, unjudged, threads, dtype, device)
    distinct = join.left.distinct
    rank = ranks_of(order, distinct.n)
    if not distinct.has_copies:
        found = join.kernels.max_earlier(
            *join.operands(limit=limit), rank[distinct.rows], None, limit, join.threads, progress
        )
        ranks, best = distinct.spread(found[0], -1), distinct.spread(found[1], np.nan)
    else:
        ranks, best = _most_similar_earlier_of_copies(join, rank, limit, progress)
    row_of_rank = np.append(np.asarray(order, np.int64), -1)  # the last for rank -1, none
    return MostSimilarEarlier(row_of_rank[ranks], best, distinct.unjudged)


def nearest(
    x: Any,
    k: int,
    y: Any = None,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> Nearest:
    """The k nearest rows of y, or other rows of x, of every row of x.

    Parameters
    ----------
    x, y, metric, precision, unjudged, threads, dtype, device, progress
        As in :func:`pairs_above`.
    k
        Neighbours of each row, at least 1; may exceed the rows there are.

    Returns
    -------
    Nearest
        Without y a row is no neighbour of itself, but other rows with the same bits are. Ties go to the lower row
        number. -1 and NaN where there are fewer than k, and for rows of x that cannot be judged.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`.
    """
    wanted = operator.index(k)
    if wanted < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    join = join_of(x, y, metric, precision, unjudged, threads, dtype, device)
    queries, targets = join.left.distinct, (join.right or join.left).distinct
    most = min(wanted, len(targets.rows) - (join.right is None))
    if most > 0 and len(queries.rows):
        indices, near, _, _ = join.kernels.top_k(*join.operands(neighbors=most), most, False, join.threads, progress)
    else:
        indices, near = np.empty((len(queries.rows), 0), np.int64), np.empty((len(queries.rows), 0), np.float32)
    own = join.left.self_similarities(metric) if join.right is None and targets.has_copies else None
    return Nearest(
        *expand_nearest(indices, near, wanted, queries, targets, own),
        unjudged=queries.unjudged,
        unjudged_y=None if join.right is None else targets.unjudged,
    )


def log_sum_exp(
    x: Any,
    y: Any,
    scale: float,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> LogSumExp:
    """Log of the sum of exp(scale * similarity) over each row and each column of the matrix: contrastive denominators.

    Parameters
    ----------
    x, y, metric, precision, unjudged, threads, dtype, device, progress
        As in :func:`pairs_above`; y is needed.
    scale
        Finite; the inverse temperature, 100 in the published CLIP models.

    Returns
    -------
    LogSumExp
        Natural logarithms. The same bits for any number of threads on one instruction set, and within 1e-6 relative of
        each other on different ones: sums of exponentials are not canonical.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`.

    References
    ----------
    Wang, Chen, Yan, Shen, Xu, Gunes, Du, Joshi, Jaiswal: CLIPLoss and norm-based data selection methods for multimodal
    contrastive learning (2024), whose negCLIPLoss subtracts these from the score of a pair.
    """
    factor = float(scale)
    if not np.isfinite(factor):
        raise ValueError(f"scale: expected a finite number, got {scale}")
    if y is None:
        raise TypeError("y: expected an array, got None; pass x again to compare x with itself")
    join = join_of(x, y, metric, precision, unjudged, threads, dtype, device, collapse=False)
    a, b = join.operands()
    assert join.right is not None
    assert b is not None
    rows, cols = join.kernels.log_sum_exp(a, b, factor, join.threads, progress)
    left, right = join.left.distinct, join.right.distinct
    return LogSumExp(left.spread(rows, np.nan), right.spread(cols, np.nan), left.unjudged, right.unjudged)


def unjudged_rows(
    x: Any, metric: Metric = "cosine", *, threads: int | None = None, dtype: Literal["bfloat16"] | None = None
) -> Indices:
    """Rising numbers of the rows that take part in no pair: (u,) int64.

    Parameters
    ----------
    x, metric, threads, dtype
        As in :func:`pairs_above`. A row cannot be judged when its squared norm is NaN, infinite or overflows float32,
        nor, for cosine, when it is zero.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`.
    """
    array, element = matrix_of("x", x, dtype)
    require_option("metric", metric, Metric)
    return DistinctRows.unjudged_of(array, element, metric, thread_count_of(threads))


def _most_similar_earlier_of_copies(
    join: Join, rank: Indices, floor: float, progress: Progress
) -> tuple[Indices, Floats]:
    """(n,) rank of the most similar earlier row and its similarity, where some rows have the same bits.

    To a row of another group only the highest-ranked member of a group matters: the others are as similar and later. So
    the kernel sees each group once, under that rank, and answers for that member. To the other members of a group no
    row is more similar than its highest-ranked one, for cosine and l2, so that theirs is that one or an earlier row
    that is as similar. An inner product may be larger with a row that comes between: these members are asked for apart.
    """
    side, distinct = join.left, join.left.distinct
    first, later = first_and_later(distinct, rank)
    split = join.metric == "inner_product"

    def part(share: float, begin: float) -> Progress:
        return None if progress is None else lambda fraction: progress(begin + share * fraction)

    group_ranks, group_best, _, _ = join.kernels.max_earlier(
        *join.operands(limit=floor), first, None, floor, join.threads, part(0.5, 0) if split else progress
    )
    if not split:
        own = side.self_similarities(join.metric)
        return expand_earlier(group_ranks, group_best, first, later, floor, distinct, own)
    ranks, best = distinct.spread(group_ranks, -1), distinct.spread(group_best, np.nan)
    operands = join.operands_of((side, distinct.rows), (side, later))
    _, _, later_ranks, later_best = join.kernels.max_earlier(
        *operands, first, rank[later], floor, join.threads, part(0.5, 0.5)
    )
    ranks[later], best[later] = later_ranks, later_best
    return ranks, best
