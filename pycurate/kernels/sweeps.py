"""Sweeps one after another over a graph, on the CPU or with everything in the memory of a GPU: the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels import device as devices
from pycurate.kernels.graph import (
    Doubles,
    SeedRows,
    SparseRows,
    cg_product,
    cg_step,
    cg_turn,
    seed_arrays,
    sweep_dense,
    sweep_top,
)

__all__ = [
    "DeviceSweeps",
    "Gpu",
    "HostSweeps",
    "Sweeps",
    "device_bytes",
    "fits_gpu",
    "gpu_of",
    "require_gpu_bytes",
    "sweeps_of",
]

Gpu: TypeAlias = int | None
"""The number of a GPU whose compiled kernels run; None: the CPU."""

_MIB = 1 << 20
_ROOM_BYTES = 64 * _MIB
"""What sums by block and by column take, and the allocator's rounding."""


class Sweeps(Protocol):
    """Rows of a matrix and what is added to them, where states live; see `pycurate.kernels.graph` for the sweeps."""

    def values(self, array: NDArray[Any]) -> Any:
        """A state like this array: itself, or a copy in the memory of the GPU."""
        ...

    def room(self, array: NDArray[Any]) -> Any:
        """Room for a state of this shape and dtype: the array itself, or memory of the GPU that is not set."""
        ...

    def read(self, values: Any) -> NDArray[Any]:
        """The rows of a state that these sweeps make, in the CPU's memory."""
        ...

    def sweep_dense(self, state: Any, out: Any, *, alpha: float, omega: float = 1.0, previous: Any = None) -> Doubles:
        """See `pycurate.kernels.graph.sweep_dense`."""
        ...

    def sweep_top(self, state: Any, out: Any, *, alpha: float) -> Doubles:
        """See `pycurate.kernels.graph.sweep_top`."""
        ...

    def cg_product(self, direction: Any, product: Any, alpha: float) -> Doubles:
        """See `pycurate.kernels.graph.cg_product`."""
        ...

    def cg_step(
        self, x: Any, residual: Any, direction: Any, product: Any, step: NDArray[np.float32]
    ) -> tuple[Doubles, Doubles]:
        """See `pycurate.kernels.graph.cg_step`."""
        ...

    def cg_turn(self, residual: Any, ratio: NDArray[np.float32], direction: Any) -> None:
        """See `pycurate.kernels.graph.cg_turn`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HostSweeps:
    """On the CPU. States are arrays; ``out`` and ``previous`` have the rows of the matrix only."""

    matrix: SparseRows
    seeds: SeedRows | None
    labels: int
    threads: int | None = None

    def values(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Sweeps`."""
        return array

    def room(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Sweeps`."""
        return array

    def read(self, values: NDArray[Any]) -> NDArray[Any]:
        """See `Sweeps`."""
        return values

    def sweep_dense(
        self,
        state: NDArray[Any],
        out: NDArray[Any],
        *,
        alpha: float,
        omega: float = 1.0,
        previous: NDArray[Any] | None = None,
    ) -> Doubles:
        """See `Sweeps`."""
        return sweep_dense(
            self.matrix, self.seeds, state, out, alpha=alpha, omega=omega, previous=previous, threads=self.threads
        )

    def sweep_top(self, state: NDArray[np.void], out: NDArray[np.void], *, alpha: float) -> Doubles:
        """See `Sweeps`."""
        return sweep_top(self.matrix, self.seeds, state, out, labels=self.labels, alpha=alpha, threads=self.threads)

    def cg_product(self, direction: NDArray[np.float32], product: NDArray[np.float32], alpha: float) -> Doubles:
        """See `Sweeps`."""
        clamped = None if self.seeds is None else self.seeds.clamped
        return cg_product(self.matrix, clamped, direction, product, alpha, self.threads)

    def cg_step(
        self,
        x: NDArray[np.float32],
        residual: NDArray[np.float32],
        direction: NDArray[np.float32],
        product: NDArray[np.float32],
        step: NDArray[np.float32],
    ) -> tuple[Doubles, Doubles]:
        """See `Sweeps`."""
        return cg_step(x, residual, direction, product, step, self.threads)

    def cg_turn(
        self, residual: NDArray[np.float32], ratio: NDArray[np.float32], direction: NDArray[np.float32]
    ) -> None:
        """See `Sweeps`."""
        cg_turn(residual, ratio, direction, self.threads)


@dataclass(frozen=True, slots=True, eq=False)
class _DeviceValues:
    """A state in the memory of a GPU."""

    memory: Any
    dtype: np.dtype[Any]
    columns: int


class DeviceSweeps:
    """On a GPU. States are whole, whichever rows the matrix has; ``out`` is never ``state``."""

    def __init__(self, matrix: SparseRows, seeds: SeedRows | None, labels: int, gpu: int) -> None:
        self._gpu, self._kernels = gpu, devices.cuda_kernels()
        self._first_row, self._count = matrix.first_row, len(matrix)
        arrays = (matrix.indptr, matrix.indices, matrix.values, matrix.first_row, *seed_arrays(seeds))
        self._rows = self._kernels.GraphRows(*arrays, labels, gpu)

    def values(self, array: NDArray[Any]) -> _DeviceValues:
        """See `Sweeps`."""
        made = self.room(array)
        made.memory.write(array, 0)
        return made

    def room(self, array: NDArray[Any]) -> _DeviceValues:
        """See `Sweeps`."""
        rows, columns = array.shape
        return _DeviceValues(self._kernels.GraphValues(rows, columns, array.dtype, self._gpu), array.dtype, columns)

    def read(self, values: _DeviceValues) -> NDArray[Any]:
        """See `Sweeps`."""
        array = np.empty((self._count, values.columns), values.dtype)
        values.memory.read(array, self._first_row)
        return array

    def sweep_dense(
        self,
        state: _DeviceValues,
        out: _DeviceValues,
        *,
        alpha: float,
        omega: float = 1.0,
        previous: _DeviceValues | None = None,
    ) -> Doubles:
        """See `Sweeps`."""
        before = None if previous is None else previous.memory
        changes: Doubles = self._rows.sweep_dense(state.memory, before, out.memory, alpha, omega)
        return changes

    def sweep_top(self, state: _DeviceValues, out: _DeviceValues, *, alpha: float) -> Doubles:
        """See `Sweeps`."""
        changes: Doubles = self._rows.sweep_top(state.memory, out.memory, alpha)
        return changes

    def cg_product(self, direction: _DeviceValues, product: _DeviceValues, alpha: float) -> Doubles:
        """See `Sweeps`."""
        dots: Doubles = self._rows.cg_product(direction.memory, product.memory, alpha)
        return dots

    def cg_step(
        self,
        x: _DeviceValues,
        residual: _DeviceValues,
        direction: _DeviceValues,
        product: _DeviceValues,
        step: NDArray[np.float32],
    ) -> tuple[Doubles, Doubles]:
        """See `Sweeps`."""
        sums: tuple[Doubles, Doubles] = self._rows.cg_step(
            x.memory, residual.memory, direction.memory, product.memory, step
        )
        return sums

    def cg_turn(self, residual: _DeviceValues, ratio: NDArray[np.float32], direction: _DeviceValues) -> None:
        """See `Sweeps`."""
        self._rows.cg_turn(residual.memory, ratio, direction.memory)


def gpu_of(device: str | None) -> Gpu:
    """The GPU whose compiled kernels run; None for the CPU, whose bits are the same where only PyTorch sees a GPU.

    Raises
    ------
    InputError
        As `pycurate.kernels.device.device_of`.
    """
    place = devices.device_of(device)
    return None if place is None or devices.cuda_support().fallback else place[0]


def sweeps_of(
    matrix: SparseRows,
    seeds: SeedRows | None,
    *,
    labels: int,
    gpu: Gpu = None,
    threads: int | None = None,
) -> HostSweeps | DeviceSweeps:
    """Sweeps of some rows, or all.

    Parameters
    ----------
    matrix, seeds
        See `pycurate.kernels.graph.sweep_dense`.
    labels
        Seeds' labels are less than this.
    gpu
        See `gpu_of`.
    threads
        On the CPU.
    """
    return HostSweeps(matrix, seeds, labels, threads) if gpu is None else DeviceSweeps(matrix, seeds, labels, gpu)


def device_bytes(matrix: SparseRows, seeds: SeedRows | None) -> int:
    """Bytes that `DeviceSweeps` takes for these rows, besides states."""
    arrays = [matrix.indptr, matrix.indices, matrix.values]
    arrays += [x for x in seed_arrays(seeds) if x is not None]
    return sum(array.nbytes for array in arrays)


def fits_gpu(gpu: int, needed: int) -> bool:
    """Whether a GPU's free memory holds so many bytes and what sweeps take beside them."""
    return needed + _ROOM_BYTES <= int(devices.cuda_kernels().free_bytes(gpu))


def require_gpu_bytes(gpu: int, needed: int, instead: str) -> None:
    """Refuse what a GPU's free memory does not hold.

    Raises
    ------
    MemoryError
        Says what is needed, what is free and, ``instead``, what to do.
    """
    if not fits_gpu(gpu, needed):
        free = int(devices.cuda_kernels().free_bytes(gpu))
        raise MemoryError(
            f"device: {-(-(needed + _ROOM_BYTES) // _MIB):,} MiB of GPU memory are needed, {free // _MIB:,} MiB are "
            f"free on cuda:{gpu}; {instead}"
        )
