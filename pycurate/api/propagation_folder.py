"""Label propagation by blocks of rows in a folder: states on disk, sweeps that a killed run continues.

``matrix/`` holds the matrix. State t of the sweeps is ``state-<t mod s>.npy``, s = 2 or, where a sweep needs the one
before the last, 3; ``sweeps.json`` counts the states that are whole and flushed, so that a sweep writes over none that
counts. ``answer/`` is complete when ``answer.json`` is there, and then the rest is gone. Each JSON file names the
digest of graph, labels and settings that it is for.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pycurate.api.out import claim_out
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import InputError, MemoryCapError, WorkspaceError
from pycurate.index.folder import NpyWriter, mapped
from pycurate.index.graph import GraphWriter, KnnGraph
from pycurate.io.atomic import naming_a_full_disk, write_json_atomic
from pycurate.kernels.graph import BLOCK_ROWS, SparseRows
from pycurate.ops.labels.propagation import relative
from pycurate.ops.labels.propagation_matrix import count_loops, edge_weights, scales
from pycurate.ops.labels.propagation_result import Propagation, finished_rows
from pycurate.ops.labels.propagation_seeds import LabelSeeds
from pycurate.ops.labels.propagation_settings import PropagationSettings
from pycurate.ops.labels.propagation_solvers import Problem, Told, run_sweeps
from pycurate.pipeline.workspace import Workspace

ROW_BYTES = 64
"""What is held for each row whatever the blocks: labels, degrees, where edges begin."""
_EDGES_AT_ONCE_BYTES = 40  # of `KnnGraph.symmetrize`
_LEAST_EDGES = 1 << 16
_DIGEST_BYTES = 64 << 20
_ANSWER = ("labels", "confidence", "margin", "mass", "shares")


class PropagationFolder:
    """See the module's description; use under the lock of its workspace."""

    def __init__(
        self,
        out: Path,
        graph: KnnGraph,
        seeds: LabelSeeds,
        settings: PropagationSettings,
        prior: NDArray[np.float64] | None,
        memory_bytes: int,
        threads: int | None,
    ) -> None:
        self.out, self._graph, self._seeds, self._settings = out, graph, seeds, settings
        self._prior, self.threads = prior, threads
        self.problem = Problem.of(settings, seeds)
        left = memory_bytes - BASE_BYTES - ROW_BYTES * len(graph)
        self._edge_bytes = 2 * (graph.indices.itemsize + 4)
        least = _LEAST_EDGES * max(_EDGES_AT_ONCE_BYTES, 2 * self._edge_bytes) + 2 * BLOCK_ROWS * self._row_bytes
        if left < least:
            raise MemoryCapError(
                f"memory_bytes: {memory_bytes / (1 << 20):,.0f} MiB are too few for {len(graph):,} rows; give at least "
                f"{-(-(memory_bytes - left + least) // (1 << 20)):,} MiB"
            )
        self.spare = left

    @property
    def _row_bytes(self) -> int:
        if self._settings.top is not None:
            return 8 * self._settings.top
        return self.problem.width * np.dtype(self._settings.dtype).itemsize

    def run(self, progress: Told = None) -> Propagation:
        """The answer: an earlier one, or made now."""
        key = self._key()
        answer = _facts(self.out / "answer.json", key)
        if answer is None:
            with naming_a_full_disk(self.out):
                answer = self._make(key, progress)
        arrays = {name: mapped(self.out / "answer" / f"{name}.npy") for name in _ANSWER}
        is_top = self._settings.top is not None
        return Propagation(
            arrays["labels"],
            arrays["confidence"],
            arrays["margin"],
            arrays["mass"],
            None if is_top else arrays["shares"],
            arrays["shares"] if is_top else None,
            self._seeds.classes,
            relative(self.problem, answer["changes"]),
            bool(answer["converged"]),
            self._seeds.unseeded,
            int(answer["loops"]),
        )

    def _make(self, key: str, progress: Told) -> dict[str, Any]:
        (self.out / "answer.json").unlink(missing_ok=True)
        made = _facts(self.out / "matrix.json", key)
        if made is None:
            for name in ("matrix", "answer"):
                shutil.rmtree(self.out / name, ignore_errors=True)
            (self.out / "sweeps.json").unlink(missing_ok=True)
            self._require_disk()
            made = {"key": key, "loops": self._write_matrix()}
            write_json_atomic(self.out / "matrix.json", made)
        states = _FolderStates(self, KnnGraph.open(self.out / "matrix"), key)
        converged = run_sweeps(self.problem, states, self.problem.limit, progress)
        self._write_answer(states.last)
        facts = {"key": key, "changes": states.changes, "converged": converged, "loops": made["loops"]}
        write_json_atomic(self.out / "answer.json", facts)
        shutil.rmtree(self.out / "matrix")
        for path in (self.out / "matrix.json", self.out / "sweeps.json", *self.out.glob("state-*.npy")):
            path.unlink()
        return facts

    def _key(self) -> str:
        """A digest of all that the answer depends on; of weights, after they were made of similarities."""
        digest = xxhash.xxh3_128()
        seeds, settings = self._seeds, self._settings
        for array in (seeds.indptr, seeds.labels, seeds.values, seeds.known, self._graph.indptr):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        step = _DIGEST_BYTES // 8
        for start in range(0, self._graph.edges, step):
            part = slice(start, min(start + step, self._graph.edges))
            digest.update(_read(self._graph.indices, part).data)
            digest.update(edge_weights(_read(self._graph.weights, part), settings.weight, start).data)
        names = [
            getattr(settings, name)
            for name in ("method", "solver", "alpha", "top", "symmetrize", "balance", "sweeps", "tol", "dtype")
        ]
        prior = None if self._prior is None else self._prior.tolist()
        digest.update(json.dumps([seeds.classes, seeds.multi_label, names, prior]).encode())
        return digest.hexdigest()

    def _require_disk(self) -> None:
        """WorkspaceError unless the matrix, on its way three times, and the states fit."""
        edges = self._graph.edges * (2 if self._settings.symmetrize else 1)
        needed = 4 * edges * (self._graph.indices.itemsize + 4) + 4 * len(self._graph) * self._row_bytes
        free = shutil.disk_usage(self.out).free
        if free < needed:
            raise WorkspaceError(
                f"out: up to {needed:,} bytes are needed in {self.out}, but {free:,} are free; free some space there "
                "or choose another folder"
            )

    # -- the matrix ------------------------------------------------------------------------------------------------

    def _write_matrix(self) -> int:
        """W, both ways where that is asked, then scaled; how many edges led from a row to itself."""
        plain, both = self.out / "matrix" / "plain", self.out / "matrix" / "both"
        loops = 0
        with GraphWriter(plain, self._graph.indices.dtype, np.dtype(np.float32)) as writer:
            for rows in self.blocks(self._graph, self._settings.weight):
                if len(rows.indices) and int(rows.indices.max()) >= len(self._graph):
                    raise InputError(
                        f"graph: expected indices from 0 to {len(self._graph) - 1:,}, got {rows.indices.max():,}"
                    )
                loops += count_loops(rows)
                try:
                    kept = rows.without_loops(threads=self.threads)
                except ValueError as error:
                    raise InputError(f"graph: {error}") from error
                writer.append(np.diff(kept.indptr), kept.indices, kept.values)
            graph = writer.finish(self._graph, order="row")
        if self._settings.symmetrize:
            edges = self.spare // (2 * _EDGES_AT_ONCE_BYTES)
            graph = graph.symmetrize(both, keep="sum", edges_in_memory=max(edges, _LEAST_EDGES))
            shutil.rmtree(plain)
        degrees = np.zeros(len(graph))
        for rows in self.blocks(graph):
            rows.add_column_sums(degrees)
        with GraphWriter(self.out / "matrix.new", graph.indices.dtype, np.dtype(np.float32)) as writer:
            for rows in self.blocks(graph):
                left, right = scales(rows, degrees, self._settings, self.threads)
                scaled = rows if left is None or right is None else rows.scaled(left, right, threads=self.threads)
                writer.append(np.diff(rows.indptr), rows.indices, scaled.values)
            writer.finish(graph)
        del graph
        shutil.rmtree(self.out / "matrix")
        os.replace(self.out / "matrix.new", self.out / "matrix")
        return loops

    def blocks(self, graph: KnnGraph, weight: Any = None) -> Iterator[SparseRows]:
        """Rows of a graph as they fit, each block beginning at a multiple of ``BLOCK_ROWS``; read, not mapped.

        With ``weight``, similarities become weights on the way.
        """
        n, budget = len(graph), self.spare // 4
        first = 0
        while first < n:
            last = min(first + BLOCK_ROWS, n)
            while last < n:
                further = min(last + BLOCK_ROWS, n)
                edges = int(graph.indptr[further] - graph.indptr[first])
                if edges * self._edge_bytes + (further - first) * self._row_bytes > budget:
                    break
                last = further
            part = slice(int(graph.indptr[first]), int(graph.indptr[last]))
            values = _read(graph.weights, part)
            if weight is not None:
                values = edge_weights(values, weight, part.start)
            yield SparseRows(np.array(graph.indptr[first : last + 1]), _read(graph.indices, part), values, first)
            first = last

    # -- the answer ------------------------------------------------------------------------------------------------

    def _write_answer(self, state: NDArray[Any]) -> None:
        folder = self.out / "answer"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files: dict[str, NpyWriter] = {}
        for _, part in finished_rows(state, self._seeds, self._settings, self._prior):
            for name in _ANSWER:
                rows = getattr(part, name)
                if name not in files:
                    columns = rows.shape[1] if rows.ndim == 2 else None
                    files[name] = NpyWriter(folder / f"{name}.npy", rows.dtype, columns)
                files[name].append(rows)
        for file in files.values():
            file.close()


