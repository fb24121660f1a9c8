"""What a joint of given and true labels says of each class, and which classes are taken for each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycurate.ops.labels.joint import square


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """Of each class, (K,): ``given`` and ``true`` rows, int64; ``noise`` P(true is another|given), ``missing``
    P(given is another|true) and ``quality`` 1 - noise, float64, NaN for a class without rows."""

    given: NDArray[np.int64]
    true: NDArray[np.int64]
    noise: NDArray[np.float64]
    missing: NDArray[np.float64]
    quality: NDArray[np.float64]


class Confusion(NamedTuple):
    """Rows labelled ``given`` that are likely ``likely``."""

    given: int
    likely: int
    rows: int


def class_quality(joint: NDArray[Any]) -> ClassQuality:
    """Figures of each class.

    Parameters
    ----------
    joint
        (K, K) calibrated counts, given by true, as `pycurate.compute_confident_joint` returns.
    """
    counts = square("joint", joint)
    given, true, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    noise, missing = (
        1 - np.divide(right, total, out=np.full(len(counts), np.nan), where=total > 0) for total in (given, true)
    )
    return ClassQuality(given.astype(np.int64), true.astype(np.int64), noise, missing, 1 - noise)


def largest_confusions(joint: NDArray[Any], count: int) -> list[Confusion]:
    """The ``count`` largest entries off the diagonal, largest first; of equal ones by given, then likely class."""
    counts = square("joint", joint)
    given, likely = np.nonzero(counts)
    off = given != likely
    given, likely = given[off], likely[off]
    order = np.argsort(-counts[given, likely], kind="stable")[:count]
    return [Confusion(int(i), int(j), int(counts[i, j])) for i, j in zip(given[order], likely[order], strict=True)]
