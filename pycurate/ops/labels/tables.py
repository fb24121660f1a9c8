"""Answers about rows as Arrow tables, which carry uids where there are any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.uid import format_hex
from pycurate.types import UID_DTYPE, UidArray


def row_table(n: int, uids: UidArray | None, columns: dict[str, Any]) -> pa.Table:
    """A table of ``columns`` behind ``uid`` (32 hex digits) or, without uids, ``row`` (int64)."""
    if uids is None:
        return pa.table({"row": np.arange(n), **columns})
    if uids.dtype != UID_DTYPE or uids.shape != (n,):
        raise InputError(f"uids: expected ({n},) uids, got {uids.shape} of {uids.dtype}")
    return pa.table({"uid": format_hex(uids.copy()).astype(str), **columns})


def nullable(labels: NDArray[Any]) -> pa.Array:
    """Class numbers, null for -1."""
    return pa.array(labels, pa.int32(), mask=labels < 0)
