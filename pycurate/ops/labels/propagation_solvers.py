"""Sweeps until the change is small: power and Chebyshev over any store of states, conjugate gradients in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.graph import (
    LABELLED,
    NO_LABEL,
    WIDTH_STEP,
    SeedRows,
    SparseRows,
    sweep_dense,
)
from pycurate.kernels.sweeps import Gpu, Sweeps, device_bytes, require_gpu_bytes, sweeps_of
from pycurate.ops.labels.propagation_matrix import PropagationMatrix, root_scale
from pycurate.ops.labels.propagation_seeds import LabelSeeds
from pycurate.ops.labels.propagation_settings import PropagationSettings

_FLOOR = 1e-14
"""Squared residuals relative to their first, of about 1.7 roundings of float32, below which steps are noise."""

Told: TypeAlias = Callable[[int, float], None] | None


class StateStore(Protocol):
    """Where the states of successive sweeps are."""

    @property
    def changes(self) -> list[float]:
        """The change of each sweep that is done; those of an earlier run come first."""
        ...

    def sweep(self, alpha: float, omega: float | None) -> None:
        """Make the next state of the last, and of the one before where ``omega`` is given; note the change."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One equation F = alpha S F + B, or one vote."""

    settings: PropagationSettings
    seeds: LabelSeeds
    added: SeedRows  # B
    size: float  # the sum of what is added, to which changes are compared

    @classmethod
    def of(cls, settings: PropagationSettings, seeds: LabelSeeds) -> Problem:
        """B is (1 - alpha) Y for ``spread``, and Y otherwise."""
        factor = 1 - settings.alpha if settings.method == "spread" else 1.0
        added = seeds.rows(
            factor,
            per_class=settings.balance == "seeds",
            dtype=settings.dtype,
            clamp=settings.method == "harmonic",
        )
        return cls(settings, seeds, added, float(np.sum(added.values, dtype=np.float64)))

    @property
    def alpha(self) -> float:
        """What neighbours are multiplied by."""
        return self.settings.alpha if self.settings.method == "spread" else 1.0

    @property
    def width(self) -> int:
        """Columns of a dense state."""
        return -(-self.seeds.columns // WIDTH_STEP) * WIDTH_STEP

    @property
    def limit(self) -> float:
        """The change that ends the sweeps."""
        return self.settings.tol * self.size

    def start(self, first: int, last: int) -> NDArray[Any]:
        """Some rows of the state before the first sweep: the seeds, Y."""
        seeds = self.seeds.rows(
            1.0, per_class=self.settings.balance == "seeds", dtype=self.settings.dtype, clamp=False
        ).part(first, last)
        row = np.repeat(np.arange(last - first), np.diff(seeds.indptr).astype(np.int64))
        if self.settings.top is None:
            state = np.zeros((last - first, self.width), self.settings.dtype)
            state[row, seeds.labels] = seeds.values
            return state
        kept = np.zeros((last - first, self.settings.top), LABELLED)
        kept["label"] = NO_LABEL
        order = np.lexsort((seeds.labels, -seeds.values, row))
        row, labels, values = row[order], seeds.labels[order], seeds.values[order]
        place = np.arange(len(row)) - (seeds.indptr[row] - seeds.indptr[0]).astype(np.int64)
        fits = place < self.settings.top
        kept["label"][row[fits], place[fits]] = labels[fits]
        kept["value"][row[fits], place[fits]] = values[fits]
        return kept

    def sweep(self, on: Sweeps, state: Any, out: Any, omega: float | None, previous: Any = None) -> NDArray[np.float64]:
        """One sweep of some rows; the change of each block of them."""
        if self.settings.top is not None:
            return on.sweep_top(state, out, alpha=self.alpha)
        if omega is None:
            return on.sweep_dense(state, out, alpha=self.alpha)
        return on.sweep_dense(state, out, alpha=self.alpha, omega=omega, previous=previous)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a state."""
        if self.settings.top is not None:
            return LABELLED.itemsize * self.settings.top
        return self.width * np.dtype(self.settings.dtype).itemsize

    @property
    def labels(self) -> int:
        """Labels of what is added are less than this."""
        return self.seeds.columns if self.settings.top is not None else self.width


class MemoryStates:
    """Two states in memory, of the CPU or of a GPU; the next is written over the one before the last."""

    def __init__(self, problem: Problem, matrix: SparseRows, threads: int | None, gpu: Gpu = None) -> None:
        self.changes: list[float] = []
        self._problem = problem
        seeds = None if problem.settings.method == "vote" else problem.added
        if gpu is not None:
            _require_room(problem, matrix, seeds, gpu, states=2)
        self._on: Sweeps = sweeps_of(matrix, seeds, labels=problem.labels, gpu=gpu, threads=threads)
        start = problem.start(0, len(matrix))
        self._state, self._other = self._on.values(start), self._on.room(np.empty_like(start))

    @property
    def state(self) -> NDArray[Any]:
        """The last, in the CPU's memory."""
        return self._on.read(self._state)

    def sweep(self, alpha: float, omega: float | None) -> None:
        """See `StateStore`."""
        changes = self._problem.sweep(self._on, self._state, self._other, omega, self._other)
        self._state, self._other = self._other, self._state
        self.changes.append(math.fsum(changes))


def _require_room(problem: Problem, matrix: SparseRows, seeds: SeedRows | None, gpu: int, states: int) -> None:
    require_gpu_bytes(
        gpu,
        device_bytes(matrix, seeds) + states * len(matrix) * problem.row_bytes * 65 // 64,  # and sums of heavy rows
        "keep only the largest values of each row (top=4), give a folder to work in (out=), from which the graph goes "
        "to the GPU by blocks, or pass device='cpu'",
    )


def run_sweeps(problem: Problem, states: StateStore, limit: float, told: Told = None) -> bool:
    """Sweep until the change is at most ``limit``; whether it got there.

    Sweep t of Chebyshev's semi-iteration is F_t+1 = omega_t (alpha S F_t + B - F_t-1) + F_t-1 (Golub and Varga, 1961),
    with omega_0 = 1, omega_1 = 1 / (1 - alpha^2 / 2) and omega_t = 1 / (1 - alpha^2 omega_t-1 / 4).
    """
    settings = problem.settings
    if settings.method == "vote":
        if not states.changes:
            states.sweep(1.0, None)
        return True
    omega = 1.0
    for number in range(settings.sweeps):
        if number == 1:
            omega = 1 / (1 - problem.alpha**2 / 2)
        elif number > 1:
            omega = 1 / (1 - problem.alpha**2 * omega / 4)
        if number >= len(states.changes):
            states.sweep(problem.alpha, omega if settings.solver == "chebyshev" and number else None)
        if told is not None:
            told(number + 1, states.changes[number])
        if states.changes[number] <= limit:
            return True
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A state that sweeps have ended at."""

    state: NDArray[Any]
    changes: list[float]
    converged: bool
    loops: int


def conjugate_gradients(
    problem: Problem,
    matrix: PropagationMatrix,
    threads: int | None = None,
    told: Told = None,
    gpu: Gpu = None,
) -> Solved:
    """F of every class at once, each with its own steps; a class rests where float32 can't bring it further.

    For ``harmonic`` the unknown rows solve (1 - S_uu) G = S_us G_s with G = D^1/2 F, which is symmetric.
    """
    settings, n = problem.settings, len(matrix.rows)
    clamped = problem.added.clamped
    right = np.zeros((n, problem.width), np.float32)
    state = problem.start(0, n)
    if clamped is not None:
        state *= (1 / root_scale(matrix.degrees))[:, None].astype(np.float32)
        sweep_dense(matrix.rows, None, state, right, alpha=1.0, threads=threads)
        right[clamped.astype(np.bool_)] = 0
    else:
        row = np.repeat(np.arange(n), np.diff(problem.added.indptr).astype(np.int64))
        right[row, problem.added.labels] = problem.added.values
    if gpu is not None:
        _require_room(problem, matrix.rows, problem.added, gpu, states=4)
    on: Sweeps = sweeps_of(matrix.rows, problem.added, labels=problem.labels, gpu=gpu, threads=threads)
    found, direction, product = on.values(np.zeros_like(right)), on.values(right.copy()), on.room(state)
    residual = on.values(right)
    none = np.zeros(problem.width, np.float32)
    squares, sizes = on.cg_step(found, residual, direction, direction, none)
    first, whole = squares, math.fsum(sizes)
    limit, unit = settings.tol * whole, problem.size / whole if whole else 0.0
    changes: list[float] = []
    converged = whole <= limit
    while not converged and len(changes) < settings.sweeps:
        dots = on.cg_product(direction, product, problem.alpha)
        going = (squares > _FLOOR * first) & (dots > 0)
        step = np.where(going, squares / np.where(going, dots, 1), 0).astype(np.float32)
        last = squares
        squares, sizes = on.cg_step(found, residual, direction, product, step)
        size = math.fsum(sizes)
        changes.append(size * unit)
        if told is not None:
            told(len(changes), changes[-1])
        converged = size <= limit
        ratio = np.where(going, squares / np.where(going, last, 1), 0).astype(np.float32)
        on.cg_turn(residual, ratio, direction)
    x = on.read(found)
    if clamped is not None:
        x *= root_scale(matrix.degrees)[:, None].astype(np.float32)
        known = np.flatnonzero(clamped)
        x[known] = problem.start(0, n)[known]
    return Solved(x, changes, converged, matrix.loops)
