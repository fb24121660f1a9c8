"""Which rows visit which other clusters, kept on disk and read back cluster by cluster."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycurate.index.rows import Rows
from pycurate.io.atomic import atomic_write
from pycurate.kernels.distinct import Indices
from pycurate.pipeline.block_join.source import RowSource, open_array
from pycurate.pipeline.block_join.sweep import Progress
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.cluster_join.centroids import Borders, nearest_clusters
from pycurate.pipeline.cluster_join.segments import WIDENED_BYTES, Segments, joined, write_array

_FIRST_LISTED = 16  # clusters that are looked at for each row, before more are, where none may be missed
_SORTED_AT_ONCE = 1 << 22  # visits; 32 bytes each while they are sorted


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Positions of visiting rows in parts, each sorted by (cluster, position); positions rise from part to part."""

    files: list[Indices]  # of each segment: its parts, one behind the other
    parts: list[tuple[int, NDArray[np.int64]]]  # the file of each and (k + 1,) where each cluster begins in it

    @property
    def sizes(self) -> Indices:
        """(k,) visitors of each cluster."""
        return sum((np.diff(starts) for _, starts in self.parts), np.zeros(1, np.int64))

    def visitors(self, cluster: int) -> Indices:
        """Rising positions of the rows that visit a cluster."""
        return joined([self.files[file][starts[cluster] : starts[cluster + 1]] for file, starts in self.parts])


def open_visits(
    folder: TaskFolder,
    segments: Segments,
    borders: Borders,
    probes: int | None,
    threads: int,
    device: str | None,
    tell: Progress,
) -> Visits:
    """Find the visits that are not known: of each row to the clusters that ``borders`` names.

    Parameters
    ----------
    probes
        The most clusters near a row, beside its own, that are looked at; None: as many as may matter.
    """
    folder.open_tasks(1)
    files: list[Indices] = []
    parts: list[tuple[int, NDArray[np.int64]]] = []
    for number in range(len(segments)):
        paths = [folder.task_path(number, 0, f"{name}.npy") for name in ("positions", "starts")]
        if folder.facts(number, 0) is None:
            starts: list[NDArray[np.int64]] = []
            # The header tells how many there are, which is known at the end: so the bytes alone are written.
            with atomic_write(paths[0], "file") as file:
                for positions, clusters in _sorted_parts(segments, number, borders, probes, threads, device):
                    folder.require_disk(positions.nbytes)
                    first = int(starts[-1][-1]) if starts else 0
                    starts.append(first + np.searchsorted(clusters, np.arange(len(borders.centroids) + 1)))
                    file.write(positions.view(np.uint8).data)
            begins = np.array(starts, np.int64).reshape(len(starts), -1)
            folder.write_file(paths[1], begins.nbytes, functools.partial(write_array, begins))
            folder.finish(number, 0, paths)
        size = paths[0].stat().st_size
        files.append(np.memmap(paths[0], np.int64, "r") if size else np.empty(0, np.int64))
        parts.extend((number, begins) for begins in open_array(paths[1]))
        if tell is not None:
            tell((number + 1) / len(segments))
    return Visits(files, parts)


def _sorted_parts(
    segments: Segments, number: int, borders: Borders, probes: int | None, threads: int, device: str | None
) -> Iterator[tuple[Indices, Indices]]:
    """(v,) positions and clusters of the visits of a segment's rows, sorted by (cluster, position)."""
    positions: list[Indices] = []
    clusters: list[Indices] = []

    def part() -> tuple[Indices, Indices]:
        of, to = joined(positions), joined(clusters)
        order = np.lexsort((of, to))
        positions.clear()
        clusters.clear()
        return of[order], to[order]

    step = max(1, _SORTED_AT_ONCE // (probes or len(borders.centroids)))
    for start, rows in segments.pieces(number):
        for begin in range(0, len(rows), step):
            for places, near in visits_of(rows[begin : begin + step], borders, probes, threads, device):
                positions.append(start + begin + places)
                clusters.append(near)
            if sum(map(len, positions)) >= _SORTED_AT_ONCE:
                yield part()
    yield part()


def visits_of(
    rows: NDArray[np.float32], borders: Borders, probes: int | None, threads: int, device: str | None
) -> Iterator[tuple[Indices, Indices]]:
    """(v,) places of rows and the clusters that they visit, some at a time."""
    k = len(borders.centroids)
    left = np.arange(len(rows))
    listed = min(k, (_FIRST_LISTED if probes is None else probes) + 1)
    while len(left):
        step = max(1, WIDENED_BYTES // (16 * listed))
        lacking = []
        for begin in range(0, len(left), step):
            part = left[begin : begin + step]
            near, similarities = nearest_clusters(rows[part], borders.centroids, listed, threads, device)
            more = np.zeros(len(part), bool)
            if probes is None and listed < k:
                more = borders.may_lack(similarities)
            lacking.append(part[more])
            row, column = np.nonzero(borders.visited(near[~more], similarities[~more]))
            yield part[~more][row], near[~more][row, column]
        left = np.concatenate(lacking)
        listed = min(k, 2 * listed)


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Clusters near to some rows, nearest first, and whether a row that has so many probes visits them."""

    rows: Indices  # (m,) rising
    clusters: Indices  # (m, c)
    reached: NDArray[np.bool_]  # (m, c) its own, the first, included

    def rank(self, rows: Indices, clusters: Indices) -> Indices:
        """(p,) which of the clusters near to a row another one is, 0 its own; c where it is not visited."""
        place = np.searchsorted(self.rows, rows)
        hit = (self.clusters[place] == clusters[:, None]) & self.reached[place]
        ranks: Indices = np.where(hit.any(axis=1), hit.argmax(axis=1), hit.shape[1])
        return ranks

    def own(self, rows: Indices) -> Indices:
        """(p,) the cluster of each row."""
        clusters: Indices = self.clusters[np.searchsorted(self.rows, rows), 0]
        return clusters


@dataclass(slots=True, eq=False)
class ProbesNeeded:
    """With which of rising numbers of probes two rows are compared.

    The clusters that a row visits with p probes are among those that it visits with more. So a pair is compared from
    some number of probes on: 0 where both rows are in one cluster, else the place of the other's cluster among those
    near to the row that visits, the smaller of both.
    """

    source: RowSource
    borders: Borders
    tried: list[int]
    threads: int
    device: str | None
    _first: _Near | None = None  # of the rows last asked about: of a clump's near-copies they are the same again

    def __call__(self, rows: Indices, cols: Indices) -> Indices:
        """(p,) the number of the first that is enough, len(tried) where none is; of pairs of rows of the source."""
        distinct = np.unique(rows)
        if self._first is None or not np.isin(distinct, self._first.rows, assume_unique=True).all():
            self._first = self._near(distinct)
        of_rows, of_cols = self._first, self._near(np.unique(cols))
        needed = of_rows.rank(rows, of_cols.own(cols))
        left = np.flatnonzero(needed > self.tried[0])
        needed[left] = np.minimum(needed[left], of_cols.rank(cols[left], of_rows.own(rows[left])))
        return np.searchsorted(self.tried, needed)

    def _near(self, rows: Indices) -> _Near:
        widened = Rows(self.source.take(rows), self.source.element).widened(self.threads or None)
        near, similarities = nearest_clusters(
            widened, self.borders.centroids, self.tried[-1] + 1, self.threads, self.device
        )
        reached = self.borders.visited(near, similarities)
        reached[:, 0] = True
        return _Near(rows, near, reached)
