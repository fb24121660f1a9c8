"""Fused similarity on GPUs for which the CUDA twins were not built: products by PyTorch, answers the CPU's bits.

The functions have the names and arguments of ``_core_cuda``. A block of all pairs is multiplied in float32 on the GPU,
of unit rows. What the product says of the canonical similarity is bounded (``torch_blocks.slack_of``); the pairs that
can matter are scored by the CPU's kernels, and only those scores decide. Rows stay in the CPU's memory, of which a
block at a time goes to the GPU. ``log_sum_exp``, to which every pair matters, runs on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.partial_answers import SpanningEdges, decoded, joined_columns, keys_of
from pycurate.kernels.torch_blocks import Floats, Integers, Join, Matrix, Operand, Progress, loaded_torch

__all__ = [
    "Matrix",
    "Operand",
    "add_nearest",
    "count_above",
    "forest_above",
    "free_bytes",
    "log_sum_exp",
    "max_earlier",
    "measure_rows",
    "pairs_above",
    "score_pairs",
    "spanning_forest_above",
    "top_k",
]


def free_bytes(device: int) -> int:
    """As many as there may be: rows stay in the CPU's memory."""
    return 1 << 62


def measure_rows(x: Matrix, weights: Floats | None, bias: Floats | None) -> Any:
    """As the kernel of ``_core.rowwise``."""
    return _core.rowwise.measure_rows(x.array, x.element, weights, bias, 0)


def score_pairs(
    a: Matrix,
    b: Matrix,
    metric: str,
    weights_a: Floats | None,
    bias_a: Floats | None,
    weights_b: Floats | None,
    bias_b: Floats | None,
) -> Any:
    """As the kernel of ``_core.rowwise``, by it: rows one by one are read from memory faster than they are moved."""
    return _core.rowwise.score_pairs(a.array, b.array, a.element, metric, True, weights_a, bias_a, weights_b, bias_b, 0)


def pairs_above(
    a: Operand, b: Operand | None, threshold: float, max_pairs: int, threads: int, progress: Progress
) -> tuple[Integers, Integers, Floats] | None:
    """Sorted by (row, col); None where there are more than ``max_pairs``."""
    join = Join(a, b, threads, progress)
    found: list[tuple[Integers, Integers, Floats]] = []
    count = 0
    for i, j, similarities in join.scored_above(threshold):
        count += len(i)
        if count > max_pairs:
            return None
        found.append((*join.rows_of(i, j), similarities))
    rows, cols, similarities = joined_columns(found)
    order = np.lexsort((cols, rows))
    return rows[order], cols[order], similarities[order]


def spanning_forest_above(
    a: Operand, b: Operand | None, floor: float, threads: int, progress: Progress
) -> tuple[Integers, Integers, Floats]:
    """The heaviest spanning forest, heaviest edge first."""
    join = Join(a, b, threads, progress)
    forest = SpanningEdges(join.nodes)
    for edges in join.scored_above(floor):
        forest.add(*edges)
    i, j, similarities = forest.edges()
    return *join.rows_of(i, j), similarities


def forest_above(
    a: Operand, b: Operand | None, threshold: float, threads: int, progress: Progress
) -> tuple[Integers, Integers]:
    """Edges that span the components of the pairs."""
    join = Join(a, b, threads, progress)
    forest = SpanningEdges(join.nodes)
    component, since = np.arange(join.nodes), 0

    def apart(i: Integers, j: Integers) -> NDArray[np.bool_]:
        different: NDArray[np.bool_] = component[i] != component[j]
        return different

    # Of a clump few pairs are scored: soon its rows are known to be of one component.
    for block in join.blocks():
        left, right = join.to_device(component[block.a]), join.to_device(component[block.nodes_b])
        mask = block.reaching(threshold) & (left[:, None] != right[None, :])
        for i, j, similarities in block.scored(mask, apart):
            found = similarities >= threshold
            forest.add(i[found], j[found], similarities[found])
            since += int(np.count_nonzero(found))
            if since > join.nodes // 64:
                component, since = _core.fused_similarity.components(join.nodes, *forest.edges()[:2]), 0
    return join.rows_of(*forest.edges()[:2])


def count_above(
    a: Operand,
    b: Operand | None,
    threshold: float,
    weights_a: Integers | None,
    weights_b: Integers | None,
    threads: int,
    progress: Progress,
) -> tuple[Integers, Integers | None]:
    """Summed weights of the rows that each row reaches."""
    join = Join(a, b, threads, progress)
    sides = [(a, weights_a)] if b is None else [(a, weights_a), (b, weights_b)]
    weights = np.concatenate([np.ones(side.n, np.int64) if given is None else given for side, given in sides])
    counts = np.zeros(join.nodes, np.int64)
    for i, j, _ in join.scored_above(threshold):
        np.add.at(counts, i, weights[j])
        np.add.at(counts, j, weights[i])
    return (counts, None) if b is None else (counts[: a.n], counts[a.n :])


