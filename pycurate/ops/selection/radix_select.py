"""Exact "top n of a pool" over any number of shards, with 512 KB of state and no sort.

Radix selection from the highest digit down: each pass counts, shard by shard, one 16-bit digit of the order-preserving
key of the rows whose earlier digits are known; the counts of all shards add up, in any order, and say which bin holds
the wanted rank. Two passes settle float32, four float64. Where several rows tie at the threshold and only some may
stay, further passes select among their uids in the same way.

A driver looks like this::

    select = RadixSelect(n, "exact", np.dtype(np.float32))
    while not select.done:
        select.advance(sum(select.count(values, uids, mask) for values, uids, mask in shards))
    keep = select.cut.keep(values, uids, mask)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.threshold import BINS, count_digit, key_digits, value_of_key
from pycurate.types import UID_DTYPE, UidArray

Ties: TypeAlias = Literal["exact", "datacomp"]
"""What happens to rows whose score equals the threshold. ``exact``: exactly n rows stay, of the tied ones those with
the smallest uids. ``datacomp``: score >= descending scores[n], so n + 1 rows and every tied one, as DataComp's
``apply_filter.py`` does; n >= rows keeps all (an IndexError there)."""

_UID_DIGITS = key_digits(UID_DTYPE)


def fraction_count(fraction: float, total: int) -> int:
    """``int(total * fraction)``, in Python's float64 arithmetic, as the public script counts."""
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction: expected a number from 0 to 1, got {fraction}")
    return int(total * fraction)


