"""What is known before labels spread: hard, soft or multi-label seeds as a few labels a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.graph import SeedRows

SUM_TOLERANCE = 1e-3
"""Soft labels may be float16: 1,000 classes of 11 bits add up to 1 within 2^-11."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class LabelSeeds:
    """Known labels, compressed by row.

    Attributes
    ----------
    indptr, labels, values
        (n + 1,) uint64, (s,) uint32 and (s,) float64 above 0.
    classes
        How many there are.
    known
        (n,) bool: rows with a label. In multi-label seeds also those that are known to have none.
    multi_label
        Classes are independent of each other, and a column behind them counts the seeds that reach a row.
    """

    indptr: NDArray[np.uint64]
    labels: NDArray[np.uint32]
    values: NDArray[np.float64]
    classes: int
    known: NDArray[np.bool_]
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.known)

    @property
    def columns(self) -> int:
        """Columns of a dense state: the classes, and one more for multi-label seeds."""
        return self.classes + self.multi_label

    @property
    def weight_of_class(self) -> NDArray[np.float64]:
        """(columns,) float64 sums of the seeds' values."""
        return np.bincount(self.labels, self.values, self.columns).astype(np.float64)

    @property
    def unseeded(self) -> NDArray[np.int64]:
        """Classes that no seed has."""
        return np.flatnonzero(self.weight_of_class[: self.classes] == 0)

    def rows(self, factor: float, *, per_class: bool, dtype: str, clamp: bool) -> SeedRows:
        """What a sweep adds: the values times ``factor``, ``per_class`` divided by the sum of their class."""
        values = self.values * factor
        if per_class:
            values = values / self.weight_of_class[self.labels]
        return SeedRows(self.indptr, self.labels, values.astype(dtype), self.known.astype(np.uint8) if clamp else None)


def seeds_of(labels: Any, n: int, classes: int | None, multi_label: bool) -> LabelSeeds:
    """``labels`` as a user has them (see `propagate_labels`), checked.

    Raises
    ------
    InputError
        Says which row is wrong, and how.
    """
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != n:
        raise InputError(
            f"labels: expected one for each of the {n:,} rows of the graph, (n,) integers or (n, classes) floats, got "
            f"shape {array.shape}"
        )
    if classes is not None and classes < 1:
        raise InputError(f"classes: expected at least 1, got {classes}")
    if array.ndim == 1:
        if multi_label:
            raise InputError("labels: multi_label=True takes (n, classes) values, got one integer a row")
        seeds = _hard(array, classes)
    else:
        if classes is not None and classes != array.shape[1]:
            raise InputError(f"classes: labels have {array.shape[1]} columns, got {classes}")
        seeds = _many(array) if multi_label else _soft(array)
    if not seeds.known.any():
        raise InputError("labels: no row has a label, so there is nothing to spread; -1 is an unlabelled row")
    return seeds


def _hard(labels: NDArray[Any], classes: int | None) -> LabelSeeds:
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"labels: expected integers, -1 for an unlabelled row, got dtype {labels.dtype}; number the names of "
            "classes with numpy.unique(..., return_inverse=True)"
        )
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (-1, -1)
    limit = classes if classes is not None else high + 1
    if low < -1 or high >= limit:
        row = int(np.flatnonzero((labels < -1) | (labels >= limit))[0])
        raise InputError(f"labels: expected -1 or a class from 0 to {limit - 1}, got {labels[row]} at row {row:,}")
    if high >= np.iinfo(np.uint32).max:
        raise InputError(f"labels: expected fewer than 2^32 - 1 classes, got {high}; number them from 0 on")
    known = labels >= 0
    counts = np.bincount(labels[known].astype(np.int64), minlength=max(limit, 1))
    if classes is None and (counts == 0).any() and known.any():
        missing = np.flatnonzero(counts == 0)
        raise InputError(
            f"labels: no row has {_named(missing)} of 0 to {limit - 1}, so none could get it; number classes without "
            f"gaps (numpy.unique), or pass classes={limit} to say that this is meant"
        )
    indptr = np.concatenate([np.zeros(1, np.uint64), np.cumsum(known, dtype=np.uint64)])
    return LabelSeeds(indptr, labels[known].astype(np.uint32), np.ones(int(known.sum())), max(limit, 1), known)


def _soft(labels: NDArray[Any]) -> LabelSeeds:
    values = _probabilities(labels)
    sums = values.sum(axis=1)
    known = sums != 0
    wrong = known & ~(np.abs(sums - 1) <= SUM_TOLERANCE)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"labels: expected rows that sum to 1, or to 0 where nothing is known, got {sums[row]:.6g} at row {row:,} "
            f"({int(wrong.sum()):,} such rows); divide rows by their sums, or pass multi_label=True"
        )
    return _compressed(values, known, False)


def _many(labels: NDArray[Any]) -> LabelSeeds:
    if labels.dtype.kind == "b":
        raise InputError(
            "labels: bool rows cannot say that nothing is known; pass int8 with -1 in rows without a label"
        )
    unknown = (labels == -1).all(axis=1) if labels.shape[1] else np.ones(len(labels), np.bool_)
    values = _probabilities(np.where(unknown[:, None], 0, labels))
    if values.max(initial=0) > 1:
        row = int(np.flatnonzero((values > 1).any(axis=1))[0])
        raise InputError(
            f"labels: expected values from 0 to 1, or -1 in a whole row, got {values[row].max()} at row {row:,}"
        )
    return _compressed(np.column_stack([values, ~unknown]), ~unknown, True)


def _probabilities(labels: NDArray[Any]) -> NDArray[np.float64]:
    if labels.dtype.kind not in "iuf" or labels.shape[1] == 0:
        raise InputError(f"labels: expected (n, classes) numbers, got shape {labels.shape} of {labels.dtype}")
    values = labels.astype(np.float64)
    wrong = ~((values >= 0) & (values < np.inf)).all(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"labels: expected finite values from 0 on, got {values[row].min()} at row {row:,}")
    return values


def _compressed(values: NDArray[np.float64], known: NDArray[np.bool_], multi_label: bool) -> LabelSeeds:
    there = values > 0
    indptr = np.concatenate([np.zeros(1, np.uint64), np.cumsum(there.sum(axis=1), dtype=np.uint64)])
    classes = values.shape[1] - multi_label
    return LabelSeeds(indptr, np.nonzero(there)[1].astype(np.uint32), values[there], classes, known, multi_label)


def _named(classes: NDArray[np.int64]) -> str:
    shown = ", ".join(str(number) for number in classes[:_SHOWN].tolist())
    more = f" and {len(classes) - _SHOWN:,} more" if len(classes) > _SHOWN else ""
    return f"class{'es' if len(classes) > 1 else ''} {shown}{more}"