def max_earlier(
    a: Operand,
    b: Operand | None,
    rank_a: Integers,
    rank_b: Integers | None,
    floor: float,
    threads: int,
    progress: Progress,
) -> tuple[Integers, Floats, Integers | None, Floats | None]:
    """Rank and similarity of the most similar row of lower rank, -1 and NaN where there is none."""
    join = Join(a, b, threads, progress)
    if b is not None and rank_b is None:
        raise ValueError("rank_b: expected ranks of the rows of b, got None")
    ranks = rank_a if rank_b is None else np.concatenate([rank_a, rank_b])
    best, limits = np.full(join.nodes, -1), np.full(join.nodes, floor, np.float32)
    for block in join.blocks():
        rank_left, rank_right = join.to_device(ranks[block.a]), join.to_device(ranks[block.nodes_b])
        is_later = rank_left[:, None] > rank_right[None, :]  # the row of a
        lower = block.lower
        limit_left = lower.masked_fill(~is_later, -np.inf).amax(1).maximum(join.to_device(limits[block.a]))
        limit_right = lower.masked_fill(is_later, -np.inf).amax(0).maximum(join.to_device(limits[block.nodes_b]))
        mask = block.reaching(loaded_torch().where(is_later, limit_left[:, None], limit_right[None, :]))
        for i, j, similarities in block.scored(mask):
            later, earlier = np.where(ranks[i] > ranks[j], (i, j), (j, i))
            known = np.unique(later)
            known = known[best[known] >= 0]
            owner = np.concatenate([later, known])
            rank, near = np.concatenate([ranks[earlier], best[known]]), np.concatenate([similarities, limits[known]])
            order = np.lexsort((rank, -near, owner))
            order = order[near[order] >= floor]
            owners, first = np.unique(owner[order], return_index=True)
            best[owners], limits[owners] = rank[order[first]], near[order[first]]
    similarities = np.where(best >= 0, limits, np.float32(np.nan))
    if b is None:
        return best, similarities, None, None
    return best[: a.n], similarities[: a.n], best[a.n :], similarities[a.n :]


def top_k(
    a: Operand, b: Operand | None, k: int, both: bool, threads: int, progress: Progress
) -> tuple[Integers, Floats, Integers | None, Floats | None]:
    """The k nearest rows of each, and their similarities; any k."""
    join = Join(a, b, threads, progress)
    two_sided = both or b is None
    lists = _Lists(np.full((join.nodes if two_sided else a.n, k), -1), None)
    lists.fill(join, two_sided, a.rows if b is None else np.concatenate([a.rows, b.rows]))
    similarities = np.where(lists.rows >= 0, lists.similarities, np.float32(np.nan))
    if b is None or not both:
        return lists.rows, similarities, None, None
    return lists.rows[: a.n], similarities[: a.n], lists.rows[a.n :], similarities[a.n :]


def add_nearest(
    a: Operand, b: Operand | None, first_b: int, lists: NDArray[np.uint64], threads: int, progress: Progress
) -> None:
    """As that of ``_core_cuda``: changes ``lists``, (n, k) of ``partial_answers.keys_of``, in place."""
    join = Join(a, b, threads, progress)
    found = _Lists(*decoded(lists))
    found.fill(join, b is None, first_b - join.offset + np.arange(join.nodes))
    lists[:] = keys_of(found.rows, found.similarities)


def _limits_of(lower: Any, axis: int, limits: Any, k: int) -> Any:
    """What the k-th nearest is at least, by the lists so far (float32) and by the bounds of this block."""
    if lower.shape[axis] < k:
        return limits.to(lower.dtype)
    return lower.topk(k, dim=axis).values.amin(axis).maximum(limits)


class _Lists:
    """Of every node the k nearest so far, nearest first, ties to the lower row; -1 and -inf beyond the last."""

    def __init__(self, rows: Integers, similarities: Floats | None) -> None:
        self.rows = rows
        self.similarities = np.full(rows.shape, -np.inf, np.float32)
        if similarities is not None:
            self.similarities[rows >= 0] = similarities[rows >= 0]

    def fill(self, join: Join, two_sided: bool, numbers: Integers) -> None:
        """Enter the pairs of a join into the lists of its left nodes, or of all; ``numbers``: of nodes as rows."""
        k = self.rows.shape[1]
        for block in join.blocks():
            lower = block.lower
            limits = _limits_of(lower, 1, join.to_device(self.limits[block.a]), k)[:, None]
            if two_sided:
                right = _limits_of(lower, 0, join.to_device(self.limits[block.nodes_b]), k)[None, :]
                limits = limits.minimum(right)
            for i, j, similarities in block.scored(block.reaching(limits)):
                self.add(i, numbers[j], similarities)
                if two_sided:
                    self.add(j, numbers[i], similarities)

    @property
    def limits(self) -> Floats:
        """(n,) what a row must reach to be listed."""
        return self.similarities[:, -1]

    def add(self, nodes: Integers, rows: Integers, similarities: Floats) -> None:
        k = self.rows.shape[1]
        touched, place = np.unique(nodes, return_inverse=True)
        owner = np.concatenate([np.repeat(np.arange(len(touched)), k), place])
        listed = np.concatenate([self.rows[touched].ravel(), rows])
        near = np.concatenate([self.similarities[touched].ravel(), similarities])
        order = np.lexsort((listed, -near, owner))
        counts = np.bincount(owner, minlength=len(touched))
        begins = np.cumsum(counts) - counts  # of each node's in this order: its first k stay
        kept = order[(begins[:, None] + np.arange(k)).ravel()]
        self.rows[touched] = listed[kept].reshape(-1, k)
        self.similarities[touched] = near[kept].reshape(-1, k)


def log_sum_exp(
    a: Operand, b: Operand, scale: float, threads: int, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By the CPU's kernel."""

    def on_the_cpu(operand: Operand) -> _core.fused_similarity.Operand:
        return _core.fused_similarity.Operand(
            operand.x.array,
            operand.x.element,
            None if operand.n == operand.x.shape[0] else operand.rows,
            operand.metric,  # type: ignore[arg-type]
            None,
            operand.precision,  # type: ignore[arg-type]
            threads,
        )

    return _core.fused_similarity.log_sum_exp(on_the_cpu(a), on_the_cpu(b), scale, threads, progress)
