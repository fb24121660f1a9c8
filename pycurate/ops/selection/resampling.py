"""How often to take a row: more often where its classes are rare (repeat factors), less where its entries are common.

Both are rules of a row alone, given the counts: fractions are rounded by a hash of the row's uid, so that the outcome
does not depend on other rows, their order or the number of shards.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.selection.uid_draws import uid_uniforms, uids_or_rows
from pycurate.types import UidArray

Floats: TypeAlias = NDArray[np.float64]

__all__ = ["Repeats", "balanced_entries", "entry_keep_probabilities", "repeat_factors", "repeat_rows"]


def repeat_factors(counts: Any, rows: int, threshold: float, *, power: float = 0.5) -> Floats:
    """(C,) how often a row of each class is taken: max(1, (threshold / f)^power) with f = counts / rows.

    Parameters
    ----------
    counts
        (C,) rows that have the class; 0 gives 1, as no row asks.
    rows
        All rows.
    threshold
        Share of the rows, above 0 and at most 1, below which classes are taken more often.
    power
        0.5 as in LVIS; 1 makes every class below the threshold as frequent as it.

    References
    ----------
    Gupta, Dollar, Girshick: LVIS: a dataset for large vocabulary instance segmentation (2019).
    """
    _check_share("threshold", threshold)
    if not 0 <= power <= 1:
        raise InputError(f"power: expected a number from 0 to 1, got {power!r}")
    sizes = np.asarray(counts)
    if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or int(sizes.min()) < 0)):
        raise InputError(f"counts: expected (C,) whole numbers of at least 0, got {sizes.shape} of {sizes.dtype}")
    if sizes.size and int(sizes.max()) > rows:
        raise InputError(f"rows: expected at least the {int(sizes.max()):,} rows of the largest class, got {rows:,}")
    with np.errstate(divide="ignore"):
        factors = np.maximum(1.0, (threshold * rows / sizes) ** power)
    return np.where(sizes > 0, factors, 1.0)


class Repeats(NamedTuple):
    """How often each row is taken."""

    times: NDArray[np.int64]
    """(n,) at least 1."""
    factors: Floats
    """(n,) what ``times`` is on average: the largest factor of the row's classes, 1 without a class."""


def repeat_rows(
    labels: NDArray[np.integer[Any]],
    threshold: float,
    *,
    power: float = 0.5,
    uids: UidArray | None = None,
    seed: int = 0,
) -> Repeats:
    """Repeat factor sampling: rows of rare classes are taken several times.

    Parameters
    ----------
    labels
        (n,) classes, or (n, m) several a row; negative is none, a class twice in a row counts once.
    threshold, power
        As `repeat_factors` takes them. A row takes the largest factor of its classes, r; it is taken floor(r) times,
        and once more where the uid's uniform draw is below the rest.
    uids, seed
        As `class_caps` takes them.
    """
    classes, n = _padded(labels)
    counts = _rows_with(classes)
    factors = np.concatenate([repeat_factors(counts, n, threshold, power=power), [1.0]])
    own = factors[np.where(classes >= 0, classes, len(factors) - 1)].max(axis=1, initial=1.0)
    whole = np.floor(own)
    more = uid_uniforms(uids_or_rows(uids, n), seed) < own - whole
    return Repeats(whole.astype(np.int64) + more, own)


def entry_keep_probabilities(entries: NDArray[np.integer[Any]], limit: int, counts: Any = None) -> Floats:
    """(n,) MetaCLIP's probability to keep a row: 1 - product over its entries e of (1 - min(1, limit / counts[e])).

    Parameters
    ----------
    entries
        (n, m) the entries that a row's text matches, negative where there are no more; an entry twice counts once.
    limit
        t: 20,000 for 400M pairs, 170,000 for 2.5B. Entries of no more rows are kept whole.
    counts
        (E,) rows that match each entry, in the whole pool; by default in ``entries``.

    References
    ----------
    Xu et al.: Demystifying CLIP data (2023).
    """
    found, _ = _padded(entries)
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
        raise InputError(f"limit: expected a whole number of at least 1, got {limit!r}")
    sizes = _rows_with(found) if counts is None else np.asarray(counts)
    largest = int(found.max(initial=-1))
    if sizes.ndim != 1 or len(sizes) <= largest:
        raise InputError(f"counts: expected one for each entry up to {largest}, got shape {sizes.shape}")
    with np.errstate(divide="ignore"):
        misses = np.append(1 - np.minimum(1.0, limit / sizes.astype(np.float64)), 1.0)
    ordered = np.sort(found, axis=1)  # equal entries side by side
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    missed: Floats = misses[np.where(ordered >= 0, ordered, len(misses) - 1)].prod(axis=1, initial=1.0)
    return 1 - missed


def balanced_entries(
    entries: NDArray[np.integer[Any]],
    limit: int,
    counts: Any = None,
    *,
    uids: UidArray | None = None,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """(n,) rows to keep: where the uid's uniform draw is below `entry_keep_probabilities`."""
    probabilities = entry_keep_probabilities(entries, limit, counts)
    return uid_uniforms(uids_or_rows(uids, len(probabilities)), seed) < probabilities


def _padded(labels: Any) -> tuple[NDArray[np.int64], int]:
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"labels: expected (n,) or (n, m) whole numbers, got {array.shape} of {array.dtype}")
    made = array.astype(np.int64)
    return (made[:, None] if made.ndim == 1 else made), len(made)


def _rows_with(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C,) rows that have each class."""
    ordered = np.sort(classes, axis=1)
    first = np.ones(ordered.shape, np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.bincount(ordered[first & (ordered >= 0)]).astype(np.int64)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise InputError(f"{name}: expected a share above 0 and at most 1, got {value!r}")
