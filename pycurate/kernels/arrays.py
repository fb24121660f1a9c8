"""Arrays as users have them (NumPy, memory maps, tensors in CPU memory), checked and handed on without a copy."""

from __future__ import annotations

import sys
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["float32_of", "kind", "matrix_of", "ranks_of", "require_option", "rows_of", "thread_count_of"]

_CPU = 1  # DLPack's device type of ordinary memory


def kind(x: object) -> str:
    """What ``x`` is, for a sentence."""
    return f"dtype {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__


def rows_of(name: str, x: Any, dtype: str | None) -> tuple[NDArray[Any], str]:
    """``x`` as the compiled module takes it, bfloat16 as uint16 bits, and the name of its element type.

    Parameters
    ----------
    name
        The argument, for the errors.
    x
        A NumPy array or memory map, or anything in CPU memory with ``__dlpack__`` (a torch tensor): float16, bfloat16
        (of ml_dtypes or torch, or uint16 bits with ``dtype="bfloat16"``), float32 or int8. Nothing is copied.
    dtype
        None, or ``"bfloat16"`` to read uint16 as bfloat16 bits.

    Raises
    ------
    TypeError
        Another kind of object or element; says how to convert it.
    ValueError
        ``dtype`` is not one of the two, or a tensor is not in CPU memory.
    """
    if dtype not in (None, "bfloat16"):
        raise ValueError(f"dtype: expected None or 'bfloat16', got {dtype!r}")
    if not isinstance(x, np.ndarray):
        if not hasattr(x, "__dlpack__"):
            raise TypeError(f"{name}: expected a NumPy array, got {type(x).__name__}; pass numpy.asarray({name})")
        x, is_bfloat16 = _tensor(name, x)
        if is_bfloat16:
            return x, "bfloat16"
    element = x.dtype.name
    if element == "uint16":
        if dtype is None:
            raise TypeError(
                f"{name}: got dtype uint16, which may hold bfloat16 bits; pass dtype='bfloat16' to read it so"
            )
        element = "bfloat16"
    elif dtype == "bfloat16" and element != "bfloat16":
        raise TypeError(f"{name}: expected bfloat16 or its bits as uint16 with dtype='bfloat16', got dtype {x.dtype}")
    if element not in ("float32", "float16", "bfloat16", "int8") or not x.dtype.isnative:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32 or int8 in native byte order, got dtype {x.dtype}; convert "
            f"it on purpose, for instance {name}.astype(numpy.float32)"
        )
    return (x.view(np.uint16) if x.dtype.name == "bfloat16" else x), element


def matrix_of(name: str, x: Any, dtype: str | None) -> tuple[NDArray[Any], str]:
    """As :func:`rows_of`, and the shape is (n, d) with the elements of a row adjacent; rows any stride apart."""
    array, element = rows_of(name, x, dtype)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected a 2-D array (n, d), got {array.ndim}-D")
    if array.size and array.shape[1] > 1 and array.strides[1] != array.itemsize:
        raise ValueError(
            f"{name}: expected adjacent elements in each row (any stride between rows), got strides {array.strides}; "
            f"pass numpy.ascontiguousarray({name})"
        )
    return array, element


def thread_count_of(threads: int | None) -> int:
    """``threads`` as the compiled module takes it, where 0 means every processor this process may run on."""
    if threads is None:
        return 0
    if threads < 1:
        raise ValueError(f"threads: expected None or at least 1, got {threads}")
    return threads


def require_option(name: str, value: object, options: Any) -> None:
    """Raise ValueError unless ``value`` is one of the values of the literal type ``options``."""
    known = get_args(options)
    if value not in known:
        listed = ", ".join(repr(option) for option in known[:-1])
        raise ValueError(f"{name}: expected {listed} or {known[-1]!r}, got {value!r}")


def ranks_of(order: NDArray[np.integer[Any]], n: int) -> NDArray[np.int64]:
    """(n,) each row's position in ``order``."""
    if not isinstance(order, np.ndarray) or order.dtype.kind not in "iu":
        raise TypeError(f"order: expected an array of integers, a permutation of the rows, got {kind(order)}")
    if order.shape != (n,):
        raise ValueError(f"order: expected shape ({n},), one position for each row of x, got {order.shape}")
    outside = np.flatnonzero((order < 0) | (order >= n))
    if len(outside):
        at = outside[0]
        raise ValueError(f"order: expected row numbers from 0 to {n - 1}, got {order[at]} at position {at}")
    rank = np.full(n, -1, np.int64)
    rank[order] = np.arange(n)
    missing = np.flatnonzero(rank < 0)
    if len(missing):
        raise ValueError(f"order: expected every row once, but row {missing[0]} is missing, so another is repeated")
    return rank


def float32_of(name: str, value: float) -> float:
    """``value`` rounded to float32; refuses NaN."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if np.isnan(rounded):
        raise ValueError(f"{name}: expected a number, got NaN")
    return rounded


def _tensor(name: str, x: Any) -> tuple[NDArray[Any], bool]:
    """The memory of ``x`` by DLPack, and whether it is bfloat16, seen as uint16 because NumPy has no such type."""
    try:
        device = int(x.__dlpack_device__()[0])
        if device == _CPU:
            torch = sys.modules.get("torch")  # loaded wherever one of its tensors exists
            if torch is not None and isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16:
                return np.from_dlpack(x.view(torch.int16)).view(np.uint16), True
            return np.from_dlpack(x), False
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected an array or tensor that DLPack can share with NumPy, got {type(x).__name__} that it "
            f"cannot ({error}); pass a NumPy array of float16, float32 or int8, or bfloat16 bits as uint16"
        ) from error
    raise ValueError(
        f"{name}: expected a tensor in CPU memory, got one of DLPack device type {device}; pass {name}.cpu()"
    )
