"""A graph of neighbours in compressed sparse rows, in memory or memory-mapped from a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError, WorkspaceError
from pycurate.index.certificate import RecallCertificate
from pycurate.index.folder import Generation, NpyWriter, file_of, mapped, read_manifest

MANIFEST = "graph.json"
Order: TypeAlias = Literal["similarity", "row"]

EDGES_IN_MEMORY = 1 << 24
"""Edges that `KnnGraph.symmetrize` sorts at a time: some 700 MB with what sorting takes."""


@dataclass(frozen=True, slots=True, eq=False)
class KnnGraph:
    """Row i's neighbours are ``indices[indptr[i]:indptr[i + 1]]``, with their similarities in ``weights``.

    Attributes
    ----------
    indptr
        (n + 1,) uint64, from 0 rising to the number of edges.
    indices
        (e,) uint32, or uint64 from 2^32 rows on.
    weights
        (e,) float32 canonical similarities, or the same rounded to float16.
    order
        ``"similarity"``: a row's neighbours come nearest first, ties by row; ``"row"``: rising.
    metric, method
        How it was made. ``exact`` methods find the nearest rows; of others ``certificate`` says how many were missed.
    unjudged
        Rows that cannot be judged; they have no edges.
    certificate
        None for an exact graph.
    """

    indptr: NDArray[np.uint64]
    indices: NDArray[np.unsignedinteger[Any]]
    weights: NDArray[np.floating[Any]]
    order: Order = "similarity"
    metric: str = "cosine"
    method: str = "exact"
    unjudged: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    certificate: RecallCertificate | None = None

    def __post_init__(self) -> None:
        ends = self.indptr[[0, -1]].tolist() if self.indptr.ndim == 1 and len(self.indptr) else [1, 0]
        if self.indptr.dtype != np.uint64 or ends != [0, len(self.indices)] or len(self.weights) != len(self.indices):
            raise InputError(
                f"indptr: expected (n + 1,) uint64 from 0 to the number of edges, got {self.indptr.dtype} from "
                f"{ends[0]} to {ends[1]} for {len(self.indices)} indices and {len(self.weights)} weights"
            )
        if self.indices.dtype not in (np.uint32, np.uint64) or self.weights.dtype not in (np.float16, np.float32):
            raise InputError(
                "indices, weights: expected uint32 or uint64, and float16 or float32, got "
                f"{self.indices.dtype} and {self.weights.dtype}"
            )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def edges(self) -> int:
        """How many there are, each direction counted."""
        return len(self.indices)

    @property
    def note(self) -> str:
        """How the neighbours were found, in words."""
        return self.method if self.certificate is None else f"{self.method}: {self.certificate.sentence()}"

    def neighbors(self, row: int) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.floating[Any]]]:
        """Views of one row's neighbours and their similarities; IndexError when there is no such row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row: expected 0 to {len(self) - 1}, got {row}")
        part = slice(int(self.indptr[row]), int(self.indptr[row + 1]))
        return self.indices[part], self.weights[part]

    def save(self, out: str | os.PathLike[str]) -> KnnGraph:
        """Write it into a folder (new, empty, or of an earlier graph), and open it from there."""
        with GraphWriter(out, self.indices.dtype, self.weights.dtype) as writer:
            for first, last in _row_ranges(self.indptr, EDGES_IN_MEMORY):
                part = slice(int(self.indptr[first]), int(self.indptr[last]))
                writer.append(np.diff(self.indptr[first : last + 1]), self.indices[part], self.weights[part])
            return writer.finish(self)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> KnnGraph:
        """A saved graph, memory-mapped.

        Raises
        ------
        InputError
            There is no finished graph.
        WorkspaceError
            A file is missing or cut short.
        """
        folder = Path(folder).absolute()
        facts = read_manifest(folder, MANIFEST, "graph")
        made = facts["certificate"]

        def array(role: str) -> NDArray[Any]:
            path = file_of(folder, facts, role)
            if path is None:
                raise WorkspaceError(f"graph: the manifest of {folder} names no {role}; build the graph again")
            return mapped(path)

        return cls(
            array("indptr"),
            array("indices"),
            array("weights"),
            facts["order"],
            facts["metric"],
            facts["method"],
            array("unjudged"),
            None if made is None else RecallCertificate(**made),
        )

    def symmetrize(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        keep: Literal["union", "mutual", "sum"] = "union",
        edges_in_memory: int = EDGES_IN_MEMORY,
    ) -> KnnGraph:
        """The graph with every edge in both directions, each row's neighbours rising.

        Parameters
        ----------
        out
            A folder to write it into, as the edges of all rows may be more than memory holds: reversed edges are
            first written there in order of the rows they begin at, and then merged range by range. In memory by
            default.
        keep
            ``"union"``: edges found from either end; ``"mutual"``: only those found from both; ``"sum"``: the union,
            the weights of both directions added (W + Wᵀ), so that an edge found from both ends weighs twice.
        edges_in_memory
            Edges that are sorted at a time, and so how much memory it takes (40 bytes each). The result does not
            depend on it.

        Notes
        -----
        A similarity is the same bits from both ends, so it does not matter whose weight ``union`` and ``mutual`` take.
        """
        if keep not in ("union", "mutual", "sum"):
            raise InputError(f"keep: expected 'union', 'mutual' or 'sum', got {keep!r}")
        if out is None:
            parts = list(self._symmetric_parts(keep, edges_in_memory, np.empty))
            indptr = np.zeros(len(self) + 1, np.uint64)
            np.cumsum(np.concatenate([p[0] for p in parts] or [np.empty(0, np.uint64)]), out=indptr[1:])
            indices = np.concatenate([p[1] for p in parts] or [self.indices])
            weights = np.concatenate([p[2] for p in parts] or [self.weights])
            return KnnGraph(indptr, indices, weights, "row", self.metric, self.method, self.unjudged, self.certificate)
        with GraphWriter(out, self.indices.dtype, self.weights.dtype) as writer:
            for degrees, indices, weights in self._symmetric_parts(keep, edges_in_memory, writer.scratch):
                writer.append(degrees, indices, weights)
            return writer.finish(self, order="row")

    def _symmetric_parts(
        self, keep: str, edges_in_memory: int, allocate: Callable[[int, np.dtype[Any]], NDArray[Any]]
    ) -> Iterator[tuple[NDArray[np.uint64], NDArray[Any], NDArray[Any]]]:
        """Degrees, indices and weights of consecutive ranges of rows."""
        arriving = np.zeros(len(self) + 1, np.uint64)  # where the reversed edges of each row begin
        for start in range(0, self.edges, edges_in_memory):
            ends = self.indices[start : start + edges_in_memory].astype(np.int64)
            arriving[1:] += np.bincount(ends, minlength=len(self)).astype(np.uint64)
        np.cumsum(arriving, out=arriving)
        ranges = list(_row_ranges(self.indptr + arriving, edges_in_memory))
        kind = np.dtype([("row", self.indices.dtype), ("col", self.indices.dtype), ("weight", self.weights.dtype)])
        reversed_edges = allocate(self.edges, kind)
        self._scatter(reversed_edges, arriving, ranges, edges_in_memory)
        for first, last in ranges:
            part = slice(int(self.indptr[first]), int(self.indptr[last]))
            back = reversed_edges[int(arriving[first]) : int(arriving[last])]
            row = np.concatenate([_rows_of(self.indptr, first, last), back["row"].astype(np.int64)])
            col = np.concatenate([self.indices[part], back["col"]])
            weight = np.concatenate([self.weights[part], back["weight"]])
            order = _edge_order(row - first, col)
            row, col, weight = row[order], col[order], weight[order]
            again = np.zeros(len(row), np.bool_)
            again[1:] = (row[1:] == row[:-1]) & (col[1:] == col[:-1])
            if keep == "sum":
                weight[:-1][again[1:]] += weight[1:][again[1:]]
            kept = again if keep == "mutual" else ~again
            degrees = np.bincount(row[kept] - first, minlength=last - first).astype(np.uint64)
            yield degrees, col[kept], weight[kept]

    def _scatter(
        self,
        reversed_edges: NDArray[Any],
        arriving: NDArray[np.uint64],
        ranges: list[tuple[int, int]],
        edges_in_memory: int,
    ) -> None:
        """Write every edge, reversed, to the place of the range of rows it then begins in."""
        bounds = np.array([first for first, _ in ranges[1:]], np.int64)
        filled = [int(arriving[first]) for first, _ in ranges]
        for first, last in _row_ranges(self.indptr, edges_in_memory):
            part = slice(int(self.indptr[first]), int(self.indptr[last]))
            ends = self.indices[part]
            edges = np.empty(len(ends), reversed_edges.dtype)
            edges["row"], edges["weight"] = ends, self.weights[part]
            edges["col"] = _rows_of(self.indptr, first, last)
            group = np.searchsorted(bounds, ends, side="right")
            order = np.argsort(group, kind="stable")
            counts = np.bincount(group, minlength=len(ranges))
            start = 0
            for number, count in enumerate(counts.tolist()):
                place = filled[number]
                reversed_edges[place : place + count] = edges[order[start : start + count]]
                filled[number], start = place + count, start + count
            if isinstance(reversed_edges, np.memmap):
                reversed_edges.flush()  # pages that are not written yet take memory