class _FolderStates:
    """States in files; see the module's description."""

    def __init__(self, folder: PropagationFolder, matrix: KnnGraph, key: str) -> None:
        self._folder, self._matrix, self._key = folder, matrix, key
        self.problem = folder.problem
        self._kept = 3 if self.problem.settings.solver == "chebyshev" else 2
        facts = _facts(folder.out / "sweeps.json", key)
        self.changes: list[float] = [] if facts is None else list(facts["changes"])
        if facts is None:
            first = (self.problem.start(rows.first_row, rows.first_row + len(rows)) for rows in folder.blocks(matrix))
            self._write(0, first)
            self._mark()

    @property
    def last(self) -> NDArray[Any]:
        """The state of the last sweep, memory-mapped."""
        return mapped(self._path(len(self.changes)))

    def sweep(self, alpha: float, omega: float | None) -> None:
        """See `StateStore`."""
        number, problem, folder = len(self.changes), self.problem, self._folder
        state = self._read_whole(number)
        before = mapped(self._path(number - 1)) if omega is not None else None
        added = None if problem.settings.method == "vote" else problem.added
        changes: list[NDArray[np.float64]] = []

        def blocks() -> Iterator[NDArray[Any]]:
            for rows in folder.blocks(self._matrix):
                first, last = rows.first_row, rows.first_row + len(rows)
                out = np.empty((len(rows), *state.shape[1:]), state.dtype)
                previous = None if before is None else np.array(before[first:last])
                part = None if added is None else added.part(first, last)
                changes.append(problem.sweep(rows, part, state, out, omega, previous, folder.threads))
                yield out

        self._write(number + 1, blocks())
        self.changes.append(math.fsum(np.concatenate(changes)))
        self._mark()

    def _read_whole(self, number: int) -> NDArray[Any]:
        """In memory where it takes at most half of what is left: gathers from large pages are a third quicker."""
        state = mapped(self._path(number))
        return np.array(state) if state.nbytes <= self._folder.spare // 2 else state

    def _path(self, number: int) -> Path:
        return self._folder.out / f"state-{number % self._kept}.npy"

    def _write(self, number: int, blocks: Iterator[NDArray[Any]]) -> None:
        path = self._path(number)
        path.unlink(missing_ok=True)  # never over pages that are mapped
        file: NpyWriter | None = None
        for block in blocks:
            if file is None:
                file = NpyWriter(path, block.dtype, block.shape[1])
            file.append(block)
        assert file is not None
        file.close()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _mark(self) -> None:
        write_json_atomic(self._folder.out / "sweeps.json", {"key": self._key, "changes": self.changes})


