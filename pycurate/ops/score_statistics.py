"""Mergeable statistics of a score column: counts, range, mean and a histogram for display.

Everything in the state is an integer or an extreme, so the merged result is the same bits whatever the number, the
size and the order of the shards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError

FINE_BINS = 65_536
_CHUNK = 1 << 20  # sums of 27-bit halves over a chunk stay below 2**53: exact in bincount's float64
_UNIT_EXPONENT = 1127  # the total counts units of 2**-1127, below which no bit of a float64 reaches


@dataclass(frozen=True, slots=True)
class ScoreStatistics:
    """Statistics of the finite values of a column.

    Attributes
    ----------
    count, missing, infinite : int
        Finite values, NaN, and positive or negative infinities.
    minimum, maximum : float
        Of the finite values; NaN without any.
    integral : bool
        True where every finite value is a whole number.
    total_units : int
        The exact sum of the finite values, in units of 2**-1127.
    fine_bins : ndarray
        (65536,) int64. Bin b holds the values whose float32 rounding has the order-preserving key b in its upper 16
        bits: a relative width of 1/128.
    """

    count: int = 0
    missing: int = 0
    infinite: int = 0
    minimum: float = float("nan")
    maximum: float = float("nan")
    integral: bool = True
    total_units: int = 0
    fine_bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(FINE_BINS, np.int64))

    @property
    def mean(self) -> float:
        """Mean of the finite values, rounded once from the exact sum; NaN without any."""
        return self.total_units / (self.count << _UNIT_EXPONENT) if self.count else float("nan")

    def merge(self, other: ScoreStatistics) -> ScoreStatistics:
        """Statistics of both columns together."""
        return ScoreStatistics(
            self.count + other.count,
            self.missing + other.missing,
            self.infinite + other.infinite,
            float(np.fmin(self.minimum, other.minimum)),
            float(np.fmax(self.maximum, other.maximum)),
            self.integral and other.integral,
            self.total_units + other.total_units,
            self.fine_bins + other.fine_bins,
        )

    def display_bins(
        self, count: int = 80, include: tuple[float, ...] = ()
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """A histogram of about ``count`` bins for people, made of whole fine bins, so that its counts are exact.

        Bins have nearly equal widths over the range of the middle 99 % of the values and ``include`` (thresholds that
        must be in sight). What lies far outside is in one wider bin at either end. Whole numbers get bins that begin
        and end halfway between two of them.

        Returns
        -------
        edges : ndarray
            (m + 1,) float64, rising. Both arrays are empty without finite values.
        counts : ndarray
            (m,) int64, summing to ``self.count``.
        """
        if not self.count:
            return np.empty(0), np.empty(0, np.int64)
        low, high = self._range_in_sight(include)
        wanted = _whole_edges(low, high, count) if self.integral else np.linspace(low, high, count + 1)
        starts = _fine_bin(wanted)  # rising, as the edges are
        starts = starts[np.diff(starts, prepend=-1) > 0]
        first, final = _fine_bin(np.array([self.minimum, self.maximum]))
        starts = starts[(starts > first) & (starts <= final)]
        if not self.integral:
            starts = starts[_lower_edges(starts) < self.maximum]
        sums = np.concatenate(([0], np.cumsum(self.fine_bins)))[np.concatenate(([0], starts, [FINE_BINS]))]
        if self.integral:
            inner = np.ceil(_lower_edges(starts)) - 0.5
            edges = np.concatenate(([self.minimum - 0.5], inner, [self.maximum + 0.5]))
        else:
            last = self.maximum if self.maximum > self.minimum else np.nextafter(self.maximum, np.inf)
            edges = np.concatenate(([self.minimum], _lower_edges(starts), [last]))
        return edges, np.diff(sums).astype(np.int64)

    def _range_in_sight(self, include: tuple[float, ...]) -> tuple[float, float]:
        ranks = np.searchsorted(np.cumsum(self.fine_bins), [0.005 * self.count, 0.995 * self.count])
        low, high = (float(edge) for edge in _lower_edges(np.minimum(ranks + np.array([0, 1]), FINE_BINS - 1)))
        inside = [value for value in include if self.minimum <= value <= self.maximum]
        low, high = min([low, *inside]), max([high, *inside])
        margin = 0.4 * (high - low)
        low = self.minimum if low - margin <= self.minimum else low - 0.1 * (high - low)
        high = self.maximum if high + margin >= self.maximum else high + 0.1 * (high - low)
        return low, high


def score_statistics(values: NDArray[np.generic], mask: NDArray[np.bool_] | None = None) -> ScoreStatistics:
    """Statistics of one block or shard of a score column.

    Parameters
    ----------
    values : ndarray
        (n,) float16, float32, float64 or any integer or boolean dtype. Integers beyond 2**53 are rounded to float64.
    mask : ndarray, optional
        (n,) bool: only these rows count. Default: all.

    Raises
    ------
    InputError
        Where the dtype holds no numbers or ``mask`` has another shape.
    """
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise InputError(f"values: expected a 1-D array of numbers, got {values.dtype} of shape {values.shape}")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != values.shape):
        raise InputError(f"mask: expected bool of shape {values.shape}, got {mask.dtype} of shape {mask.shape}")
    result = ScoreStatistics()
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        part = part if mask is None else part[mask[start : start + _CHUNK]]
        result = result.merge(_chunk_statistics(part.astype(np.float64)))
    return result


def _chunk_statistics(values: NDArray[np.float64]) -> ScoreStatistics:
    finite = values[np.isfinite(values)]
    missing = int(np.isnan(values).sum())
    infinite = len(values) - len(finite) - missing
    if not len(finite):
        return ScoreStatistics(missing=missing, infinite=infinite)
    return ScoreStatistics(
        count=len(finite),
        missing=missing,
        infinite=infinite,
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        integral=bool((finite == np.rint(finite)).all()),
        total_units=_exact_total(finite),
        fine_bins=np.bincount(_fine_bin(finite), minlength=FINE_BINS).astype(np.int64),
    )


def _exact_total(values: NDArray[np.float64]) -> int:
    """Sum of finite float64 values in units of 2**-1127: per exponent, sums of both halves of the 53-bit integers."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    place = (exponent + (_UNIT_EXPONENT - 53)).astype(np.int64)  # value = whole << place; >= 0 down to 2**-1074
    high = np.bincount(place, weights=(whole >> 27).astype(np.float64))
    low = np.bincount(place, weights=(whole & ((1 << 27) - 1)).astype(np.float64))
    used = np.flatnonzero((high != 0) | (low != 0))
    return sum(((int(high[p]) << 27) + int(low[p])) << int(p) for p in used)


def _fine_bin(values: NDArray[np.float64]) -> NDArray[np.int64]:
    limit = np.finfo(np.float32).max
    rounded = np.clip(values, -limit, limit).astype(np.float32) + np.float32(0)  # -0 counts as 0
    bits = rounded.view(np.uint32)
    key = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(0x8000_0000))
    return (key >> 16).astype(np.int64)


def _lower_edges(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    key = bins.astype(np.uint32) << 16
    bits = np.where(key >> 31 == 1, key & np.uint32(0x7FFF_FFFF), ~key)
    return bits.view(np.float32).astype(np.float64)


def _whole_edges(low: float, high: float, count: int) -> NDArray[np.float64]:
    step = max(1.0, np.ceil((high - low) / count))
    return np.arange(np.floor(low), high + step, step)
