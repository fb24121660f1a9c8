"""Labels as the functions here take them: integers from 0, -1 for a row that has none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError

Labels = NDArray[np.int32]
UNLABELLED = -1
MOST_CLASSES = 1 << 30


def label_codes(labels: Any, rows: int | None, n_classes: int | None) -> tuple[Labels, int]:
    """(n,) int32 labels after a check, and how many classes there are.

    Parameters
    ----------
    labels
        (n,) integers from 0 to n_classes - 1, or -1 for a row without a label.
    rows
        How many there must be; None: any number.
    n_classes
        None: one more than the largest label.

    Raises
    ------
    InputError
        Another dtype, shape or value; names the first row.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"labels: expected integers from 0, and -1 for a row without a label, got dtype {array.dtype}; number the "
            "classes first, for instance with numpy.unique(labels, return_inverse=True)"
        )
    if array.ndim != 1 or (rows is not None and len(array) != rows):
        wanted = "a 1-D array" if rows is None else f"shape ({rows},), one label for each row"
        raise InputError(f"labels: expected {wanted}, got {array.shape}")
    largest = int(array.max(initial=-1))
    classes = largest + 1 if n_classes is None else int(n_classes)
    if not 0 <= classes <= MOST_CLASSES or (n_classes is not None and classes < 1):
        raise InputError(f"n_classes: expected from 1 to 2**30, got {n_classes if n_classes is not None else classes}")
    wrong = (array >= classes) | (array < UNLABELLED) if array.dtype.kind == "i" else array >= classes
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"labels: expected from 0 to {classes - 1}, or -1 for none, got {array[row]} in row {row}; number the "
            "classes from 0, or raise n_classes"
        )
    return array.astype(np.int32), classes


def require_classes(labels: Labels, n_classes: int, why: str) -> None:
    """InputError that names the classes without a labelled row."""
    counts = np.bincount(labels[labels >= 0], minlength=n_classes)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        shown = ", ".join(str(c) for c in empty[:5]) + (", ..." if len(empty) > 5 else "")
        noun = "class" if len(empty) == 1 else "classes"
        raise InputError(
            f"labels: {why}, but {noun} {shown} of {n_classes} {'has' if len(empty) == 1 else 'have'} none; number the "
            "classes that occur from 0 without gaps"
        )
