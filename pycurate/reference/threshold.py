"""Order-preserving keys of floats and the counting of their digits, in plain NumPy: the definition that
``kernels.threshold`` must equal.

The key of a float is an unsigned integer of the same width: its bits with the sign bit set when the value is positive,
all bits flipped when it is negative, and the key of +0 for -0. Keys are ordered as the values are. NaN has no key. A
key is read as 16-bit digits, the highest first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 65536


def ordered_keys(values: NDArray[Any]) -> NDArray[Any]:
    """uint32 keys of float32, uint64 keys of float64; ``values`` without NaN."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}").type
    sign = unsigned(1 << (8 * values.dtype.itemsize - 1))
    bits = np.where(values == 0, values.dtype.type(0), values).view(unsigned)
    keys: NDArray[Any] = np.where(bits & sign, ~bits, bits | sign)
    return keys


def values_of_keys(keys: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `ordered_keys`; never -0."""
    sign = keys.dtype.type(1 << (8 * keys.dtype.itemsize - 1))
    return np.where(keys & sign, keys ^ sign, ~keys).view(f"f{keys.dtype.itemsize}")


def count_digit(
    values: NDArray[Any], digit: int, prefix: int = 0, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """(65536,) rows by digit number ``digit`` of their key (uids: of the 128 bits), among the rows of ``mask`` that are
    not NaN and whose earlier digits, as one number, equal ``prefix``."""
    chosen = values if mask is None else values[mask]
    if chosen.dtype.kind == "f":
        chosen = ordered_keys(chosen[~np.isnan(chosen)])
    counts = np.zeros(BINS, np.int64)
    width = chosen.dtype.itemsize * 8
    for key in chosen.tolist():
        number = key[0] << 64 | key[1] if isinstance(key, tuple) else key
        upto = number >> (width - 16 * (digit + 1))
        if upto >> 16 == prefix:
            counts[upto & 0xFFFF] += 1
    return counts