def propagate_in_folder(
    out: str | os.PathLike[str],
    graph: KnnGraph,
    seeds: LabelSeeds,
    settings: PropagationSettings,
    *,
    prior: NDArray[np.float64] | None,
    memory_bytes: int,
    threads: int | None,
    progress: Told,
) -> Propagation:
    """The answer in a folder, by blocks; continues what an earlier run of the same question began."""
    if settings.solver == "cg" and settings.method != "vote":
        raise InputError(
            "solver: 'cg' works in memory only; take 'chebyshev' for 'spread' or 'power' for 'harmonic', or no folder"
        )
    if settings.dtype != "float32":
        raise InputError("dtype: 'float64' works in memory only; take 'float32' or no folder")
    if settings.solver == "chebyshev" and not settings.symmetrize:
        raise InputError("solver: 'chebyshev' in a folder needs symmetrize=True; take 'power' for a graph as it is")
    if not len(graph):
        raise InputError("graph: it has no rows")
    folder = claim_out(Path(out).absolute())
    with Workspace(folder).lock():
        return PropagationFolder(folder, graph, seeds, settings, prior, memory_bytes, threads).run(progress)


def _read(array: NDArray[Any], part: slice) -> NDArray[Any]:
    """Part of an array; of a whole memory-mapped file into memory, so that no mapping grows."""
    if isinstance(array, np.memmap) and array.filename is not None and not isinstance(array.base, np.memmap):
        offset = array.offset + part.start * array.itemsize
        return np.fromfile(array.filename, array.dtype, part.stop - part.start, offset=offset)
    return np.ascontiguousarray(array[part])


def _facts(path: Path, key: str) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("key") == key else None
