"""`IndexedJoin`: near-duplicates among the candidates that a vector index proposes for each row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pycurate.index.duplicate_certificate import DuplicateCertificate
from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import knn_graph
from pycurate.kernels.arrays import float32_of, ranks_of
from pycurate.kernels.block_similarity import lowest_of_component
from pycurate.kernels.device import device_of
from pycurate.kernels.distinct import Floats, Indices, expand_earlier, first_and_later, linked_copies
from pycurate.kernels.fused_similarity import MostSimilarEarlier, Pairs
from pycurate.kernels.spanning_forest import SpanningForest, heaviest_forest
from pycurate.pipeline.block_join.blocks import plan_blocks
from pycurate.pipeline.block_join.join_folder import JoinFolder
from pycurate.pipeline.block_join.pair_limit import checked_max_pairs, require_at_most
from pycurate.pipeline.block_join.source import RowSource, let_go, open_array
from pycurate.pipeline.block_join.sweep import How, Progress
from pycurate.pipeline.duplicate_sample import DEFAULT_TARGET, MOST_SIMILARITIES, DuplicateSample, share_of

Method: TypeAlias = Literal["ivf", "hnsw"]
_EDGES_AT_ONCE = 1 << 24


class IndexedJoin:
    """Near-duplicates among each distinct row's nearest candidates; made by `indexed_join`.

    Candidates come from `pycurate.knn_graph` and are re-scored, so that every similarity is canonical. A row with more
    near-duplicates than candidates keeps only the nearest of them. Answers are those of the methods of the same names
    of `SimilarityJoin` on the pairs proposed from either side.

    Attributes
    ----------
    n
        Rows of the source.
    """

    def __init__(
        self,
        source: RowSource,
        out: Path,
        method: Method,
        k: int,
        nprobe: int,
        ef: int,
        seed: int,
        memory_bytes: int,
        threads: int,
        progress: Progress,
        device: str | None = None,
    ) -> None:
        self._source, self._memory_bytes, self._threads, self._progress = source, memory_bytes, threads, progress
        self._device, self._place = device, device_of(device)
        self._method, self._k, self._nprobe, self._ef, self._seed = method, k, nprobe, ef, seed
        self._folder = JoinFolder(out, (source,), "cosine")
        with self._folder.locked():
            self._distinct = self._folder.distinct_rows(threads)[0]

    @property
    def n(self) -> int:
        """Rows of the source."""
        return len(self._source)

    @property
    def unjudged(self) -> Indices:
        """(u,) rising rows that cannot be judged."""
        return self._distinct.unjudged

    @property
    def copy_of(self) -> Indices:
        """(n,) the first row with the same bits, -1 where the row itself is the first."""
        return self._distinct.copy_of

    def pairs_above(self, threshold: float, *, max_pairs: int | None = None) -> Pairs:
        """The pairs of distinct rows at or above a threshold that were proposed, as `SimilarityJoin`'s, in memory."""
        limit, most = float32_of("threshold", threshold), checked_max_pairs(max_pairs)
        rows, cols, similarities = self._pairs(limit)
        require_at_most(most, len(rows), limit)
        names = self._distinct.rows
        return Pairs(names[rows], names[cols], similarities, self.copy_of, None, self.unjudged, None)

    def most_similar_earlier(self, order: NDArray[np.integer[Any]], floor: float) -> MostSimilarEarlier:
        """For every row the most similar row of higher priority that was proposed for it, or it for that row.

        Raises
        ------
        ValueError
            ``order`` is no permutation of the rows, or ``floor`` is NaN.
        """
        limit = float32_of("floor", floor)
        rank = ranks_of(order, self.n)
        distinct = self._distinct
        first, later = first_and_later(distinct, rank)
        rows, cols, similarities = self._pairs(limit)
        is_row = first[rows] > first[cols]
        of, by = np.where(is_row, rows, cols), first[np.where(is_row, cols, rows)]
        best_first = np.lexsort((by, -similarities, of))
        of, at = np.unique(of[best_first], return_index=True)
        ranks, best = np.full(len(first), -1), np.full(len(first), np.nan, np.float32)
        ranks[of], best[of] = by[best_first][at], similarities[best_first][at]
        own = np.ones(len(first), np.float32)
        ranks, best = expand_earlier(ranks, best, first, later, limit, distinct, own)
        return MostSimilarEarlier(np.append(np.asarray(order, np.int64), -1)[ranks], best, self.unjudged)

    def components_above(self, threshold: float) -> Indices:
        """(n,) the lowest row of each row's group, by the pairs that were proposed."""
        limit = float32_of("threshold", threshold)
        distinct = self._distinct
        rows, cols, _ = self._pairs(limit)
        rows, cols = distinct.rows[rows], distinct.rows[cols]
        if distinct.has_copies:
            copies = linked_copies(distinct, rows, cols, np.full(len(distinct.rows), limit <= 1))
            rows, cols = np.concatenate([rows, distinct.copy_of[copies]]), np.concatenate([cols, copies])
        return lowest_of_component(self.n, rows, cols)

    def spanning_forest_above(self, floor: float) -> SpanningForest:
        """The components of every threshold from a floor upwards, by the pairs that were proposed."""
        rows, cols, similarities = heaviest_forest(len(self._distinct.rows), *self._pairs(float32_of("floor", floor)))
        names = self._distinct.rows
        return SpanningForest(names[rows], names[cols], similarities, self.copy_of, self.unjudged)

    def certificate(
        self, threshold: float, *, target: float | None = None, most_similarities: int = MOST_SIMILARITIES
    ) -> DuplicateCertificate:
        """How many rows with a near-duplicate keep one, as `ClusteredJoin.certificate`."""
        limit = float32_of("threshold", threshold)
        wanted = DEFAULT_TARGET if target is None else share_of("target", target)
        words = f"{self._method} index, {self._k} candidates"
        with self._graph() as graph:

            def setting(rows: Indices, cols: Indices) -> Indices:
                a, b = self._distinct.group[rows], self._distinct.group[cols]
                return (~(_proposes(graph, a, b) | _proposes(graph, b, a))).astype(np.int64)

            source, on_gpu = self._source, self._place is not None
            plan = plan_blocks(self._memory_bytes, self.n, source.d, source.row_bytes, 0, on_gpu=on_gpu)
            how = How("cosine", "exact", self._threads, self._progress, self._place)
            sample = DuplicateSample(
                self._folder,
                self._source,
                self._distinct.rows,
                limit,
                [words],
                setting,
                plan,
                how,
                self._seed,
                self._facts(),
            )
            return sample.certify(wanted, most_similarities)[1]

    # -- candidates --------------------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        effort = {"nprobe": self._nprobe} if self._method == "ivf" else {"ef": self._ef}
        return {"method": self._method, "k": self._k, **effort, "seed": self._seed}

    @contextmanager
    def _graph(self) -> Iterator[KnnGraph]:
        """Of the distinct rows, numbered by their places; built once."""
        with self._folder.locked():
            folder = self._folder.task_folder("candidates", **self._facts())
            path = folder.root / "graph"
            if not (path / "graph.json").exists():
                rows = folder.root / "rows.npy"
                folder.require_disk(len(self._distinct.rows) * self._source.row_bytes)
                knn_graph(
                    self._distinct_rows(rows),
                    self._k,
                    method=self._method,
                    out=path,
                    seed=self._seed,
                    threads=self._threads or None,
                    dtype=self._source.dtype,
                    device=self._device,
                    nprobe=self._nprobe,
                    ef=self._ef,
                )
                rows.unlink(missing_ok=True)
            yield KnnGraph.open(path)

    def _distinct_rows(self, path: Path) -> NDArray[Any]:
        """Copies would be each other's nearest candidates, and no row's near-duplicates."""
        rows, source = self._distinct.rows, self._source
        if not len(rows):
            return np.empty((0, source.d), source.shards[0].dtype)
        written = open_memmap(path, "w+", source.shards[0].dtype, (len(rows), source.d))
        for start in range(0, len(rows), source.piece_rows):
            part = slice(start, start + source.piece_rows)
            written[part] = source.take(rows[part])
            written.flush()
            let_go(written)
        return open_array(path)

    def _pairs(self, limit: float) -> tuple[Indices, Indices, Floats]:
        """Places of distinct rows, row < col, sorted, and their similarities."""
        with self._graph() as graph:
            found = []
            indptr = graph.indptr.astype(np.int64)
            for begin in range(0, graph.edges, _EDGES_AT_ONCE):
                part = slice(begin, min(graph.edges, begin + _EDGES_AT_ONCE))
                kept = begin + np.flatnonzero(graph.weights[part] >= limit)
                a = np.searchsorted(indptr, kept, side="right") - 1
                b = graph.indices[kept].astype(np.int64)
                found.append((np.minimum(a, b), np.maximum(a, b), np.asarray(graph.weights[kept], np.float32)))
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        rows, cols, similarities = (np.concatenate(column) for column in zip(empty, *found, strict=True))
        order = np.lexsort((cols, rows))
        rows, cols, similarities = rows[order], cols[order], similarities[order]
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])
        return rows[new], cols[new], similarities[new]


def _proposes(graph: KnnGraph, a: Indices, b: Indices) -> NDArray[np.bool_]:
    """(p,) whether b is among the candidates of a."""
    rows = np.unique(a)
    starts, counts = graph.indptr[rows].astype(np.int64), (graph.indptr[rows + 1] - graph.indptr[rows]).astype(np.int64)
    edges = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    count = len(graph.indptr) - 1
    proposed = np.sort(np.repeat(rows, counts) * count + graph.indices[edges])
    asked = a * count + b
    found: NDArray[np.bool_] = np.append(proposed, -1)[np.searchsorted(proposed, asked)] == asked
    return found
