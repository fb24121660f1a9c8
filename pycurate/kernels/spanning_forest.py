"""The heaviest spanning forest of all pairs of rows above a floor: the components of every threshold at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pycurate import _core
from pycurate.kernels.arrays import float32_of
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.join import Precision, Unjudged, join_of
from pycurate.kernels.rowwise import Metric

__all__ = ["SpanningForest", "heaviest_forest", "spanning_forest_above"]


@dataclass(frozen=True, slots=True, eq=False)
class SpanningForest:
    """Edges between distinct rows, fewer than there are rows, most similar first, ties to the lower (row, col).

    At any threshold from the floor upwards the edges at or above it link, directly or through others, the rows that the
    pairs at or above it link.
    """

    rows: Indices  # (e,) rows of x, row < col
    cols: Indices  # (e,)
    similarities: Floats  # (e,) falling
    copy_of: Indices  # (n,) the first row with the same bits, -1 where the row itself is the first
    unjudged: Indices  # (u,) rising rows that cannot be judged


def spanning_forest_above(
    x: Any,
    floor: float,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
    unjudged: Unjudged = "skip",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Callable[[float], object] | None = None,
) -> SpanningForest:
    """What :func:`components_above` finds, for every threshold from a floor upwards, in one join.

    Holds no pairs: memory is that of the rows, a clump of a million near-copies included.

    Parameters
    ----------
    x, metric, precision, unjudged, threads, dtype, device, progress
        As in :func:`pairs_above`.
    floor
        Pairs below it are of no interest; rounded once to float32.

    Returns
    -------
    SpanningForest
        Of equally similar pairs the one of lower (row, col) is the heavier, so that the forest is the only one.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pairs_above`.
    """
    limit = float32_of("floor", floor)
    join = join_of(x, None, metric, precision, unjudged, threads, dtype, device)
    rows, cols, similarities = join.kernels.spanning_forest_above(
        *join.operands(limit=limit), limit, join.threads, progress
    )
    return SpanningForest(rows, cols, similarities, join.left.distinct.copy_of, join.left.distinct.unjudged)


def heaviest_forest(n: int, rows: Indices, cols: Indices, similarities: Floats) -> tuple[Indices, Indices, Floats]:
    """Those of the edges (row < col, numbers below n) that belong to their heaviest spanning forest, heaviest first."""
    return _core.fused_similarity.heaviest_forest(n, rows, cols, similarities)
