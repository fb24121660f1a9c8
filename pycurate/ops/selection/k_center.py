"""k-centre: k rows such that no row is far from the nearest of them, by farthest-first traversal.

Gonzalez (1985): take any row, then again and again the row that is farthest from those taken. The largest distance that
remains is at most twice the least that any k rows can reach, as distances obey the triangle inequality: the angle for
cosine, the Euclidean distance for l2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import Rows, check_count
from pycurate.kernels.arrays import require_option
from pycurate.kernels.rowwise import pair_similarity
from pycurate.kernels.selection import Progress

CenterMetric: TypeAlias = Literal["cosine", "l2"]

__all__ = ["CenterMetric", "KCenter", "k_center"]

_SCANNED_ROWS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class KCenter:
    """The centres, and how near the others are.

    Attributes
    ----------
    rows
        (k,) int64 in the order taken: the first m of them are the choice for m.
    radii
        (k,) float64: after each, the largest distance of a row from its nearest centre: the angle in radians for
        cosine, the Euclidean distance for l2. Never rising.
    center
        (n,) int64: the nearest centre of each row, the first taken of equally near ones; -1 where it cannot be judged.
    similarities
        (n,) float32: canonical similarity to it; NaN where the row cannot be judged.
    unjudged
        Rows that are not finite, or zero for cosine: they are no centres and have none.
    """

    rows: NDArray[np.int64]
    radii: NDArray[np.float64]
    center: NDArray[np.int64]
    similarities: NDArray[np.float32]
    unjudged: NDArray[np.int64]

    @property
    def radius(self) -> float:
        """The largest distance of a row from its centre."""
        return float(self.radii[-1])

    @property
    def least_radius(self) -> float:
        """No k rows have a radius below this, beside the same ``selected``."""
        return self.radius / 2


def k_center(
    x: NDArray[Any] | Sequence[NDArray[Any]],
    k: int,
    *,
    metric: CenterMetric = "cosine",
    first: int | None = None,
    selected: NDArray[np.integer[Any]] | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    progress: Progress = None,
) -> KCenter:
    """k rows such that every row is near one of them.

    Parameters
    ----------
    x
        (n, d) float32, float16, bfloat16 or int8, or a sequence of such arrays, one after another; may be memory maps.
        They are read once for each centre, in blocks; what is held is about 40 bytes a row.
    k
        Centres beside those ``selected``; at most the rows that can be judged.
    metric
        ``"cosine"`` or ``"l2"``.
    first
        The first centre; by default the lowest row that can be judged.
    selected
        Rows that are centres already, in this order. The first centre is then the row farthest from them.
    threads
        Threads to use; every processor this process may run on by default. The result does not depend on it.
    dtype
        ``"bfloat16"`` to read rows of uint16 as bfloat16 bits.
    progress
        Called with the share of the centres taken.

    Returns
    -------
    KCenter

    Raises
    ------
    InputError
        k is larger than the rows left, or a row is out of range or cannot be judged; says which.
    TypeError, ValueError
        ``x`` is no such array.

    Notes
    -----
    Similarities are canonical: centres are the same bits for any threads, blocks and instruction set. Of equally far
    rows the lowest is taken. Every row is compared with every centre: the triangle inequality, which spares most of
    that in few dimensions, spares nothing among embeddings (0 of 10 million comparisons of 10,000 web captions with
    1,000 centres).

    References
    ----------
    Gonzalez: Clustering to minimize the maximum intercluster distance (1985). Sener, Savarese: Active learning for
    convolutional neural networks: a core-set approach (2018).
    """
    check_count("k", k)
    require_option("metric", metric, CenterMetric)
    parts = _parts_of(x, dtype)
    state = _State.of(parts, metric, threads)
    given = _selected_rows(selected, state)
    if k > state.judged_rows - len(given):
        raise InputError(
            f"k: expected at most the {state.judged_rows - len(given):,} of {state.n:,} rows that can be judged and "
            f"are no centre yet, got {k:,}; lower k"
        )
    for row in given.tolist():
        state.take(row)
    rows, radii = np.empty(k, np.int64), np.empty(k)
    for number in range(k):
        row = _first_row(first, state) if number == 0 and not len(given) else state.farthest()
        rows[number] = row
        state.take(row)
        radii[number] = state.radius()
        if progress is not None:
            progress((number + 1) / k)
    center = np.where(state.owner >= 0, np.asarray(state.centers, np.int64)[state.owner], -1)
    similarities = np.where(state.judged, state.best, np.float32(np.nan)).astype(np.float32)
    return KCenter(rows, radii, center, similarities, np.flatnonzero(~state.judged))


@dataclass(slots=True, eq=False)
class _State:
    """Every row's nearest centre so far."""

    parts: list[tuple[int, Rows]]  # the row each begins at
    metric: CenterMetric
    threads: int | None
    n: int
    judged: NDArray[np.bool_]
    best: NDArray[np.float32]  # similarity to the nearest centre; inf for rows that cannot be judged
    owner: NDArray[np.int32]  # which centre, by number
    centers: list[int]
    taken: NDArray[np.bool_]

    @classmethod
    def of(cls, parts: list[tuple[int, Rows]], metric: CenterMetric, threads: int | None) -> _State:
        n = parts[-1][0] + len(parts[-1][1])
        judged = np.concatenate([rows.judged(metric, threads) for _, rows in parts])
        best = np.where(judged, np.float32(-np.inf), np.float32(np.inf))
        return cls(parts, metric, threads, n, judged, best, np.full(n, -1, np.int32), [], ~judged)

    @property
    def judged_rows(self) -> int:
        return int(np.count_nonzero(self.judged))

    def take(self, row: int) -> None:
        """Make a row a centre."""
        start, rows = next((s, r) for s, r in reversed(self.parts) if s <= row)
        vector = rows.take(slice(row - start, row - start + 1)).values
        number = len(self.centers)
        self.centers.append(row)
        self.taken[row] = True
        for start, rows in self.parts:
            for first, block in rows.blocks():
                part = slice(start + first, start + first + len(block))
                centre = np.broadcast_to(vector, block.values.shape)
                found = pair_similarity(centre, block.values, self.metric, threads=self.threads, dtype=block.dtype)
                closer = found > self.best[part]  # NaN is not
                self.best[part][closer] = found[closer]
                self.owner[part][closer] = number

    def farthest(self) -> int:
        """The row that is least similar to its centre, no centre itself."""
        least, row = np.float32(np.inf), -1
        for first in range(0, self.n, _SCANNED_ROWS):
            part = slice(first, first + _SCANNED_ROWS)
            values = np.where(self.taken[part], np.float32(np.inf), self.best[part])
            place = int(np.argmin(values))
            if values[place] < least:
                least, row = values[place], first + place
        return row

    def radius(self) -> float:
        """The largest distance of a row from its centre."""
        least = float(self.best.min())
        return float(np.arccos(least)) if self.metric == "cosine" else float(np.sqrt(max(0.0, -least)))


