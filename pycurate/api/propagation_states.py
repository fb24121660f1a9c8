"""States of successive sweeps in files, each made of the last by blocks of rows: on the CPU, or on a GPU."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pycurate.index.folder import NpyWriter, mapped
from pycurate.index.graph import KnnGraph
from pycurate.io.atomic import write_json_atomic
from pycurate.kernels.graph import SeedRows, SparseRows
from pycurate.kernels.sweeps import DeviceSweeps, device_bytes, fits_gpu, require_gpu_bytes, sweeps_of

if TYPE_CHECKING:
    from pycurate.api.propagation_folder import PropagationFolder


class FolderStates:
    """States in files; see `pycurate.api.propagation_folder`."""

    def __init__(self, folder: PropagationFolder, matrix: KnnGraph, key: str) -> None:
        self._folder, self._matrix, self._key = folder, matrix, key
        self.problem = folder.problem
        self._kept = 3 if self.problem.settings.solver == "chebyshev" else 2
        facts = facts_of(folder.out / "sweeps.json", key)
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
        changes: list[NDArray[np.float64]] = []

        def blocks() -> Iterator[NDArray[Any]]:
            for rows in folder.blocks(self._matrix):
                first, last = rows.first_row, rows.first_row + len(rows)
                out = np.empty((len(rows), *state.shape[1:]), state.dtype)
                previous = None if before is None else np.array(before[first:last])
                on = sweeps_of(rows, self._added(rows), labels=problem.labels, threads=folder.threads)
                changes.append(problem.sweep(on, state, out, omega, previous))
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

    def _added(self, rows: SparseRows) -> SeedRows | None:
        """What a sweep adds to some rows."""
        if self.problem.settings.method == "vote":
            return None
        return self.problem.added.part(rows.first_row, rows.first_row + len(rows))


class GpuStates(FolderStates):
    """The same with the last two states in the memory of a GPU, too, and the matrix where it fits beside them.

    Otherwise its blocks go there anew for every sweep. Each state is written to its file as on the CPU, so that a
    killed run continues on either.
    """

    def __init__(self, folder: PropagationFolder, matrix: KnnGraph, key: str, gpu: int) -> None:
        super().__init__(folder, matrix, key)
        self._gpu = gpu
        states = 2 * len(matrix) * self.problem.row_bytes * 65 // 64  # and sums of heavy rows
        edges = matrix.edges * (matrix.indices.itemsize + 4) + 64 * len(matrix)
        self._parts: list[DeviceSweeps] | None = [] if fits_gpu(gpu, states + edges) else None
        if self._parts is None:
            largest = max((device_bytes(rows, self._added(rows)) for rows in folder.blocks(matrix)), default=0)
            require_gpu_bytes(
                gpu, states + largest, "keep only the largest values of each row (top=4) or pass device='cpu'"
            )
        self._states: dict[int, Any] = {}

    def sweep(self, alpha: float, omega: float | None) -> None:
        """See `StateStore`."""
        number, problem = len(self.changes), self.problem
        changes: list[NDArray[np.float64]] = []

        def blocks() -> Iterator[NDArray[Any]]:
            for on in self._on():
                state, out = self._state(on, number), self._state(on, number - 1, room=omega is None)
                changes.append(problem.sweep(on, state, out, omega, out))
                yield on.read(out)

        self._write(number + 1, blocks())
        self._states = {number: self._states[number], number + 1: self._states[number - 1]}
        self.changes.append(math.fsum(np.concatenate(changes)))
        self._mark()

    def _on(self) -> Iterator[DeviceSweeps]:
        """Block by block."""
        if self._parts:
            yield from self._parts
            return
        for rows in self._folder.blocks(self._matrix):
            on = DeviceSweeps(rows, self._added(rows), self.problem.labels, self._gpu)
            if self._parts is not None:
                self._parts.append(on)
            yield on

    def _state(self, on: DeviceSweeps, number: int, room: bool = False) -> Any:
        """A state on the GPU; ``room``: only where the next one goes."""
        if number not in self._states:
            self._states[number] = on.room(self.last) if room else on.values(mapped(self._path(number)))
        return self._states[number]


def facts_of(path: Path, key: str) -> dict[str, Any] | None:
    """What a JSON file says, if it is there, whole and for this key."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("key") == key else None
