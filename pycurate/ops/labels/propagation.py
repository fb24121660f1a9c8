"""Few labels over many rows: label propagation on a graph of neighbours.

Zhou, Bousquet, Lal, Weston, Schölkopf: Learning with local and global consistency (2003). Zhu, Ghahramani, Lafferty:
Semi-supervised learning using Gaussian fields and harmonic functions (2003). Iscen, Tolias, Avrithis, Chum: Label
propagation for deep semi-supervised learning (2019).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, MemoryCapError
from pycurate.index.graph import KnnGraph
from pycurate.kernels.graph import LABELLED
from pycurate.ops.labels.propagation_matrix import graph_of, propagation_matrix
from pycurate.ops.labels.propagation_result import Propagation, finished_rows
from pycurate.ops.labels.propagation_seeds import LabelSeeds, seeds_of
from pycurate.ops.labels.propagation_settings import (
    Balance,
    Method,
    PropagationSettings,
    Solver,
    Weight,
    settings_of,
)
from pycurate.ops.labels.propagation_solvers import MemoryStates, Problem, Solved, Told, conjugate_gradients, run_sweeps

_MIB = 1 << 20


def propagate_labels(
    graph: Any,
    labels: Any,
    *,
    preset: Literal["zhou", "iscen", "sklearn"] | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    alpha: float | None = None,
    top: int | None = None,
    classes: int | None = None,
    weight: Weight | None = None,
    symmetrize: bool | None = None,
    balance: Balance | None = None,
    prior: Any = None,
    multi_label: bool = False,
    sweeps: int | None = None,
    tol: float | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    progress: Told = None,
) -> Propagation:
    """Labels of all rows from those of some, along a graph of neighbours, in memory.

    Parameters
    ----------
    graph
        A `KnnGraph` of n rows, as `pycurate.knn_graph` makes it; a square CSR array of SciPy; or (n, k) row numbers, -1
        for none, and as many similarities. Edges from a row to itself are left out and counted.
    labels
        (n,) integers, a class from 0 on or -1 for a row without a label. Or (n, C) floats, rows that sum to 1 within
        1e-3, or to 0 where nothing is known: soft labels. With ``multi_label``, (n, C) values from 0 to 1, each class for
        itself, and -1 in every column of a row of which nothing is known.
    preset
        Published settings: ``"zhou"`` (alpha 0.99), ``"iscen"`` (W = s^3, alpha 0.99, 20 steps of conjugate gradients,
        seeds weighed by class), ``"sklearn"`` (binary directed weights, alpha 0.2, 30 sweeps). The next arguments, where
        they are given, replace its own.
    method, solver, alpha, top, weight, symmetrize, balance, sweeps, tol, dtype
        See `PropagationSettings`, where the defaults are: ``spread`` by ``chebyshev`` with alpha 0.9, s^1, until a
        relative residual of 1e-3. A solver that is not given is one that goes with the rest.
    classes
        C, where some classes have no seed. Default: the largest label and 1.
    prior
        (C,) shares of the classes for ``balance="mass"``. Default: those of the seeds.
    memory_bytes
        Refuse work that takes more, by an estimate that is an upper one. Default: no cap.
    threads
        Default: every processor this process may run on. The result does not depend on it.
    progress
        Called after every sweep with its number and its change.

    Returns
    -------
    Propagation
        Rows that no label reaches have label -1 and confidence 0. Labels and distributions are the same bits for every
        number of threads and instruction set.

    Raises
    ------
    InputError
        An argument is not as above; says which, what was expected and what came.
    MemoryCapError
        It does not fit ``memory_bytes``.
    KeyboardInterrupt
        Ctrl-C.
    """
    settings = settings_of(
        preset,
        {
            "method": method,
            "solver": solver,
            "alpha": alpha,
            "top": top,
            "weight": weight,
            "symmetrize": symmetrize,
            "balance": balance,
            "sweeps": sweeps,
            "tol": tol,
            "dtype": dtype,
        },
    )
    rows = graph_of(graph)
    seeds = checked_seeds(labels, len(rows), classes, multi_label, settings)
    return propagate(rows, seeds, settings, prior=prior, memory_bytes=memory_bytes, threads=threads, progress=progress)


def checked_seeds(
    labels: Any, n: int, classes: int | None, multi_label: bool, settings: PropagationSettings
) -> LabelSeeds:
    """``labels`` that go with the settings."""
    seeds = seeds_of(labels, n, classes, multi_label)
    if multi_label and (settings.top is not None or settings.balance != "none"):
        raise InputError("multi_label: classes are independent; pass top=None and balance='none'")
    if settings.balance == "seeds" and len(seeds.unseeded):
        raise InputError(
            f"balance: 'seeds' divides by the seeds of each class, and class {seeds.unseeded[0]} has none; leave it out "
            "of the numbering or pass balance='none'"
        )
    return seeds


def propagate(
    graph: KnnGraph,
    seeds: LabelSeeds,
    settings: PropagationSettings,
    *,
    prior: Any = None,
    limit: float | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    progress: Told = None,
) -> Propagation:
    """`propagate_labels` of checked settings and seeds; ``limit`` is the change that ends the sweeps, not relative."""
    problem = Problem.of(settings, seeds)
    needed = memory_needed(graph, problem)
    if memory_bytes is not None and needed > memory_bytes:
        raise MemoryCapError(
            f"memory_bytes: {-(-needed // _MIB):,} MiB are needed, {memory_bytes // _MIB:,} allowed; give more, keep only "
            "the largest values of each row (top=4), or give a folder to work in (out=)"
        )
    matrix = propagation_matrix(graph, settings, threads)
    if settings.solver == "cg" and settings.method != "vote":
        solved = conjugate_gradients(problem, matrix, threads, progress)
    else:
        states = MemoryStates(problem, matrix.rows, threads)
        converged = run_sweeps(problem, states, problem.limit if limit is None else limit, progress)
        solved = Solved(states.state, states.changes, converged)
    return _handed_out(problem, solved, matrix.loops, prior)


def memory_needed(graph: KnnGraph, problem: Problem) -> int:
    """Upper estimate of the bytes that propagation in memory takes beside the graph."""
    settings, n = problem.settings, len(graph)
    edges = graph.edges * (2 if settings.symmetrize else 1)
    edge_bytes = graph.indices.itemsize + 4
    # given with weights, both directions before and after they are added, scaled values
    matrix = edge_bytes * (graph.edges + edges) + edges * (edge_bytes + (8 if settings.dtype == "float64" else 4))
    row = 8 * settings.top if settings.top is not None else problem.width * np.dtype(settings.dtype).itemsize
    states = n * row * (5 if settings.solver == "cg" else 3)  # 4 of conjugate gradients or 2, and what is handed out
    return int(matrix + states + 64 * n + (128 << 20))


def _handed_out(problem: Problem, solved: Solved, loops: int, prior: Any) -> Propagation:
    settings, seeds, n = problem.settings, problem.seeds, len(solved.state)
    labels, confidence, margin, mass = (
        np.empty(n, np.int64),
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.float32),
    )
    shares: NDArray[Any] = (
        np.empty((n, seeds.classes), settings.dtype) if settings.top is None else np.empty((n, settings.top), LABELLED)
    )
    for rows, part in finished_rows(solved.state, seeds, settings, prior):
        labels[rows], confidence[rows], margin[rows] = part.labels, part.confidence, part.margin
        mass[rows], shares[rows] = part.mass, part.shares
    return Propagation(
        labels,
        confidence,
        margin,
        mass,
        shares if settings.top is None else None,
        shares if settings.top is not None else None,
        seeds.classes,
        relative(problem, solved.changes),
        solved.converged,
        seeds.unseeded,
        loops,
    )


def relative(problem: Problem, changes: list[float]) -> NDArray[np.float64]:
    """Changes relative to what is added; 0 for a vote, which is no equation."""
    if problem.settings.method == "vote":
        return np.zeros(len(changes))
    return np.array(changes) / problem.size
