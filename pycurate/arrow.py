"""Between Arrow and NumPy without pandas.

``pyarrow.array``, ``pyarrow.scalar`` and ``Array.to_numpy`` look for pandas and import it where it is installed: half a
second and 50 MB in every process. Going through the buffers does not, and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numpy_values(array: pa.Array, missing: float | None = None) -> NDArray[Any]:
    """A read-only view of numbers (n,), or a copy: of truth values, and where nulls become ``missing``."""
    assert missing is not None or not array.null_count
    if pa.types.is_boolean(array.type):
        values = numpy_values(array.cast(pa.uint8()), missing)
        return values if array.null_count else values.view(np.bool_)
    dtype = np.dtype(array.type.to_pandas_dtype())
    if not len(array):
        return np.empty(0, dtype)
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    return np.where(numpy_values(array.is_valid()), values, dtype.type(missing)) if array.null_count else values


def numpy_floats(array: pa.Array, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Numbers or truth values as float32 or float64 (n,), null as NaN."""
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan, dtype)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    if array.type != kind:
        array = array.cast(kind, safe=False)
    return numpy_values(array, missing=np.nan)


def text_buffers(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The bytes of a string or large_string array, and the (n + 1,) int32 or int64 offsets of its texts in them."""
    dtype = np.dtype(
        np.int64 if pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type) else np.int32
    )
    _, ends, data = texts.buffers()
    if not len(texts) or ends is None:
        return np.empty(0, np.uint8), np.zeros(len(texts) + 1, dtype)
    offsets = np.frombuffer(ends, dtype, len(texts) + 1, texts.offset * dtype.itemsize)
    return np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8), offsets


def arrow_values(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers or truth values as an Arrow array over the same memory, null where ``valid`` is False."""
    values = np.ascontiguousarray(values)
    data = _bits(values) if values.dtype == np.bool_ else pa.py_buffer(values)
    mask = None if valid is None else _bits(valid)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [mask, data])


def arrow_texts(texts: Sequence[str | None]) -> pa.Array:
    """Texts as an Arrow large_string array."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    valid = None if None not in texts else _bits(np.array([text is not None for text in texts]))
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def _bits(values: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
