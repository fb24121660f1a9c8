"""Where a kernel runs: on the CPU, or on a GPU by the CUDA twins, which give the same answers.

The twins are a module of their own, built where ``nvcc`` was found. It imports without a driver. Where it is missing,
or supports none of the GPUs, PyTorch multiplies on them if it is installed (``torch_twin``), for the same answers. What
is missing is said when a GPU is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pycurate.errors import InputError
from pycurate.kernels.arrays import matrix_of

if TYPE_CHECKING:
    from types import ModuleType

    from pycurate import _core_cuda

__all__ = [
    "CudaDevice",
    "CudaSupport",
    "Place",
    "cuda_kernels",
    "cuda_support",
    "device_of",
    "lies_on_gpu",
    "on_device",
]

Place: TypeAlias = tuple[int, ...] | None
"""Where a kernel runs: numbers of GPUs; None: on the CPU."""

_DLPACK_CUDA = 2
_SHARED_STREAM = 1  # DLPack's number of the default stream that all threads share; a kernel waits for it


class CudaDevice(NamedTuple):
    """One GPU."""

    name: str
    capability: tuple[int, int]
    bytes: int
    supported: bool  # the kernels of this build run on it


class CudaSupport(NamedTuple):
    """What this installation can do with GPUs."""

    built: bool
    driver: int  # 13000 for CUDA 13.0; 0: none
    devices: tuple[CudaDevice, ...]
    torch: tuple[CudaDevice, ...] = ()  # that PyTorch sees, where no other can be used

    @property
    def missing(self) -> str | None:
        """What a GPU would need to run the compiled kernels, in words; None where one can."""
        if not self.built:
            return "this installation was built without CUDA kernels: install it where nvcc is found"
        if not self.driver:
            return "no CUDA driver was found"
        if not self.devices:
            return "the CUDA driver finds no GPU"
        if not any(device.supported for device in self.devices):
            names = ", ".join(f"{device.name} ({'.'.join(map(str, device.capability))})" for device in self.devices)
            return f"no GPU of compute capability 8.0 or newer was found, only {names}"
        return None

    @property
    def fallback(self) -> bool:
        """PyTorch runs in place of the compiled kernels."""
        return self.missing is not None and len(self.torch) > 0

    @property
    def usable(self) -> list[int]:
        """Numbers of the GPUs that can be asked for."""
        found = self.torch if self.fallback else self.devices
        return [number for number, device in enumerate(found) if device.supported]


@cache
def _module() -> ModuleType | None:
    try:
        from pycurate import _core_cuda
    except ImportError:
        return None
    return _core_cuda


def cuda_kernels() -> Any:
    """The functions that run on a GPU: the compiled twins, or those of PyTorch in their place."""
    if not cuda_support().fallback:
        return _module()
    from pycurate.kernels import torch_twin

    return torch_twin


@cache
def cuda_support() -> CudaSupport:
    """Asked once a process; loads PyTorch where no compiled kernel can run."""
    module = _module()
    support = CudaSupport(False, 0, ())
    if module is not None:
        support = CudaSupport(True, module.versions()[0], tuple(_device_of(facts) for facts in module.devices()))
    if support.missing is None:
        return support
    from pycurate.kernels.torch_blocks import torch_devices

    return support._replace(torch=tuple(_device_of({**facts, "supported": True}) for facts in torch_devices()))


def _device_of(facts: dict[str, Any]) -> CudaDevice:
    return CudaDevice(facts["name"], tuple(facts["capability"]), facts["bytes"], facts["supported"])


def device_of(device: str | None, *arrays: Any) -> Place:
    """Where to run.

    Parameters
    ----------
    device
        ``"cpu"``; ``"cuda"``, the GPU that the arrays lie on, or the first; ``"cuda:1"``; ``"cuda:0,1"``, several;
        ``"auto"``, a GPU where one can be used, else the CPU; None: where the arrays lie.
    arrays
        The matrices of the call, some of them None.

    Raises
    ------
    InputError
        A ValueError, too: the device is not one of these, there is no such GPU, or an array lies on another device.
    """
    lie = {_cuda_device(x) for x in arrays if x is not None}
    if len(lie) > 1:
        named = ", ".join(sorted("the CPU" if at is None else f"cuda:{at}" for at in lie))
        raise InputError(f"y: expected it on the device of x, got arrays on {named}; move one of them on purpose")
    at = lie.pop() if lie else None
    chosen = _chosen(device, at)
    if at is not None and chosen != (at,):
        other = "the CPU" if chosen is None else _named(chosen)
        raise InputError(f"device: the array lies on cuda:{at}, so it cannot be used on {other}; move it on purpose")
    if chosen is None:
        return None
    support = cuda_support()
    if support.missing and not support.fallback:
        raise InputError(f"device: a GPU was asked for, but {support.missing}; pass device='cpu'")
    if not set(chosen) <= set(support.usable):
        usable = ", ".join(f"cuda:{number}" for number in support.usable)
        raise InputError(f"device: expected one of {usable}, got {_named(chosen)}")
    return chosen


def _chosen(device: str | None, at: int | None) -> Place:
    """As asked for, whether there are such GPUs or not; ``at``: the GPU that the arrays lie on."""
    if device is None or (device in ("cuda", "auto") and at is not None):
        return None if at is None else (at,)
    if device == "cpu":
        return None
    if device == "auto":
        return tuple(cuda_support().usable[:1]) or None
    if device == "cuda":
        return (next(iter(cuda_support().usable), 0),)
    numbers = device[5:].split(",") if device.startswith("cuda:") else [""]
    if not all(number.isdigit() for number in numbers):
        raise InputError(
            f"device: expected 'cpu', 'cuda', 'cuda:0' (or another number), 'cuda:0,1' or 'auto', got {device!r}"
        )
    return tuple(map(int, numbers))


def _named(gpus: tuple[int, ...]) -> str:
    return "cuda:" + ",".join(map(str, gpus))


def on_device(name: str, x: Any, dtype: str | None, gpu: int) -> _core_cuda.Matrix:
    """The rows in the memory of a GPU: copied there from the CPU's, or as they lie where a tensor is there already.

    Raises
    ------
    TypeError, ValueError
        As :func:`pycurate.kernels.arrays.matrix_of`.
    MemoryError
        The GPU has not enough memory.
    """
    module = cuda_kernels()
    if _cuda_device(x) is None:
        array, element = matrix_of(name, x, dtype)
        result: _core_cuda.Matrix = module.Matrix.upload(array, element, gpu)
        return result
    result = module.Matrix.lend(_capsule(x), name) if hasattr(x, "__dlpack__") else module.Matrix.lend_array(x, name)
    if dtype == "bfloat16" and result.element != "bfloat16":
        raise TypeError(f"{name}: expected bfloat16, got {result.element} on the device; convert it on purpose")
    return result


def lies_on_gpu(x: Any) -> bool:
    """Whether an array is a tensor in CUDA memory."""
    return _cuda_device(x) is not None


def _cuda_device(x: Any) -> int | None:
    """Number of the GPU on which an array lies; None: anywhere else."""
    if not hasattr(x, "__dlpack_device__"):
        module = _module()
        if module is None or not hasattr(x, "__cuda_array_interface__"):
            return None
        return int(module.device_of_pointer(x.__cuda_array_interface__["data"][0]))
    try:
        kind, number = x.__dlpack_device__()
    except (BufferError, RuntimeError, TypeError, ValueError):
        return None  # what cannot be shared is named where it is read
    return int(number) if int(kind) == _DLPACK_CUDA else None


def _capsule(x: Any) -> Any:
    """Its memory, ready where what its owner has started on it is done on the shared default stream."""
    detached = x.detach() if hasattr(x, "detach") else x
    return detached.__dlpack__(stream=_SHARED_STREAM)
