"""How unequal the classes of a pool are, in the figures that are usual for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.selection.class_codes import ClassCodes

RARE, COMMON = 10, 100
"""Rows of a class up to which it is rare, and common (LVIS: Gupta, Dollar and Girshick 2019); beyond, frequent."""
_LISTED = 10


@dataclass(frozen=True, slots=True)
class ClassImbalance:
    """Figures of the rows in each class; p is the share of a class among labelled rows.

    Attributes
    ----------
    rows, unlabelled
        All rows, and those without a label.
    classes
        Classes with rows.
    largest, smallest, median
        Rows of such classes.
    ratio
        largest / smallest.
    entropy
        -sum p ln p, in nats.
    evenness
        entropy / ln(classes): 1 where all are equally large, and where there is one class.
    effective_classes
        exp(entropy): so many equally large classes have the same entropy (Hill 1973).
    inverse_simpson
        1 / sum p^2: the same by the chance that two rows are of one class.
    gini
        Half the mean difference between two classes over their mean: 0 where all are equal, near 1 where one has all.
    half
        The least number of classes that hold half of the labelled rows.
    top_tenth_share
        Share of the labelled rows in the largest tenth of the classes (at least one).
    rare, common, frequent
        Classes of at most 10, 11 to 100, and more rows.
    head, tail
        The ten largest and the ten smallest classes: (name, rows), ties in order of names.
    """

    rows: int
    unlabelled: int
    classes: int
    largest: int
    smallest: int
    median: float
    ratio: float
    entropy: float
    evenness: float
    effective_classes: float
    inverse_simpson: float
    gini: float
    half: int
    top_tenth_share: float
    rare: int
    common: int
    frequent: int
    head: tuple[tuple[str, int], ...]
    tail: tuple[tuple[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def class_imbalance(labels: Any) -> ClassImbalance:
    """Figures of the classes of ``labels``, as `pycurate.class_caps` takes them.

    Raises
    ------
    InputError
        No row has a label, or ``labels`` is not such an array.
    """
    classes = ClassCodes.of(labels)
    return imbalance_of(classes.counts, classes.names, classes.unlabelled)


def imbalance_of(counts: NDArray[np.int64], names: NDArray[Any], unlabelled: int = 0) -> ClassImbalance:
    """The same from the rows of each class; classes without rows do not count."""
    there = counts > 0
    counts, names = counts[there], names[there]
    if not len(counts):
        raise InputError(f"labels: expected at least one row with a label, got none among {unlabelled:,} rows")
    falling = np.sort(counts)[::-1]
    total, number = int(counts.sum()), len(counts)
    shares = falling / total
    entropy = float(-(shares * np.log(shares)).sum()) + 0.0  # of one class -0
    rank = np.arange(number, 0, -1)
    order = np.argsort(-counts, kind="stable")
    listed = [(str(name), int(count)) for name, count in zip(names[order], counts[order], strict=True)]
    return ClassImbalance(
        rows=total + unlabelled,
        unlabelled=unlabelled,
        classes=number,
        largest=int(falling[0]),
        smallest=int(falling[-1]),
        median=float(np.median(counts)),
        ratio=float(falling[0] / falling[-1]),
        entropy=entropy,
        evenness=entropy / float(np.log(number)) if number > 1 else 1.0,
        effective_classes=float(np.exp(entropy)),
        inverse_simpson=float(1 / (shares * shares).sum()),
        gini=float(((2 * rank - number - 1) * falling).sum() / (number * total)),
        half=int(np.searchsorted(np.cumsum(falling), total / 2)) + 1,
        top_tenth_share=float(falling[: max(1, number // 10)].sum() / total),
        rare=int((counts <= RARE).sum()),
        common=int(((counts > RARE) & (counts <= COMMON)).sum()),
        frequent=int((counts > COMMON).sum()),
        head=tuple(listed[:_LISTED]),
        tail=tuple(listed[-_LISTED:]),
    )
