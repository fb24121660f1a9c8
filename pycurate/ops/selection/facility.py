"""Facility location: the k rows that represent all rows best.

For a set S of candidates, f(S) = sum over rows i of weight[i] * max over j in S of similarity[i, j]. f is monotone and
submodular, so that picking the candidate of largest gain k times reaches at least 1 - 1/e of the largest value that k
candidates can have (Nemhauser, Wolsey and Fisher 1978). Gains only shrink, so that one computed earlier is a bound, and
most need not be computed anew (lazy greedy: Minoux 1978). A partitioned pool lets each part propose candidates, among
which the same algorithm then picks (GreeDi: Mirzasoleiman et al. 2013).

Similarities are float32, gains float64 sums in one fixed order of terms that never rise, so that a bound holds to the
last bit and picks are the same for any number of threads, instruction set and cut into blocks. A graph takes 8 bytes an
edge in memory beside it, a matrix up to a quarter of its own size.

Nemhauser, Wolsey, Fisher: An analysis of approximations for maximizing submodular set functions (1978). Minoux:
Accelerated greedy algorithms for maximizing submodular set functions (1978). Cornuejols, Fisher, Nemhauser: Location of
bank accounts to optimize float (1977), for the dual. Leskovec et al.: Cost-effective outbreak detection in networks
(2007), for the bound. Mirzasoleiman et al.: Distributed submodular maximization (2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import knn_graph
from pycurate.index.rows import check_count
from pycurate.kernels.arrays import require_option, thread_count_of
from pycurate.kernels.selection import NOBODY, Candidates, DenseCandidates, Progress, RowState
from pycurate.ops.selection.graph_candidates import GraphCandidates, Negative

FacilityMetric: TypeAlias = Literal["cosine", "inner_product", "precomputed"]
Rows: TypeAlias = NDArray[np.int64]

__all__ = ["FacilityLocation", "FacilityMetric", "facility_location"]


@dataclass(frozen=True, slots=True, eq=False)
class FacilityLocation:
    """The chosen rows, and how well they represent all.

    Attributes
    ----------
    rows
        (k,) int64 in the order picked: the first m of them are the choice for m.
    gains
        (k,) float64: what each added when it was picked.
    objective
        f of the rows chosen and of those already ``selected``.
    upper_bound
        No k candidates beside ``selected`` have a larger f, up to the rounding of float64 sums.
    representative
        (n,) int64: the chosen or selected row most similar to each row, the first picked of equal ones; -1 where none
        has a similarity above 0.
    similarities
        (n,) float32: to it; 0 where none.
    proposed
        Candidates that the last greedy run picked from: all, or with a partition what its parts proposed.
    evaluations
        Gains that it computed anew; plain greedy computes k of each.
    unjudged
        Rows that cannot be judged: neither chosen nor counted.
    """

    rows: Rows
    gains: NDArray[np.float64]
    objective: float
    upper_bound: float
    representative: Rows
    similarities: NDArray[np.float32]
    proposed: int
    evaluations: int
    unjudged: Rows

    @property
    def ratio(self) -> float:
        """What is certified: objective / upper_bound, a share of the largest value there can be."""
        return 1.0 if self.upper_bound == 0 else self.objective / self.upper_bound

    @property
    def sizes(self) -> Rows:
        """(k,) how many rows each chosen row represents: weights of the subset."""
        found = np.bincount(self.representative[self.representative >= 0], minlength=len(self.representative))
        return found[self.rows].astype(np.int64)


def facility_location(
    graph_or_rows: KnnGraph | NDArray[Any],
    k: int,
    *,
    neighbors: int = 16,
    metric: FacilityMetric = "cosine",
    weights: NDArray[Any] | None = None,
    candidates: NDArray[Any] | None = None,
    selected: NDArray[np.integer[Any]] | None = None,
    self_similarity: float | NDArray[Any] | None = None,
    negative: Negative = "error",
    partition: NDArray[np.integer[Any]] | None = None,
    oversample: float = 2.0,
    bound_steps: int = 1,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> FacilityLocation:
    """The k rows that represent all rows best, by the greedy algorithm; ties to the lower row.

    Parameters
    ----------
    graph_or_rows
        A graph, best symmetrised: row i may be represented by each of its neighbours and itself. Or rows (n, d) as
        `pycurate.knn_graph` takes them, of which the exact graph is made, symmetrised. Or for ``"precomputed"`` a
        matrix (c, n) float32 in C order: similarities of candidate j, which is row j, with every row.
    k
        Rows to choose beside those ``selected``; at most the candidates there are.
    neighbors
        Of the graph that is made from rows.
    metric
        ``"cosine"`` or ``"inner_product"`` of rows, or ``"precomputed"``. A graph has its own.
    weights
        (n,) finite numbers of at least 0: how much a row counts. By default 1.
    candidates
        Rows that may be chosen: row numbers, or (n,) bool. By default all that can be judged.
    selected
        Rows that are chosen already. They represent others and are not chosen again.
    self_similarity
        Of a row with itself: a number of at least 0 or (n,) of them. By default 1 for cosine; other graphs need it.
        Loops of a graph are ignored. A matrix has its own.
    negative
        ``"error"``: a negative similarity is refused. ``"zero"``: it counts as 0.
    partition
        (n,) a part for each row of a graph, such as its cluster or its list of an index. Each part proposes rows for
        its own rows; the k rows are then picked for all rows among those proposed. Holds the edges of one part, and
        then those towards proposed rows, instead of all.
    oversample
        A part of m of the n rows proposes ``ceil(oversample * k * m / n)`` rows; infinite: k, if it has so many.
    bound_steps
        How ``upper_bound`` is found. 0: from what the picks left, the loosest. 1: from the gains of all candidates in
        the end. More: subgradient steps towards the Lagrangian dual, each one pass over the similarities.
    threads
        Threads to use; by default every processor this process may run on. The result does not depend on it.
    dtype
        ``"bfloat16"`` to read rows of uint16 as bfloat16 bits.
    device
        Where the graph of rows is made, as in `pycurate.knn_graph`; rows are picked on the CPU.
    progress
        Called with the share of the rows picked.

    Raises
    ------
    InputError
        k is larger than the candidates that are left, or a number is negative, NaN or out of range; says which.
    TypeError, KeyboardInterrupt
        ``graph_or_rows`` is of another kind; Ctrl-C, within a second.
    """
    _check_numbers(k, oversample, bound_steps)
    require_option("metric", metric, FacilityMetric)
    require_option("negative", negative, Negative)
    how = _How(oversample, bound_steps, thread_count_of(threads), progress)
    if metric == "precomputed":
        matrix = _matrix_of(graph_or_rows, partition, self_similarity)
        problem = _Problem.of(matrix.shape[1], matrix.shape[0], k, weights, candidates, selected, np.empty(0, np.int64))
        return _on_matrix(DenseCandidates(matrix, negative == "zero"), problem, how)
    graph = _graph_of(graph_or_rows, neighbors, metric, threads, dtype, device)
    problem = _Problem.of(len(graph), len(graph), k, weights, candidates, selected, graph.unjudged)
    edges = GraphCandidates(graph, problem.candidates, _self_similarities(graph, self_similarity), negative)
    return _on_graph(edges, problem, how) if partition is None else _on_parts(edges, problem, partition, how)


@dataclass(frozen=True, slots=True)
class _How:
    oversample: float
    steps: int
    threads: int
    progress: Progress


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    n: int
    k: int
    weights: NDArray[np.float64] | None
    candidates: Rows  # rising, without those selected
    selected: Rows
    unjudged: Rows

    @classmethod
    def of(
        cls, n: int, most: int, k: int, weights: Any, candidates: Any, selected: Any, unjudged: Rows
    ) -> _Problem:  # fmt: skip
        chosen = np.empty(0, np.int64) if selected is None else _row_numbers("selected", selected, most)
        left = np.zeros(most, np.bool_)
        left[slice(None) if candidates is None else _row_numbers("candidates", candidates, most)] = True
        left[unjudged] = False
        left[chosen] = False
        rows = np.flatnonzero(left)
        if k > len(rows):
            raise InputError(
                f"k: expected at most the {len(rows):,} candidates that are left of {n:,} rows, got {k:,}; lower k or "
                "allow more candidates"
            )
        return cls(n, k, _weights_of(weights, n), rows, chosen, unjudged)

    def result(
        self, state: RowState, picked: Rows, gains: NDArray[np.float64], bound: float, proposed: int, evaluations: int
    ) -> FacilityLocation:
        representative = np.where(state.representative == NOBODY, -1, state.representative.astype(np.int64))
        objective = state.objective
        return FacilityLocation(
            picked, gains, objective, max(bound, objective), representative, state.covered, proposed, evaluations,
            self.unjudged,
        )  # fmt: skip


def _on_matrix(dense: DenseCandidates, problem: _Problem, how: _How) -> FacilityLocation:
    state = RowState.uncovered(problem.n, problem.weights)
    allowed = np.zeros(dense.count, np.bool_)
    allowed[problem.candidates] = True
    dense.cover(problem.selected.astype(np.uint32), state)
    before, begun = state.covered.copy(), state.objective
    gains = dense.gains(state, allowed, how.threads)
    found = dense.greedy(state, gains, problem.k, None, how.progress)

    def at(prices: RowState) -> NDArray[np.float64]:
        return dense.gains(prices, allowed, how.threads)

    bound = _upper_bound(gains, at, dense.count_better, before, state, problem.k, how.steps)
    bound = min(bound, guaranteed_bound(begun, state.objective, problem.k))
    picked = found.candidates.astype(np.int64)
    return problem.result(state, picked, found.gains, bound, len(problem.candidates), found.evaluations)


def _on_graph(edges: GraphCandidates, problem: _Problem, how: _How) -> FacilityLocation:
    state = _started(edges, problem)
    before, begun = state.covered.copy(), state.objective
    names = problem.candidates.astype(np.uint32)
    sparse = edges.sparse(problem.candidates)
    gains = sparse.gains(state, None, how.threads)
    found = sparse.greedy(state, gains, problem.k, names, how.progress)

    def at(prices: RowState) -> NDArray[np.float64]:
        return sparse.gains(prices, None, how.threads)

    bound = _upper_bound(gains, at, sparse.count_better, before, state, problem.k, how.steps)
    bound = min(bound, guaranteed_bound(begun, state.objective, problem.k))
    picked = problem.candidates[found.candidates]
    return problem.result(state, picked, found.gains, bound, len(names), found.evaluations)


def _on_parts(edges: GraphCandidates, problem: _Problem, partition: Any, how: _How) -> FacilityLocation:
    labels = _labels_of(partition, problem.n)
    state = _started(edges, problem)
    before = state.covered.copy()
    proposed = _proposals(edges, problem, labels, state, how.oversample, how.threads)
    if len(proposed) < problem.k:
        raise InputError(
            f"oversample: expected so much that the parts propose at least k = {problem.k:,} rows, got "
            f"{how.oversample:g}, for which they propose {len(proposed):,}; raise it, or allow more candidates"
        )
    sparse: Candidates = edges.sparse(proposed)
    found = sparse.greedy(
        state, sparse.gains(state, None, how.threads), problem.k, proposed.astype(np.uint32), how.progress
    )
    picked = proposed[found.candidates]
    del sparse

    def better(chosen: NDArray[np.uint32], covered: NDArray[np.float32]) -> NDArray[np.int32]:
        rising = np.sort(problem.candidates[chosen])
        return edges.sparse(rising).count_better(np.arange(len(rising), dtype=np.uint32), covered)

    bound = _upper_bound(edges.gains(state), edges.gains, better, before, state, problem.k, how.steps)
    return problem.result(state, picked, found.gains, bound, len(proposed), found.evaluations)


def _started(edges: GraphCandidates, problem: _Problem) -> RowState:
    """What the rows already selected do."""
    state = RowState.uncovered(problem.n, problem.weights)
    if len(problem.selected):
        rising = np.sort(problem.selected)
        places = np.searchsorted(rising, problem.selected).astype(np.uint32)
        edges.sparse(rising).cover(places, state, rising.astype(np.uint32))
    return state


def _proposals(
    edges: GraphCandidates,
    problem: _Problem,
    labels: NDArray[np.int64],
    state: RowState,
    oversample: float,
    threads: int,
) -> Rows:
    """Rising rows that the parts choose, each for its own rows."""
    may = np.zeros(problem.n, np.bool_)
    may[problem.candidates] = True
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    chosen = []
    for rows in np.split(order, cuts):
        own = rows[may[rows]]
        share = k_share(problem.k, len(rows), problem.n, oversample)
        if share >= len(own):
            chosen.append(own)
            continue
        local = edges.sparse(own, rows)
        weights = None if problem.weights is None else problem.weights[rows]
        part = RowState(state.covered[rows], state.representative[rows], weights)
        found = local.greedy(part, local.gains(part, None, threads), share)
        chosen.append(own[found.candidates])
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def k_share(k: int, rows: int, n: int, oversample: float) -> int:
    """How many rows a part of ``rows`` of n rows proposes."""
    return k if math.isinf(oversample) else min(k, math.ceil(oversample * k * rows / n))


def guaranteed_bound(begun: float, reached: float, k: int) -> float:
    """What k candidates can reach at most where greedy picks went from ``begun`` to ``reached``.

    They make up at least 1 - (1 - 1/k)^k of the largest possible rise (Nemhauser, Wolsey and Fisher 1978).
    """
    return begun + (reached - begun) / (1 - (1 - 1 / k) ** k)


def _upper_bound(
    last_gains: NDArray[np.float64],
    gains_at: Callable[[RowState], NDArray[np.float64]],
    count_better: Callable[[NDArray[np.uint32], NDArray[np.float32]], NDArray[np.int32]],
    before: NDArray[np.float32],
    state: RowState,
    k: int,
    steps: int,
) -> float:
    """The least bound found.

    For any price u[i] of each row, at least what it had before, f(S) <= sum of w[i] u[i] + the k largest sums over i of
    w[i] max(s[i, j] - u[i], 0). Prices start at what is covered; a subgradient step lowers the prices of rows that none
    of the k best candidates exceeds and raises those that several do.
    """
    reached = state.objective
    if steps == 0 or k == 0:
        return math.fsum([reached, *_largest(last_gains, k)[1].tolist()])
    prices, best, pace = state.covered.copy(), math.inf, 1.0
    for step in range(steps):
        at = RowState(prices, state.representative, state.weights)
        chosen, gained = _largest(gains_at(at), k)
        value = math.fsum([at.objective, *gained.tolist()])
        pace = pace if value < best else pace / 2
        best = min(best, value)
        slope = 1.0 - count_better(chosen, prices)
        if state.weights is not None:
            slope *= state.weights
        length = float(np.sum(slope * slope))  # not BLAS, whose sums depend on its threads
        if step == steps - 1 or length == 0 or best <= reached:
            break
        moved = prices - pace * max(value - reached, 0.0) / length * slope
        prices = np.maximum(moved, before).astype(np.float32)
    return best


def _largest(gains: NDArray[np.float64], k: int) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """At most k candidates of the largest positive gains, ties to the lower."""
    positive = np.flatnonzero(gains > 0)
    chosen = positive[np.argsort(-gains[positive], kind="stable")[:k]]
    return chosen.astype(np.uint32), gains[chosen]


def _check_numbers(k: int, oversample: float, bound_steps: int) -> None:
    check_count("k", k)
    check_count("bound_steps", bound_steps, least=0)
    if not oversample > 0:
        raise InputError(f"oversample: expected a number above 0, got {oversample!r}")


def _graph_of(
    given: Any,
    neighbors: int,
    metric: Literal["cosine", "inner_product"],
    threads: int | None,
    dtype: str | None,
    device: str | None,
) -> KnnGraph:
    graph = given
    if not isinstance(graph, KnnGraph):
        check_count("neighbors", neighbors)
        graph = knn_graph(graph, neighbors, metric=metric, threads=threads, dtype=dtype, device=device).symmetrize()
    if len(graph) >= int(NOBODY):
        raise InputError(f"graph: expected fewer than 2^32 - 1 rows, got {len(graph):,}; cut it into several")
    return graph


def _matrix_of(given: Any, partition: Any, self_similarity: Any) -> NDArray[np.float32]:
    if (
        not isinstance(given, np.ndarray)
        or given.dtype != np.float32
        or given.ndim != 2
        or not given.flags.c_contiguous
    ):
        came = f"{given.ndim}-D {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise InputError(
            f"graph_or_rows: expected a matrix (candidates, rows) of float32 in C order for metric='precomputed', got "
            f"{came}; pass numpy.ascontiguousarray(similarities, numpy.float32)"
        )
    if partition is not None or self_similarity is not None:
        name = "partition" if partition is not None else "self_similarity"
        raise InputError(f"{name}: expected None with metric='precomputed'; it is of graphs")
    if len(given) > given.shape[1]:
        raise InputError(
            f"graph_or_rows: expected at most as many candidates as rows, the first of which they are, got "
            f"{given.shape}"
        )
    return given


def _row_numbers(name: str, given: Any, n: int) -> Rows:
    array = np.asarray(given)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise InputError(f"{name}: expected a mask of shape ({n},), got {array.shape}")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{name}: expected row numbers or a mask of bool, got {array.ndim}-D {array.dtype}")
    outside = (array < 0) | (array >= n)
    if outside.any():
        raise InputError(f"{name}: expected rows from 0 to {n - 1}, got {array[outside][0]}")
    rows = array.astype(np.int64)
    if name == "selected" and len(np.unique(rows)) < len(rows):
        raise InputError(f"{name}: expected every row once, but {len(rows) - len(np.unique(rows))} are repeated")
    return rows


def _weights_of(given: Any, n: int) -> NDArray[np.float64] | None:
    if given is None:
        return None
    weights = np.ascontiguousarray(given, np.float64)
    if weights.shape != (n,):
        raise InputError(f"weights: expected shape ({n},), one for each row, got {weights.shape}")
    bad = ~(weights >= 0) | ~np.isfinite(weights)
    if bad.any():
        raise InputError(
            f"weights: expected finite numbers of at least 0, got {weights[bad][0]} for row {int(np.argmax(bad))}"
        )
    return weights


def _self_similarities(graph: KnnGraph, given: Any) -> float | NDArray[np.float32]:
    if given is None:
        if graph.metric != "cosine":
            raise InputError(
                f"self_similarity: expected a number or one for each row, as the graph's metric is {graph.metric!r}; "
                "only for cosine it is 1"
            )
        return 1.0
    own = np.asarray(given, np.float32)
    if own.ndim and own.shape != (len(graph),):
        raise InputError(f"self_similarity: expected a number or shape ({len(graph)},), got {own.shape}")
    if not (np.isfinite(own) & (own >= 0)).all():
        raise InputError("self_similarity: expected finite numbers of at least 0, got one that is not")
    return np.ascontiguousarray(own) if own.ndim else float(own)


def _labels_of(partition: Any, n: int) -> NDArray[np.int64]:
    labels = np.asarray(partition)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"partition: expected a whole number for each of the {n} rows, got shape {labels.shape} of {labels.dtype}"
        )
    return labels.astype(np.int64)
