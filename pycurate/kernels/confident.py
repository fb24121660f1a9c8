"""Confident learning's passes over class probabilities: sums by label, a summary of each row, candidates by margin.

Probabilities are (n, k) float16, float32 or float64, the elements of a row adjacent, rows any stride apart, k >= 1, and
are read as float64 exactly; labels are (n,) int64 below k, negative where a row has none. Every result has the same
bits for any number of threads, any cut into blocks of rows, any instruction set and on a GPU. Probabilities may also be
a tensor in the memory of a GPU, which is then read where it lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate._core import confident as _confident
from pycurate.kernels import device as devices
from pycurate.kernels.arrays import thread_count_of
from pycurate.reference.confident import RowSummary

__all__ = [
    "ClassSums",
    "MarginCandidates",
    "RowSummary",
    "entropies",
    "on_host",
    "self_probabilities",
    "summarise_rows",
]


def summarise_rows(
    pred_probs: Any,
    labels: NDArray[np.int64],
    bounds: NDArray[np.float64],
    threads: int | None = None,
    device: str | None = None,
) -> RowSummary:
    """What the probabilities of each row say, see `RowSummary`; ``bounds`` (k,) are the classes' thresholds.

    ``device``, here and below: see `pycurate.kernels.device.device_of`; but ``"auto"`` is the CPU for an array of the
    CPU's memory, whose cores read it there as fast as it could come to a GPU.
    """
    there = _on_gpu(pred_probs, device)
    if there is not None:
        return RowSummary(*there.summarise(labels, bounds))
    return RowSummary(*_confident.summarise(on_host(pred_probs), labels, bounds, thread_count_of(threads)))


def entropies(pred_probs: Any, threads: int | None = None, device: str | None = None) -> NDArray[np.float64]:
    """(n,) minus the sum of p log p of each row; what is below 2^-1000 counts as 0."""
    there = _on_gpu(pred_probs, device)
    if there is not None:
        sums: NDArray[np.float64] = there.entropies()
        return sums
    return _confident.entropies(on_host(pred_probs), thread_count_of(threads))


def self_probabilities(
    pred_probs: Any, labels: NDArray[np.int64], threads: int | None = None, device: str | None = None
) -> NDArray[np.float64]:
    """(n,) the probability of each row's label, NaN without one. Reads one element a row.

    An array of the CPU's memory is read there, whatever the device: one element a row is not worth the others' way.
    """
    there = _on_gpu(pred_probs, device) if devices.lies_on_gpu(pred_probs) else None
    if there is not None:
        own: NDArray[np.float64] = there.self_probabilities(labels)
        return own
    return _confident.self_probabilities(on_host(pred_probs), labels, thread_count_of(threads))


def on_host(pred_probs: Any) -> NDArray[Any]:
    """Probabilities in the CPU's memory: as they are, or a copy of what lies on a GPU."""
    if not devices.lies_on_gpu(pred_probs):
        array: NDArray[Any] = pred_probs
        return array
    if devices.cuda_support().fallback:
        copy: NDArray[Any] = pred_probs.get() if hasattr(pred_probs, "get") else pred_probs.cpu().numpy()
        return copy
    rows: NDArray[Any] = _lent(pred_probs).host()
    return rows


def _on_gpu(pred_probs: Any, device: str | None) -> Any:
    """Probabilities as the kernels of a GPU read them; None where the CPU does."""
    if device == "auto" and not devices.lies_on_gpu(pred_probs):
        return None
    place = devices.device_of(device, pred_probs)
    if place is None or devices.cuda_support().fallback:
        return None
    if devices.lies_on_gpu(pred_probs):
        return _lent(pred_probs)
    return devices.cuda_kernels().Probabilities.of_host(pred_probs, place[0])


def _lent(pred_probs: Any) -> Any:
    if not hasattr(pred_probs, "__dlpack__"):
        raise TypeError("pred_probs: expected a tensor that DLPack lends; pass torch.as_tensor(pred_probs)")
    return devices.cuda_kernels().Probabilities.lend(devices.capsule_of(pred_probs), "pred_probs")


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

    def add(self, pred_probs: Any, labels: NDArray[np.int64], first_row: int, threads: int | None = None) -> None:
        """Rows ``first_row``, ``first_row + 1`` and so on; what lies on a GPU is copied from there."""
        self._kept.add(on_host(pred_probs), labels, first_row, thread_count_of(threads))

    def rows(self) -> NDArray[np.int64]:
        """The rows that any pair wants, pair by pair, each pair's in no order."""
        return self._kept.rows()