@dataclass(frozen=True, slots=True)
class TopCut:
    """Which rows a finished `RadixSelect` keeps; a few numbers, JSON-able by `to_dict`.

    Attributes
    ----------
    threshold
        The smallest value kept; -inf when every row stays, None when none does.
    competed
        Rows that took part: those of the masks that are not NaN.
    last_uid
        Of the rows equal to ``threshold``, those with a uid up to and including this one stay, as 32 hex digits; None
        when all of them stay.
    last_uid_rows
        How many rows with both this value and this uid stay at most, the first in order of (shard, row). Drops none
        unless the pool has one uid several times.
    """

    threshold: float | None
    competed: int
    last_uid: str | None = None
    last_uid_rows: int = 0

    @property
    def needs_uids(self) -> bool:
        """Whether `keep` looks at uids."""
        return self.last_uid is not None

    def keep(
        self,
        values: NDArray[Any],
        uids: UidArray | None = None,
        mask: NDArray[np.bool_] | None = None,
        duplicates_before: int = 0,
    ) -> NDArray[np.bool_]:
        """(n,) True for the rows of one shard that are among the top; False where ``mask`` is, and for NaN.

        Parameters
        ----------
        values, uids, mask
            As `RadixSelect.count` saw them; ``uids`` may be None unless `needs_uids`.
        duplicates_before
            The sum of `duplicates` over the earlier shards, in order of their paths. Only a pool that has one uid
            several times needs it.
        """
        if self.threshold is None:
            return np.zeros(len(values), np.bool_)
        kept: NDArray[np.bool_] = values >= values.dtype.type(self.threshold)
        if mask is not None:
            kept &= mask
        if self.last_uid is None:
            return kept
        tied = np.flatnonzero(kept & (values == values.dtype.type(self.threshold)))
        high, low = (_require(uids)[word][tied] for word in ("f0", "f1"))
        last_high, last_low = self._last
        last = (high == last_high) & (low == last_low)
        stays = (high < last_high) | ((high == last_high) & (low < last_low))
        stays |= last & (duplicates_before + np.cumsum(last) <= self.last_uid_rows)
        kept[tied] = stays
        return kept

    def duplicates(
        self, values: NDArray[Any], uids: UidArray | None = None, mask: NDArray[np.bool_] | None = None
    ) -> int:
        """How many competing rows of one shard have both the threshold's value and ``last_uid``."""
        if self.threshold is None or self.last_uid is None:
            return 0
        tied = values == values.dtype.type(self.threshold)
        chosen = _require(uids)[tied if mask is None else tied & mask]
        return int(np.count_nonzero((chosen["f0"] == self._last[0]) & (chosen["f1"] == self._last[1])))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` gives an equal cut."""
        threshold = self.threshold
        infinite = threshold is not None and not np.isfinite(threshold)
        return {
            "threshold": str(threshold) if infinite else threshold,  # JSON has no infinity
            "competed": self.competed,
            "last_uid": self.last_uid,
            "last_uid_rows": self.last_uid_rows,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TopCut:
        """The cut that `to_dict` wrote."""
        threshold = value["threshold"]
        return cls(**{**value, "threshold": None if threshold is None else float(threshold)})

    @property
    def _last(self) -> tuple[np.uint64, np.uint64]:
        assert self.last_uid is not None
        return np.uint64(int(self.last_uid[:16], 16)), np.uint64(int(self.last_uid[16:], 16))


class RadixSelect:
    """Finds the `TopCut` of the n largest values in passes over the shards.

    In each pass `count` every shard (in any order, in threads or processes: it changes nothing), add the counts up, and
    `advance` once with the sum, until `done`.

    Parameters
    ----------
    n
        Rows to keep; more than there are keeps all.
    ties
        See `Ties`.
    dtype
        float32 or float64: of every shard's values. Values are compared in it, never rounded.
    """

    def __init__(self, n: int, ties: Ties, dtype: np.dtype[Any]) -> None:
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise InputError(f"dtype: expected float32 or float64, got {dtype}")
        if n < 0:
            raise InputError(f"n: expected at least 0 rows to keep, got {n}")
        if ties not in ("exact", "datacomp"):
            raise InputError(f"ties: expected 'exact' or 'datacomp', got {ties!r}")
        self._dtype, self._ties, self._n = dtype, ties, n
        self._rank = n + 1 if ties == "datacomp" else n  # from the top, within the rows still open
        self._digit = 0
        self._prefix = 0
        self._threshold: float | None = None  # once known, digits are those of uids
        self._competed = 0
        self._cut: TopCut | None = None

    @property
    def done(self) -> bool:
        """Whether `cut` is known."""
        return self._cut is not None

    @property
    def cut(self) -> TopCut:
        """The result."""
        if self._cut is None:
            raise InputError("cut: the selection is not done; call count on every shard and advance until it is")
        return self._cut

    @property
    def needs_uids(self) -> bool:
        """Whether the next pass looks at uids; before, `count` may be given None for them."""
        return self._threshold is not None

    def count(
        self, values: NDArray[Any], uids: UidArray | None = None, mask: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """(65536,) what this pass needs to know of one shard.

        Parameters
        ----------
        values
            (n,) of the dtype of the selection; NaN does not compete.
        uids
            (n,); only looked at when `needs_uids`.
        mask
            (n,) True where a row competes; None: all.
        """
        if values.dtype != self._dtype:
            raise InputError(f"values: expected dtype {self._dtype} as in the other shards, got {values.dtype}")
        if self._threshold is None:
            return count_digit(values, self._digit, self._prefix, mask)
        tied = values == self._dtype.type(self._threshold)
        return count_digit(_require(uids)[tied if mask is None else tied & mask], self._digit, self._prefix)

    def advance(self, total: NDArray[np.int64]) -> None:
        """Take the sum of the counts of all shards and go on to the next pass."""
        if self._cut is not None:
            raise InputError("advance: the selection is done")
        if total.shape != (BINS,):
            raise InputError(f"total: expected shape ({BINS},), got {total.shape}")
        if self._threshold is None:
            self._advance_value(total)
        else:
            self._advance_uid(total)

    def _advance_value(self, total: NDArray[np.int64]) -> None:
        rows = int(total.sum())
        if self._digit == 0:
            self._competed = rows
            if self._n == 0 and self._ties == "exact":
                self._finish(None)
                return
            if self._n >= rows:
                self._finish(float("-inf") if rows else None)
                return
        at_or_above = np.cumsum(total[::-1])[::-1]
        bin_ = int(np.flatnonzero(at_or_above >= self._rank)[-1])
        self._rank -= int(at_or_above[bin_] - total[bin_])
        self._prefix = self._prefix << 16 | bin_
        self._digit += 1
        if self._digit < key_digits(self._dtype):
            return
        threshold = value_of_key(self._prefix, self._dtype)
        if self._ties == "datacomp" or self._rank == total[bin_]:
            self._finish(threshold)
        else:
            self._threshold, self._digit, self._prefix = threshold, 0, 0

    def _advance_uid(self, total: NDArray[np.int64]) -> None:
        up_to = np.cumsum(total)
        bin_ = int(np.flatnonzero(up_to >= self._rank)[0])
        self._rank -= int(up_to[bin_] - total[bin_])
        self._prefix = self._prefix << 16 | bin_
        self._digit += 1
        if self._digit == _UID_DIGITS or self._rank == total[bin_]:
            # A bin that stays whole needs no further digit: its largest possible uid cuts just as well.
            missing = 16 * (_UID_DIGITS - self._digit)
            last = (self._prefix + 1 << missing) - 1
            self._finish(self._threshold, f"{last:032x}", self._rank)

    def _finish(self, threshold: float | None, last_uid: str | None = None, last_uid_rows: int = 0) -> None:
        self._cut = TopCut(threshold, self._competed, last_uid, last_uid_rows)


def _require(uids: UidArray | None) -> UidArray:
    if uids is None:
        raise InputError("uids: expected the uids of the rows, as several rows tie at the threshold; got None")
    return uids
