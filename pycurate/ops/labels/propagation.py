"""Few labels over many rows: label propagation on a graph of neighbours, in memory.

Zhou, Bousquet, Lal, Weston, Schölkopf: Learning with local and global consistency (2003). Zhu, Ghahramani, Lafferty:
Semi-supervised learning using Gaussian fields and harmonic functions (2003). Iscen, Tolias, Avrithis, Chum: Label
propagation for deep semi-supervised learning (2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, MemoryCapError
from pycurate.index.graph import KnnGraph
from pycurate.kernels.graph import LABELLED
from pycurate.kernels.sweeps import Gpu
from pycurate.ops.labels.propagation_matrix import propagation_matrix
from pycurate.ops.labels.propagation_result import Propagation, finished_rows
from pycurate.ops.labels.propagation_seeds import LabelSeeds, seeds_of
from pycurate.ops.labels.propagation_settings import PropagationSettings
from pycurate.ops.labels.propagation_solvers import MemoryStates, Problem, Solved, Told, conjugate_gradients, run_sweeps

_MIB = 1 << 20


def checked_seeds(
    labels: Any, n: int, classes: int | None, multi_label: bool, settings: PropagationSettings
) -> LabelSeeds:
    """``labels`` that go with the settings."""
    seeds = seeds_of(labels, n, classes, multi_label)
    if multi_label and (settings.top is not None or settings.balance != "none"):
        raise InputError("multi_label: classes are independent; pass top=None and balance='none'")
    if settings.balance == "seeds" and len(seeds.unseeded):
        raise InputError(
            f"balance: 'seeds' divides by the seeds of each class, and class {seeds.unseeded[0]} has none; leave it "
            "out of the numbering or pass balance='none'"
        )
    return seeds


def propagate(
    graph: KnnGraph,
    seeds: LabelSeeds,
    settings: PropagationSettings,
    *,
    prior: NDArray[np.float64] | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    gpu: Gpu = None,
    progress: Told = None,
) -> Propagation:
    """Labels of all rows of a graph; see `pycurate.propagate_labels`, whose arguments were checked."""
    problem = Problem.of(settings, seeds)
    needed = memory_needed(graph, problem)
    if memory_bytes is not None and needed > memory_bytes:
        raise MemoryCapError(
            f"memory_bytes: {-(-needed // _MIB):,} MiB are needed, {memory_bytes // _MIB:,} allowed; give more, keep "
            "only the largest values of each row (top=4), or give a folder to work in (out=)"
        )
    solved = solve(graph, problem, threads=threads, gpu=gpu, progress=progress)
    return _handed_out(problem, solved, prior)


def solve(
    graph: KnnGraph,
    problem: Problem,
    *,
    limit: float | None = None,
    threads: int | None = None,
    gpu: Gpu = None,
    progress: Told = None,
) -> Solved:
    """The last state, before it is normalised; ``limit`` is the change that ends the sweeps, not relative; ``gpu`` is
    where they run."""
    matrix = propagation_matrix(graph, problem.settings, threads)
    if problem.settings.solver == "cg" and problem.settings.method != "vote":
        return conjugate_gradients(problem, matrix, threads, progress, gpu)
    states = MemoryStates(problem, matrix.rows, threads, gpu)
    converged = run_sweeps(problem, states, problem.limit if limit is None else limit, progress)
    return Solved(states.state, states.changes, converged, matrix.loops)


def memory_needed(graph: KnnGraph, problem: Problem) -> int:
    """Upper estimate of the bytes that propagation in memory takes beside the graph."""
    settings, n = problem.settings, len(graph)
    edges = graph.edges * (2 if settings.symmetrize else 1)
    edge_bytes = graph.indices.itemsize + 4
    # given with weights, both directions before and after they are added, scaled values
    matrix = edge_bytes * (graph.edges + edges) + edges * (edge_bytes + (8 if settings.dtype == "float64" else 4))
    states = (
        n * problem.row_bytes * (5 if settings.solver == "cg" else 3)
    )  # 4 of conjugate gradients or 2, and what is handed out
    return int(matrix + states + 64 * n + (128 << 20))


def _handed_out(problem: Problem, solved: Solved, prior: NDArray[np.float64] | None) -> Propagation:
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
        solved.loops,
    )


def relative(problem: Problem, changes: list[float]) -> NDArray[np.float64]:
    """Changes relative to what is added; 0 for a vote, which is no equation."""
    if problem.settings.method == "vote":
        return np.zeros(len(changes))
    return np.array(changes) / problem.size
