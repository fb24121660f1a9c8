"""Label propagation by blocks of rows in a folder: states on disk, sweeps that a killed run continues.

``matrix/`` holds the matrix. State t of the sweeps is ``state-<t mod s>.npy``, s = 2 or, where a sweep needs the one
before the last, 3; ``sweeps.json`` counts the states that are whole and flushed, so that a sweep writes over none that
counts. ``answer/`` is complete when ``answer.json`` is there, and then the rest is gone. Each JSON file names the
digest of graph, labels and settings that it is for.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pycurate.api.out import claim_out
from pycurate.api.propagation_states import FolderStates, GpuStates, facts_of
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import InputError, MemoryCapError, WorkspaceError
from pycurate.index.folder import NpyWriter, mapped
from pycurate.index.graph import GraphWriter, KnnGraph
from pycurate.io.atomic import naming_a_full_disk, write_json_atomic
from pycurate.kernels.graph import BLOCK_ROWS, SparseRows
from pycurate.kernels.sweeps import Gpu
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
        gpu: Gpu,
    ) -> None:
        self.out, self._graph, self._seeds, self._settings = out, graph, seeds, settings
        self._prior, self.threads, self._gpu = prior, threads, gpu
        self.problem = Problem.of(settings, seeds)
        left = memory_bytes - BASE_BYTES - ROW_BYTES * len(graph)
        self._edge_bytes = 2 * (graph.indices.itemsize + 4)
        least = _LEAST_EDGES * max(_EDGES_AT_ONCE_BYTES, 2 * self._edge_bytes) + 2 * BLOCK_ROWS * self.problem.row_bytes
        if left < least:
            raise MemoryCapError(
                f"memory_bytes: {memory_bytes / (1 << 20):,.0f} MiB are too few for {len(graph):,} rows; give at least "
                f"{-(-(memory_bytes - left + least) // (1 << 20)):,} MiB"
            )
        self.spare = left

    def run(self, progress: Told = None) -> Propagation:
        """The answer: an earlier one, or made now."""
        key = self._key()
        answer = facts_of(self.out / "answer.json", key)
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
        made = facts_of(self.out / "matrix.json", key)
        if made is None:
            for name in ("matrix", "answer"):
                shutil.rmtree(self.out / name, ignore_errors=True)
            (self.out / "sweeps.json").unlink(missing_ok=True)
            self._require_disk()
            made = {"key": key, "loops": self._write_matrix()}
            write_json_atomic(self.out / "matrix.json", made)
        matrix = KnnGraph.open(self.out / "matrix")
        states = FolderStates(self, matrix, key) if self._gpu is None else GpuStates(self, matrix, key, self._gpu)
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
        needed = 4 * edges * (self._graph.indices.itemsize + 4) + 4 * len(self._graph) * self.problem.row_bytes
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
                if edges * self._edge_bytes + (further - first) * self.problem.row_bytes > budget:
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


def propagate_in_folder(
    out: str | os.PathLike[str],
    graph: KnnGraph,
    seeds: LabelSeeds,
    settings: PropagationSettings,
    *,
    prior: NDArray[np.float64] | None,
    memory_bytes: int,
    threads: int | None,
    gpu: Gpu,
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
        return PropagationFolder(folder, graph, seeds, settings, prior, memory_bytes, threads, gpu).run(progress)


def _read(array: NDArray[Any], part: slice) -> NDArray[Any]:
    """Part of an array; of a whole memory-mapped file into memory, so that no mapping grows."""
    if isinstance(array, np.memmap) and array.filename is not None and not isinstance(array.base, np.memmap):
        offset = array.offset + part.start * array.itemsize
        return np.fromfile(array.filename, array.dtype, part.stop - part.start, offset=offset)
    return np.ascontiguousarray(array[part])
