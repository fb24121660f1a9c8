"""Balanced subsets in plain Python: the definitions that ``ops.selection`` is tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def water_filling(sizes: Sequence[int], total: int, floors: Sequence[int]) -> tuple[list[int], int]:
    """Quotas and the cap: raise the cap by one as long as the budget bears it, then hand out what is left.

    A class of c rows with floor m keeps min(c, max(m, cap)); what is left goes, a row each, to the classes above the
    cap with most rows left out, ties to the lower class.
    """

    def quotas_at(cap: int) -> list[int]:
        return [min(size, max(floor, cap)) for size, floor in zip(sizes, floors, strict=True)]

    cap = 0
    while cap < max(sizes, default=0) and sum(quotas_at(cap + 1)) <= total:
        cap += 1
    quotas = quotas_at(cap)
    grows = [c for c in range(len(sizes)) if sizes[c] > max(floors[c], cap)]
    grows.sort(key=lambda c: (quotas[c] - sizes[c], c))
    for c in grows[: total - sum(quotas)]:
        quotas[c] += 1
    return quotas, cap


def class_caps(labels: Sequence[Any], caps: dict[Any, int], keys: Sequence[Any], uids: Sequence[int]) -> list[bool]:
    """Rows to keep: of each class those of lowest key, ties to the lower uid. None is no label, and no key."""
    keep = [False] * len(labels)
    for name, cap in caps.items():
        rows = [row for row, label in enumerate(labels) if label == name and keys[row] is not None]
        rows.sort(key=lambda row: (keys[row], uids[row]))
        for row in rows[:cap]:
            keep[row] = True
    return keep


def gini(sizes: Sequence[int]) -> float:
    """Half the mean difference between two classes, each with each, over their mean."""
    values = np.asarray(sizes, np.float64)
    return float(np.abs(values[:, None] - values[None, :]).mean() / (2 * values.mean()))


def repeat_factor(classes: Sequence[int], rows_with: dict[int, int], rows: int, threshold: float) -> float:
    """LVIS: the largest sqrt(threshold / f) of a row's classes, at least 1, with f the share of rows with a class."""
    return max([1.0, *(float((threshold * rows / rows_with[c]) ** 0.5) for c in classes)])


def keep_probability(entries: Sequence[int], rows_with: dict[int, int], limit: int) -> float:
    """MetaCLIP: 1 - product of 1 - min(1, limit / rows with an entry), over the entries that a row matches."""
    missed = 1.0
    for entry in sorted(set(entries)):
        missed *= 1 - min(1.0, limit / rows_with[entry])
    return 1 - missed
