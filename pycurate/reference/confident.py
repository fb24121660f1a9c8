"""What labels and class probabilities say about each other, in plain NumPy: the definition that ``kernels.confident``
must equal.

Probabilities are (n, k) float16, float32 or float64 and are read as float64 exactly; labels are (n,) integers below k,
negative where a row has none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SUM_LANES, _ENTROPY_LANES = 16, 8
_LEAST_PROBABILITY = 2.0**-1000


class RowSummary(NamedTuple):
    """What one pass says of each row; each array is (n,).

    ``self_probability`` float64, NaN without a label; ``largest_other`` float64, the largest probability of another
    class than the label's, -inf where there is none; ``predicted`` int32, the first class of largest probability;
    ``guess`` int32, the class whose probability is not below its bound, ``predicted`` where several are, -1 where none
    is; ``sums`` float64, of the row, in float32 but for float64 rows; ``least`` float64, the smallest probability.
    """

    self_probability: NDArray[np.float64]
    largest_other: NDArray[np.float64]
    predicted: NDArray[np.int32]
    guess: NDArray[np.int32]
    sums: NDArray[np.float64]
    least: NDArray[np.float64]


def summarise_rows(pred_probs: NDArray[Any], labels: NDArray[np.int64], bounds: NDArray[np.float64]) -> RowSummary:
    """The summary of each row; ``bounds`` (k,)."""
    wide = pred_probs.astype(np.float64)
    confident = wide >= bounds
    predicted = wide.argmax(axis=1)
    several, single = confident.sum(axis=1) > 1, confident.any(axis=1)
    guess = np.where(several, predicted, np.where(single, confident.argmax(axis=1), -1))
    labelled = labels >= 0
    others = wide.copy()
    others[np.flatnonzero(labelled), labels[labelled]] = -np.inf
    return RowSummary(
        self_probabilities(pred_probs, labels) + 0.0,
        others.max(axis=1, initial=-np.inf) + 0.0,
        predicted.astype(np.int32),
        guess.astype(np.int32),
        _lane_sums(pred_probs.astype(np.float32) if pred_probs.dtype == np.float16 else pred_probs, _SUM_LANES),
        wide.min(axis=1, initial=np.inf) + 0.0,
    )


def self_probabilities(pred_probs: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) the probability of each row's label, NaN without one."""
    own = pred_probs[np.arange(len(labels)), np.maximum(labels, 0)].astype(np.float64)
    return np.where(labels < 0, np.nan, own)


def add_class_sums(
    self_probability: NDArray[np.float64],
    labels: NDArray[np.int64],
    sums: NDArray[np.float64],
    rests: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    """Add rows in order to (k,) sums by label, compensated (Neumaier): ``sums + rests`` is the total."""
    for label, p in zip(labels.tolist(), self_probability.tolist(), strict=True):
        if label >= 0:
            old = float(sums[label])
            total = old + p
            rests[label] += (old - total) + p if abs(old) >= abs(p) else (p - total) + old
            sums[label] = total
            counts[label] += 1


def entropies(pred_probs: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) minus the sum of p log p of each row; what is below 2^-1000 counts as 0. The kernels' logarithm is within 2
    units in the last place of NumPy's."""
    wide = pred_probs.astype(np.float64)
    counted = wide >= _LEAST_PROBABILITY
    return -_lane_sums(np.where(counted, wide * np.log(np.where(counted, wide, 1.0)), 0.0), _ENTROPY_LANES)


def largest_margins(
    pred_probs: NDArray[Any], labels: NDArray[np.int64], given: int, towards: int, wanted: int
) -> NDArray[np.int64]:
    """The ``wanted`` rows labelled ``given`` of largest p[towards] - p[given], or of smallest p[given] where the two
    are one class; of equal ones the lower rows. The largest first."""
    rows = np.flatnonzero(labels == given)
    own = pred_probs[rows, given].astype(np.float64)
    margin = 0.0 - own if towards == given else pred_probs[rows, towards].astype(np.float64) - own
    return rows[np.argsort(-margin, kind="stable")][:wanted]


def _lane_sums(values: NDArray[Any], lanes: int) -> NDArray[np.float64]:
    """(n,) sums: lane l takes columns l (mod lanes) in rising order, lanes folded from the upper half on."""
    n, k = values.shape
    sums = np.zeros((n, lanes), values.dtype)
    for j in range(k):
        sums[:, j % lanes] += values[:, j]
    while lanes > 1:
        lanes //= 2
        sums = sums[:, :lanes] + sums[:, lanes : 2 * lanes]
    return sums[:, 0].astype(np.float64)
