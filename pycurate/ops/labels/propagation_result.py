"""From the values that labels spread to, to labels, distributions and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.graph import LABELLED, NO_LABEL
from pycurate.ops.labels.propagation_seeds import LabelSeeds
from pycurate.ops.labels.propagation_settings import PropagationSettings

_BLOCK_VALUES = 1 << 21  # float64 values at a time: some 64 MB with what is made of them


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """What labels spread to.

    Attributes
    ----------
    labels
        (n,) int64: the class of the largest value, ties to the lower class; -1 where no label came.
    confidence
        (n,) float32, 1 - H / ln C of a row's distribution (1 where it is all one class, 0 where no label came). Of
        multi-label values the mean over classes of 1 - H / ln 2 of each.
    margin
        (n,) float32: the largest share less the second; 0 where no label came. Of multi-label values the least
        \\|2 p - 1\\|.
    mass
        (n,) float32: how much came, the sum of a row's values; smaller the farther the seeds.
    distributions
        (n, C) float32 or float64 rows that sum to 1, or 0 where no label came. Of multi-label values the share, from 0
        to 1, of the seeds that reach a row that have the class. None where rows keep their largest values only.
    top
        (n, L) of a uint32 ``label`` and a float32 ``value``, larger first, shares of what was kept; ``label`` is
        2^32 - 1 behind the last. None where there are distributions.
    classes
        C.
    residual
        The sum of \\|alpha S F + B - F\\| relative to that of B: of the state before the last sweep, or, by conjugate
        gradients, of the last.
    sweeps, converged
        How many, and whether ``residual`` came down to ``tol``.
    residuals
        (sweeps,) float64, one for each.
    unseeded
        Classes that no seed has, and no row gets.
    loops
        Edges from a row to itself, which were left out.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    mass: NDArray[np.float32]
    distributions: NDArray[Any] | None
    top: NDArray[np.void] | None
    classes: int
    residuals: NDArray[np.float64]
    converged: bool
    unseeded: NDArray[np.int64]
    loops: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sweeps(self) -> int:
        """How many there were."""
        return len(self.residuals)

    @property
    def residual(self) -> float:
        """The last of ``residuals``; 0 where there was none."""
        return float(self.residuals[-1]) if len(self.residuals) else 0.0

    @property
    def unreached(self) -> int:
        """Rows to which no label came: in parts of the graph without a seed, or farther from one than sweeps reach."""
        return int((self.labels < 0).sum())

    @property
    def row_weights(self) -> NDArray[np.float32]:
        """(n,) confidence over the largest: the weights of rows of Iscen et al. (2019); 0 where no label came."""
        largest = self.confidence.max(initial=0)
        return self.confidence if largest == 0 else self.confidence / largest

    @property
    def class_weights(self) -> NDArray[np.float64]:
        """(C,) n / (C n_c) of the n rows that got a label, n_c of them class c (Iscen et al., 2019); 0 for none."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=self.classes)
        return np.where(counts > 0, counts.sum() / (self.classes * np.maximum(counts, 1)), 0.0)

    def sentences(self) -> list[str]:
        """What a user should know: sweeps, rows without a label, classes without seeds, loops."""
        done = "" if self.converged else ", not yet what was asked for"
        lines = [f"{self.sweeps} sweeps, residual {self.residual:.2g}{done}"]
        if self.unreached:
            lines.append(
                f"{self.unreached:,} rows got no label: no path of {self.sweeps} edges or fewer leads to a seed"
            )
        if len(self.unseeded):
            shown = ", ".join(str(number) for number in self.unseeded[:5].tolist())
            more = f" and {len(self.unseeded) - 5:,} more" if len(self.unseeded) > 5 else ""
            lines.append(f"no seed has class {shown}{more}, so no row gets it")
        if self.loops:
            lines.append(f"{self.loops:,} edges from a row to itself were left out")
        return lines


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRows:
    """Consecutive rows of a `Propagation`."""

    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    mass: NDArray[np.float32]
    shares: NDArray[Any]  # distributions, or top


def finished_rows(
    state: NDArray[Any], seeds: LabelSeeds, settings: PropagationSettings, prior: NDArray[np.float64] | None
) -> Iterator[tuple[slice, FinishedRows]]:
    """Blocks of rows of the last state, (n, width) or (n, L), as they are handed out."""
    factors = class_factors(state, seeds, settings, prior)
    width = 4 * state.shape[1] if settings.top is not None else state.shape[1]
    step = max(1, _BLOCK_VALUES // width)
    for first in range(0, len(state), step):
        rows = slice(first, min(first + step, len(state)))
        if settings.top is not None:
            yield rows, _finish_top(state[rows], seeds.classes, factors)
        elif seeds.multi_label:
            yield rows, _finish_many(state[rows], seeds.classes, settings.dtype)
        else:
            yield rows, _finish_dense(state[rows], seeds.classes, factors, settings.dtype)


def checked_prior(prior: Any, seeds: LabelSeeds, settings: PropagationSettings) -> NDArray[np.float64] | None:
    """(C,) shares of the classes for balance="mass": ``prior``, or those of the seeds; None for another balance."""
    if settings.balance != "mass":
        if prior is not None:
            raise InputError("prior: it is what balance='mass' gives each class; pass that, too, or no prior")
        return None
    if prior is None:
        return np.asarray(seeds.weight_of_class / seeds.weight_of_class.sum(), np.float64)
    share = np.asarray(prior, np.float64)
    if share.shape != (seeds.classes,) or not ((share >= 0) & (share < np.inf)).all() or not share.any():
        raise InputError(f"prior: expected {seeds.classes} numbers from 0 on, not all 0, got {share}")
    return np.asarray(share / share.sum(), np.float64)


def class_factors(
    state: NDArray[Any], seeds: LabelSeeds, settings: PropagationSettings, prior: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """What the values of each class are multiplied by in the end; None for nothing."""
    if prior is None:
        return None
    total = np.zeros(seeds.classes)
    step = max(1, _BLOCK_VALUES // state.shape[1])
    for first in range(0, len(state), step):
        part = state[first : first + step]
        if settings.top is None:
            total += np.maximum(part[:, : seeds.classes], 0).sum(axis=0, dtype=np.float64)
        else:
            there = part["label"] != NO_LABEL
            total += np.bincount(part["label"][there], part["value"][there], seeds.classes)
    return np.divide(prior, total, out=np.zeros_like(total), where=total > 0)


def _finish_dense(state: NDArray[Any], classes: int, factors: NDArray[np.float64] | None, dtype: str) -> FinishedRows:
    values = np.maximum(state[:, :classes].astype(np.float64), 0)  # solvers end a little below 0 here and there
    if factors is not None:
        values *= factors
    sums = values.sum(axis=1)
    reached = sums > 0
    shares = values / np.where(reached, sums, 1)[:, None]
    labels = np.where(reached, shares.argmax(axis=1), -1)
    second = np.partition(shares, -2, axis=1)[:, -2] if classes > 1 else np.zeros(len(shares))
    return FinishedRows(
        labels.astype(np.int64),
        _confidence(shares, reached, classes),
        (shares.max(axis=1, initial=0) - second).astype(np.float32),
        sums.astype(np.float32),
        shares.astype(dtype),
    )


def _finish_many(state: NDArray[Any], classes: int, dtype: str) -> FinishedRows:
    values = np.maximum(state[:, : classes + 1].astype(np.float64), 0)
    mass = values[:, classes]
    reached = mass > 0
    shares = np.clip(values[:, :classes] / np.where(reached, mass, 1)[:, None], 0, 1)
    other = 1 - shares
    entropy = -(shares * _logarithm(shares) + other * _logarithm(other)) / np.log(2)
    return FinishedRows(
        np.where(reached, shares.argmax(axis=1), -1).astype(np.int64),
        np.where(reached, np.clip(1 - entropy.mean(axis=1), 0, 1), 0).astype(np.float32),
        np.where(reached, np.abs(2 * shares - 1).min(axis=1), 0).astype(np.float32),
        mass.astype(np.float32),
        shares.astype(dtype),
    )


def _finish_top(state: NDArray[np.void], classes: int, factors: NDArray[np.float64] | None) -> FinishedRows:
    kept = np.array(state, LABELLED)
    values = kept["value"].astype(np.float64)
    if factors is not None:
        there = kept["label"] != NO_LABEL
        values[there] *= factors[kept["label"][there]]
        order = np.lexsort((kept["label"], -values), axis=1)
        values = np.take_along_axis(values, order, axis=1)
        kept["label"] = np.take_along_axis(kept["label"], order, axis=1)
    sums = values.sum(axis=1)
    reached = sums > 0
    shares = values / np.where(reached, sums, 1)[:, None]
    kept["value"] = shares
    second = shares[:, 1] if shares.shape[1] > 1 else np.zeros(len(shares))
    return FinishedRows(
        np.where(reached, kept["label"][:, 0].astype(np.int64), -1),
        _confidence(shares, reached, classes),
        (shares[:, 0] - second).astype(np.float32),
        sums.astype(np.float32),
        kept,
    )


def _confidence(shares: NDArray[np.float64], reached: NDArray[np.bool_], classes: int) -> NDArray[np.float32]:
    if classes == 1:
        return reached.astype(np.float32)
    entropy = -(shares * _logarithm(shares)).sum(axis=1) / np.log(classes)
    return np.where(reached, np.clip(1 - entropy, 0, 1), 0).astype(np.float32)


def _logarithm(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of 0 a number that 0 times it is 0."""
    return np.log(np.maximum(shares, np.finfo(np.float64).tiny))