class GraphWriter:
    """Writes a graph into a folder, range of rows by range."""

    def __init__(self, out: str | os.PathLike[str], indices: np.dtype[Any], weights: np.dtype[Any]) -> None:
        self._generation = Generation(out, MANIFEST)
        self._scratch: Path | None = None
        self._files = {
            role: NpyWriter(self._generation.path(role, ".npy"), dtype)
            for role, dtype in (("indptr", np.dtype(np.uint64)), ("indices", indices), ("weights", weights))
        }
        self._edges = 0
        self._files["indptr"].append(np.zeros(1, np.uint64))

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        for file in self._files.values():
            file.close()
        if self._scratch is not None:
            self._scratch.unlink(missing_ok=True)
        self._generation.__exit__(*error)

    def append(self, degrees: NDArray[np.uint64], indices: NDArray[Any], weights: NDArray[Any]) -> None:
        """The next rows: how many neighbours each has, and their neighbours."""
        self._files["indptr"].append(np.cumsum(degrees, dtype=np.uint64) + np.uint64(self._edges))
        self._files["indices"].append(indices)
        self._files["weights"].append(weights)
        self._edges += len(indices)

    def scratch(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array in a file of the folder that is gone in the end."""
        if not count:
            return np.empty(0, dtype)
        self._scratch = self._generation.folder / ".edges.tmp"
        return np.memmap(self._scratch, dtype, "w+", shape=(count,))

    def finish(self, like: KnnGraph, order: Order | None = None) -> KnnGraph:
        """Put the files in place with the facts of ``like``; the graph, opened."""
        for file in self._files.values():
            file.close()
        with NpyWriter(self._generation.path("unjudged", ".npy"), np.dtype(np.int64)) as file:
            file.append(like.unjudged)
        facts: Mapping[str, Any] = {
            "made_by": f"pycurate {pycurate.__version__}",
            "rows": self._files["indptr"].rows - 1,
            "edges": self._edges,
            "order": order or like.order,
            "metric": like.metric,
            "method": like.method,
            "certificate": None if like.certificate is None else like.certificate.to_dict(),
        }
        self._generation.finish(facts)
        return KnnGraph.open(self._generation.folder)


def _row_ranges(indptr: NDArray[np.uint64], edges: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of rows (first, one past the last) of at most so many edges each, but of one row at least."""
    first, rows = 0, len(indptr) - 1
    while first < rows:
        last = int(np.searchsorted(indptr, indptr[first] + np.uint64(edges), side="right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


def _rows_of(indptr: NDArray[np.uint64], first: int, last: int) -> NDArray[np.int64]:
    """The row of each edge of a range of rows."""
    return np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]).astype(np.int64))


def _edge_order(row: NDArray[np.int64], col: NDArray[Any]) -> NDArray[np.int64]:
    """By row, then by column; equal edges as they stand. One sort of both in a word is 8 times faster than two."""
    if col.dtype != np.uint32 or (len(row) and int(row.max()) >> 32):
        return np.lexsort((col, row))
    return np.argsort(row.astype(np.uint64) << np.uint64(32) | col, kind="stable")
