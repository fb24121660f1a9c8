"""Labels of rows as numbers: which classes there are, how many rows each has, which rows have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class ClassCodes:
    """The classes of some rows.

    Attributes
    ----------
    names
        (C,) rising int64, or text as objects: the classes that have rows.
    codes
        (n,) int64 places in ``names``, -1 for a row without a label.
    counts
        (C,) int64 rows of each class.
    """

    names: NDArray[Any]
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def unlabelled(self) -> int:
        """Rows without a label."""
        return int(np.count_nonzero(self.codes < 0))

    @classmethod
    def of(cls, labels: Any) -> ClassCodes:
        """From (n,) whole numbers, where negative ones are no label; or text, where None or an empty one is none.

        NumPy arrays, Arrow arrays and lists.

        Raises
        ------
        InputError
            Another shape or type.
        """
        values = _array_of(labels)
        if values.ndim != 1:
            raise InputError(f"labels: expected shape (n,), one label a row, got {values.shape}")
        if values.dtype.kind in "iub":
            there = values >= 0
            names, inverse = np.unique(values[there].astype(np.int64), return_inverse=True)
        elif values.dtype.kind in "SU":
            there = values != values.dtype.type()
            names, inverse = np.unique(values[there], return_inverse=True)
        elif values.dtype.kind == "O":
            there = np.array([value is not None and value != "" for value in values.tolist()], np.bool_)
            wrong = next((value for value in values[there].tolist() if not isinstance(value, str)), None)
            if wrong is not None:
                raise InputError(f"labels: expected whole numbers or text, got {wrong!r}")
            names, inverse = np.unique(values[there].astype(str), return_inverse=True)
        else:
            raise InputError(
                f"labels: expected whole numbers or text, got {values.dtype}; numbers with a fraction are no classes: "
                "convert them on purpose, missing ones to -1"
            )
        codes = np.full(len(values), -1, np.int64)
        codes[there] = inverse
        counts = np.bincount(inverse, minlength=len(names)).astype(np.int64)
        return cls(names, codes, counts)


def _array_of(labels: Any) -> NDArray[Any]:
    if isinstance(labels, pa.Array | pa.ChunkedArray):
        if pa.types.is_integer(labels.type):
            return np.asarray(labels.fill_null(-1).to_numpy(zero_copy_only=False) if isinstance(labels, pa.Array)
                              else labels.fill_null(-1).to_numpy())  # fmt: skip
        return np.array(labels.to_pylist(), object)
    array = np.asarray(labels)
    return array if array.dtype.kind != "U" or isinstance(labels, np.ndarray) else np.asarray(labels, object)
