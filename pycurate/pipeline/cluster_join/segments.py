"""Rows exchanged by cluster: segments of the source on disk, each sorted by cluster.

A segment is as many consecutive distinct rows as fit in memory: read once, assigned, sorted by (cluster, row) and
written in one go. All segments together are a matrix whose rows are numbered through as *positions*; a cluster is one
slice of each. Where segments are cut changes positions, but never which rows a cluster has or in which order they come.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycurate.index.rows import Rows
from pycurate.kernels.distinct import Floats, Indices
from pycurate.pipeline.block_join.join_folder import JoinFolder
from pycurate.pipeline.block_join.source import RowSource, open_array
from pycurate.pipeline.block_join.sweep import Progress
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.cluster_join.centroids import ClusterRule, nearest_clusters

MOST_SEGMENT_BYTES = 256 << 20
"""A killed run loses one segment at most; larger ones make no longer reads that matter."""
WIDENED_BYTES = 16 << 20
"""Rows are compared with centroids in pieces of this size, as float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The distinct rows of a source by cluster."""

    source: RowSource  # rows are positions
    places: list[Indices]  # of each segment: which of the distinct rows its rows are
    starts: NDArray[np.int64]  # (segments, k + 1) position at which each cluster begins in each segment
    centroids: Floats

    def __len__(self) -> int:
        return len(self.places)

    @property
    def sizes(self) -> Indices:
        """(k,) rows of each cluster."""
        sizes: Indices = np.diff(self.starts, axis=1).sum(axis=0)
        return sizes

    def members(self, cluster: int) -> Indices:
        """Rising positions of a cluster's rows."""
        return joined([np.arange(row[cluster], row[cluster + 1]) for row in self.starts])

    def place_of(self, positions: Indices) -> Indices:
        """Which of the distinct rows stand at rising positions."""
        cuts = np.searchsorted(positions, self.starts[:, 0])
        ends = np.append(cuts[1:], len(positions))
        parts = zip(self.places, self.starts[:, 0], cuts, ends, strict=True)
        return joined([places[positions[a:b] - first] for places, first, a, b in parts])

    def pieces(self, segment: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The rows of a segment widened, some at a time, with the position of the first."""
        end = int(self.starts[segment, -1])
        step = max(1, WIDENED_BYTES // (4 * max(1, self.source.d)))
        for start in range(int(self.starts[segment, 0]), end, step):
            taken = self.source.take(np.arange(start, min(end, start + step)))
            yield start, Rows(taken, self.source.element).widened()


def open_segments(
    folder: JoinFolder,
    source: RowSource,
    rows: Indices,
    order: Indices | None,
    rule: ClusterRule,
    facts: dict[str, Any],
    memory_bytes: int,
    threads: int,
    device: str | None,
    tell: Progress,
) -> Segments:
    """Train the centroids and write the segments that are not there.

    Parameters
    ----------
    rows
        Rising rows of the source to exchange: distinct and judged.
    order
        (len(rows),) places among ``rows`` in the order in which centroids are trained on them; None: as they stand.
    facts
        What tells these centroids from others.
    memory_bytes
        Beside what is held for every row.
    """
    trained = folder.task_folder("centroids", **facts)
    found = trained.answer()
    if found is None:
        rule.require_memory(source, memory_bytes)
        ordered = rows if order is None else rows[order]
        trained.write_answer({"centroids": rule.train(source, ordered, threads, device)})
        found = trained.answer()
    assert found is not None
    centroids = np.array(found["centroids"])
    tasks = folder.task_folder("segments", **facts, centroids=hashlib.sha256(centroids.tobytes()).hexdigest()[:32])
    fitting = min(MOST_SEGMENT_BYTES, max(0, memory_bytes) // 4) // (source.row_bytes + 32)
    segment_rows = tasks.open_tasks(max(1, fitting))
    count = -(-len(rows) // segment_rows)
    for number in range(count):
        if tasks.facts(number, 0) is None:
            part = slice(number * segment_rows, min(len(rows), (number + 1) * segment_rows))
            _write_segment(tasks, number, part.start, source, rows[part], centroids, threads, device)
        if tell is not None:
            tell((number + 1) / count)
    return _opened(tasks, count, source, centroids)


def _write_segment(
    tasks: TaskFolder,
    number: int,
    first: int,
    source: RowSource,
    rows: Indices,
    centroids: Floats,
    threads: int,
    device: str | None,
) -> None:
    taken = source.take(rows)
    clusters = np.empty(len(rows), np.int64)
    step = max(1, WIDENED_BYTES // (4 * max(1, source.d)))
    for start in range(0, len(rows), step):
        widened = Rows(taken[start : start + step], source.element).widened(threads or None)
        clusters[start : start + step] = nearest_clusters(widened, centroids, 1, threads, device)[0][:, 0]
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(len(centroids) + 1))
    paths = []
    for name, array in (("rows", taken[order]), ("places", first + order), ("starts", starts)):
        paths.append(tasks.task_path(number, 0, f"{name}.npy"))
        tasks.write_file(paths[-1], array.nbytes, functools.partial(write_array, array))
    tasks.finish(number, 0, paths)


def _opened(tasks: TaskFolder, count: int, source: RowSource, centroids: Floats) -> Segments:
    def of(name: str) -> list[NDArray[Any]]:
        return [open_array(tasks.task_path(number, 0, f"{name}.npy")) for number in range(count)]

    rows = of("rows") or [np.empty((0, source.d), source.shards[0].dtype)]
    exchanged = RowSource("segments", rows, source.dtype)
    firsts = exchanged.starts[:-1][:count, None]
    starts = np.array(of("starts"), np.int64).reshape(count, len(centroids) + 1) + firsts
    return Segments(exchanged, of("places"), starts, centroids)


def write_array(array: NDArray[Any], file: BinaryIO) -> None:
    """As .npy."""
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def joined(parts: list[Indices]) -> Indices:
    """One behind the other; there may be none."""
    return np.concatenate([np.empty(0, np.int64), *parts])
