"""Balanced subsets: how many rows of each class to keep, and which.

Water-filling keeps all of the small classes and the same number of every other one: with a cap x a class of size c
keeps min(c, x), and x is as large as a total budget allows. It is the flattest subset of that size. Vo et al. (2024)
apply it level by level to hierarchical clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.selection.class_codes import ClassCodes
from pycurate.ops.selection.uid_draws import uid_keys, uids_or_rows
from pycurate.types import UidArray

Counts: TypeAlias = NDArray[np.int64]

__all__ = ["BalancedRows", "WaterFilling", "class_caps", "hierarchical_water_filling", "water_filling"]


class WaterFilling(NamedTuple):
    """How many rows each class keeps."""

    quotas: Counts
    """(C,) rows to keep of each class."""
    cap: int
    """The largest equal cap that the budget allows; the largest class where it allows everything."""
    spare: int
    """Rows of the budget beyond that cap: so many classes, those with most rows left out, keep one more."""


def water_filling(counts: Any, total: int, *, floors: Any = 0) -> WaterFilling:
    """The largest equal cap such that no more than ``total`` rows are kept.

    A class of c rows with floor m keeps min(c, max(m, cap)). Exact in integers. What the cap leaves of the budget goes,
    a row each, to the classes with most rows left out, ties to the lower class, so that min(total, all rows) are kept.

    Parameters
    ----------
    counts
        (C,) rows of each class, whole numbers of at least 0.
    total
        Rows to keep, at least 1.
    floors
        Rows to keep of a class at least, if it has so many: a number, or (C,) of them.

    Raises
    ------
    InputError
        The floors alone are more than ``total``, or a number is not as above.
    """
    sizes = _counts_of("counts", counts)
    least = np.minimum(sizes, np.broadcast_to(_counts_of("floors", floors), sizes.shape))
    _require_whole("total", total, 1)
    needed = int(least.sum())
    if needed > total:
        raise InputError(
            f"total: expected at least the {needed:,} rows that the floors ask for, got {total:,}; raise total or "
            "lower floors"
        )

    def kept(cap: int) -> int:
        return int(np.minimum(sizes, np.maximum(least, cap)).sum())

    low, high = 0, int(sizes.max(initial=0))  # kept(low) <= total always
    if kept(high) <= total:
        return WaterFilling(sizes, high, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if kept(middle) <= total else (low, middle)
    quotas = np.minimum(sizes, np.maximum(least, low))
    spare = total - int(quotas.sum())
    left_out = np.where(sizes > np.maximum(least, low), sizes - quotas, 0)
    quotas[np.argsort(-left_out, kind="stable")[:spare]] += 1
    return WaterFilling(quotas, low, spare)


def hierarchical_water_filling(counts: Any, parents: Sequence[Any], total: int) -> Counts:
    """(C,) rows to keep of each finest class, by water-filling from the coarsest level of a hierarchy down.

    Parameters
    ----------
    counts
        (C,) rows of each finest class.
    parents
        From the finest level up: for each class of a level, its class of the level above. ``parents[0]`` is (C,).
    total
        Rows to keep. It is shared out among the coarsest classes by `water_filling`, each one's share among its own
        classes likewise, and so on.

    References
    ----------
    Vo et al.: Automatic data curation for self-supervised learning: a clustering-based approach (2024).
    """
    sizes = [_counts_of("counts", counts)]
    links = []
    for level, parent in enumerate(parents):
        link = _counts_of(f"parents[{level}]", parent)
        if len(link) != len(sizes[-1]):
            raise InputError(f"parents[{level}]: expected {len(sizes[-1])} classes as the level below, got {len(link)}")
        links.append(link)
        sizes.append(np.bincount(link, weights=sizes[-1].astype(np.float64)).astype(np.int64))
    quotas = water_filling(sizes[-1], total).quotas
    for link, below in zip(reversed(links), reversed(sizes[:-1]), strict=True):
        shared = np.zeros(len(below), np.int64)
        for above in np.flatnonzero(quotas).tolist():
            own = np.flatnonzero(link == above)
            shared[own] = water_filling(below[own], int(quotas[above])).quotas
        quotas = shared
    return quotas


class BalancedRows(NamedTuple):
    """Which rows are kept, and how many of each class that is."""

    keep: NDArray[np.bool_]
    """(n,)"""
    names: NDArray[Any]
    """(C,) the classes, rising."""
    counts: Counts
    """(C,) rows of each."""
    kept: Counts
    """(C,) rows kept of each."""
    unlabelled: int
    """Rows without a label: none is kept."""
    unscored: int
    """Rows with a label whose score is NaN: none is kept."""


def class_caps(
    labels: Any,
    caps: int | Mapping[Any, int] | NDArray[np.integer[Any]],
    *,
    scores: NDArray[Any] | None = None,
    uids: UidArray | None = None,
    seed: int = 0,
) -> BalancedRows:
    """At most so many rows of each class: those of highest score, or drawn at random by their uids.

    Parameters
    ----------
    labels
        (n,) whole numbers (negative: no label) or text (None, empty: no label), of NumPy, Arrow or a list.
    caps
        One for all classes, at least 1; or by class, where classes that are not named keep everything and 0 keeps
        nothing; or (C,) in rising order of the classes that have rows, as ``quotas`` of `water_filling` are.
    scores
        (n,) numbers: the highest are kept, ties to the lower uid. By default the lowest of a hash of uid and seed.
    uids
        (n,) of dtype 'u8,u8'. By default the row numbers.
    seed
        Of the hash.

    Raises
    ------
    InputError
        A cap is 0 or negative, a named class has no row, or an array is not as above.
    """
    classes = ClassCodes.of(labels)
    n = len(classes.codes)
    ids = uids_or_rows(uids, n)
    quotas = _quotas_of(caps, classes)
    judged = classes.codes >= 0
    if scores is None:
        order_key: NDArray[Any] = uid_keys(ids, seed)
    else:
        values = np.asarray(scores)
        if values.shape != (n,) or values.dtype.kind not in "fiub":
            raise InputError(f"scores: expected ({n},) numbers, got {values.shape} of {values.dtype}")
        judged &= ~np.isnan(values) if values.dtype.kind == "f" else True
        # Whole numbers keep every digit: their complement falls as they rise.
        order_key = -values if values.dtype.kind == "f" else ~values
    rows = np.flatnonzero(judged)
    order = rows[np.lexsort((ids["f1"][rows], ids["f0"][rows], order_key[rows], classes.codes[rows]))]
    sizes = np.bincount(classes.codes[rows], minlength=len(classes.names))
    firsts = np.cumsum(sizes) - sizes
    place = np.arange(len(order)) - firsts[classes.codes[order]]
    kept = order[place < quotas[classes.codes[order]]]
    keep = np.zeros(n, np.bool_)
    keep[kept] = True
    kept_counts = np.bincount(classes.codes[kept], minlength=len(classes.names)).astype(np.int64)
    unscored = n - classes.unlabelled - len(rows)
    return BalancedRows(keep, classes.names, classes.counts, kept_counts, classes.unlabelled, unscored)


def _quotas_of(caps: Any, classes: ClassCodes) -> Counts:
    if isinstance(caps, Mapping):
        quotas = classes.counts.copy()
        known = {name: place for place, name in enumerate(classes.names.tolist())}
        for name, cap in caps.items():
            if name not in known:
                raise InputError(f"caps: class {name!r} has no row; the {len(known):,} that have begin {_some(known)}")
            _require_whole(f"caps[{name!r}]", cap, 0)
            quotas[known[name]] = cap
        return quotas
    if np.ndim(caps) == 0:
        _require_whole("caps", caps, 1)
        return np.full(len(classes.names), int(caps), np.int64)
    quotas = _counts_of("caps", caps)
    if len(quotas) != len(classes.names):
        raise InputError(
            f"caps: expected one for each of the {len(classes.names):,} classes with rows, got {len(quotas):,}"
        )
    return quotas


def _some(names: Mapping[Any, int]) -> str:
    return ", ".join(repr(name) for name in list(names)[:5])


def _require_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        hint = "; a cap of 0 keeps nothing" if name == "caps" and value == 0 else ""
        raise InputError(f"{name}: expected a whole number of at least {least}, got {value!r}{hint}")


def _counts_of(name: str, given: Any) -> Counts:
    array = np.asarray(given)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name}: expected whole numbers, got {array.dtype}")
    if array.ndim > 1 or (array.ndim == 0 and name != "floors"):
        raise InputError(f"{name}: expected shape (C,), one number a class, got {array.shape}")
    if array.size and int(array.min()) < 0:
        raise InputError(f"{name}: expected numbers of at least 0, got {int(array.min())}")
    return array.astype(np.int64)
