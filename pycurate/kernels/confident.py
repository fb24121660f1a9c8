"""Confident learning's passes over class probabilities: sums by label, a summary of each row, candidates by margin.

Probabilities are (n, k) float16, float32 or float64, the elements of a row adjacent, rows any stride apart, k >= 1, and
are read as float64 exactly; labels are (n,) int64 below k, negative where a row has none. Every result has the same
bits for any number of threads, any cut into blocks of rows and any instruction set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate._core import confident as _confident
from pycurate.kernels.arrays import thread_count_of
from pycurate.reference.confident import RowSummary

__all__ = ["ClassSums", "MarginCandidates", "RowSummary", "entropies", "self_probabilities", "summarise_rows"]


def summarise_rows(
    pred_probs: NDArray[Any], labels: NDArray[np.int64], bounds: NDArray[np.float64], threads: int | None = None
) -> RowSummary:
    """What the probabilities of each row say, see `RowSummary`; ``bounds`` (k,) are the classes' thresholds."""
    return RowSummary(*_confident.summarise(pred_probs, labels, bounds, thread_count_of(threads)))


def entropies(pred_probs: NDArray[Any], threads: int | None = None) -> NDArray[np.float64]:
    """(n,) minus the sum of p log p of each row; what is below 2^-1000 counts as 0."""
    return _confident.entropies(pred_probs, thread_count_of(threads))


def self_probabilities(
    pred_probs: NDArray[Any], labels: NDArray[np.int64], threads: int | None = None
) -> NDArray[np.float64]:
    """(n,) the probability of each row's label, NaN without one. Reads one element a row."""
    return _confident.self_probabilities(pred_probs, labels, thread_count_of(threads))


class ClassSums:
    """Sums of the labels' own probabilities by class, compensated, and counts; rows are added in their order."""

    def __init__(self, classes: int) -> None:
        self._sums, self._rests = np.zeros(classes), np.zeros(classes)
        self.counts = np.zeros(classes, np.int64)

    def add(self, self_probability: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        """Rows that follow those added before."""
        _confident.add_class_sums(self_probability, labels, self._sums, self._rests, self.counts)

    @property
    def sums(self) -> NDArray[np.float64]:
        """(k,) so far."""
        return self._sums + self._rests


class MarginCandidates:
    """Of the rows of each class, those of largest margin towards some other classes.

    The pairs of class k are (k, columns[p]) for p from ``offsets[k]`` to ``offsets[k + 1]``; pair (k, j) wants
    ``wanted[p]`` rows labelled k, those of largest p[j] - p[k], or of smallest p[k] where j is k; of equal ones the
    lower rows. Memory is 32 bytes for each wanted row.

    Parameters
    ----------
    offsets
        (k + 1,) int64 from 0.
    columns, wanted
        (pairs,) int32 classes and int64 numbers of rows, at least 1.
    """

    def __init__(self, offsets: NDArray[np.int64], columns: NDArray[np.int32], wanted: NDArray[np.int64]) -> None:
        self._kept = _confident.MarginCandidates(offsets, columns, wanted)

    def add(
        self, pred_probs: NDArray[Any], labels: NDArray[np.int64], first_row: int, threads: int | None = None
    ) -> None:
        """Rows ``first_row``, ``first_row + 1`` and so on."""
        self._kept.add(pred_probs, labels, first_row, thread_count_of(threads))

    def rows(self) -> NDArray[np.int64]:
        """The rows that any pair wants, pair by pair, each pair's in no order."""
        return self._kept.rows()