def _parts_of(x: Any, dtype: str | None) -> list[tuple[int, Rows]]:
    given = list(x) if isinstance(x, list | tuple) else [x]
    if not given:
        raise InputError("x: expected at least one array, got none")
    parts: list[tuple[int, Rows]] = []
    start = 0
    for array in given:
        rows = Rows.of("x", array, dtype)
        if parts and (rows.dimension, rows.element) != (parts[0][1].dimension, parts[0][1].element):
            raise InputError(
                f"x: expected rows of {parts[0][1].dimension} {parts[0][1].element} elements as in the first array, "
                f"got {rows.dimension} {rows.element}"
            )
        parts.append((start, rows))
        start += len(rows)
    return parts


def _selected_rows(selected: Any, state: _State) -> NDArray[np.int64]:
    if selected is None:
        return np.empty(0, np.int64)
    rows = np.asarray(selected)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise InputError(f"selected: expected row numbers, got {rows.ndim}-D {rows.dtype}")
    for row in rows.tolist():
        _check_row("selected", row, state)
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"selected: expected every row once, but {len(rows) - len(np.unique(rows))} are repeated")
    return rows.astype(np.int64)


def _first_row(first: int | None, state: _State) -> int:
    if first is None:
        return int(np.argmax(state.judged))
    _check_row("first", first, state)
    return first


def _check_row(name: str, row: int, state: _State) -> None:
    if not 0 <= row < state.n:
        raise InputError(f"{name}: expected a row from 0 to {state.n - 1}, got {row}")
    if not state.judged[row]:
        raise InputError(f"{name}: row {row} cannot be judged: it is not finite, or zero for cosine; name another")
