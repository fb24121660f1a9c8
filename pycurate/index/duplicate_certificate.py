"""How many near-duplicates an approximate join loses: measured on a seeded sample of rows against brute force."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.index.certificate import lower_recall_bound
from pycurate.index.sampling import uniforms

Verdict: TypeAlias = Literal["proven", "holds", "fails", "undecided"]

CONFIDENCE = 0.95
LOOKS = 3
"""A sample that grows until a bound decides is looked at several times, and each look may err: 5 % are split among at
most three. A look is taken only when there are positives enough for it to succeed, so most samples need one."""
RESAMPLES = 1000
_BOOTSTRAP_STREAM = 5
_DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class DuplicateCertificate:
    """Of the rows that have a near-duplicate, how many keep one.

    Rows are distinct ones: copies with the same bits are found by their bytes, and would only flatter the recall. A
    sampled row is *positive* when brute force finds another row at or above the threshold, and *lost* when the join
    compared it with none of those.

    Attributes
    ----------
    method
        What was certified, in words.
    verdict
        ``proven``: nothing can be missed, and nothing was sampled. ``holds``, ``fails``: the recall is at least
        ``target``, or below it, at ``confidence``. ``undecided``: the sample says neither.
    recall
        1 - lost / positives; 1 where there are no positives.
    lower_bound, upper_bound
        One-sided bounds of Clopper and Pearson (1934) of the recall over all rows, at a confidence of 1 - (1 -
        ``confidence``) / 3, because the sample may be looked at three times while it grows; the recall itself where
        every row was sampled.
    rows, population
        Sampled rows, and how many there are.
    pairs, missed_pairs
        Pairs of the positives at or above the threshold, and those never compared.
    missed_share_bound
        Upper bound of missed_pairs / pairs at ``confidence``, by a seeded bootstrap over positive rows; 0 without a
        missed pair, which a bootstrap cannot see beyond, and then ``lower_bound`` is what counts.
    """

    method: str
    threshold: float
    target: float
    verdict: Verdict
    recall: float
    lower_bound: float
    upper_bound: float
    confidence: float
    rows: int
    population: int
    positives: int
    lost: int
    pairs: int
    missed_pairs: int
    missed_share_bound: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        at = f"at or above {self.threshold:g}"
        if self.verdict == "proven":
            return f"{self.method}: no pair {at} can be missed"
        counts = f"{self.lost:,} of {self.positives:,} lost theirs, {self.rows:,} of {self.population:,} rows sampled"
        if self.rows == self.population:
            return f"{self.method}: {self.recall:.4%} of the rows with a near-duplicate {at} keep one ({counts})"
        bound = f"at least {self.lower_bound:.4%} of the rows with a near-duplicate {at} keep one"
        pairs = f"{self.missed_pairs:,} of {self.pairs:,} pairs missed"
        if self.missed_pairs:
            pairs += f", at most {self.missed_share_bound:.4%}"
        measured = f"{bound}, with {self.confidence:.0%} confidence ({counts}; {pairs})"
        if self.verdict != "undecided":
            return f"{self.method}: {measured}"
        return (
            f"{self.method}: a recall of {self.target:g} is not certifiable with {self.positives:,} positives, "
            f"{least_positives(self.target):,} are needed where none is lost; {measured}"
        )


def proven(method: str, threshold: float, target: float, population: int, seed: int) -> DuplicateCertificate:
    """Of a join that compares every pair that may matter."""
    return DuplicateCertificate(
        method, threshold, target, "proven", 1.0, 1.0, 1.0, CONFIDENCE, 0, population, 0, 0, 0, 0, 0.0, seed
    )


def duplicate_certificate(
    pairs: NDArray[np.int64],
    found: NDArray[np.int64],
    *,
    method: str,
    threshold: float,
    target: float,
    rows: int,
    population: int,
    seed: int,
) -> DuplicateCertificate:
    """The certificate of a sample.

    Parameters
    ----------
    pairs, found
        (positives,) true near-duplicates of each positive row, at least 1, and how many of them the join compared it
        with.
    rows, population
        Sampled rows, positive or not, and all rows.
    """
    positives, hits = len(pairs), int(np.count_nonzero(found))
    recall = hits / positives if positives else 1.0
    look = 1 - (1 - CONFIDENCE) / LOOKS
    lower, upper = lower_recall_bound(hits, positives, look), 1 - lower_recall_bound(positives - hits, positives, look)
    if rows >= population:
        lower = upper = recall
    verdict: Verdict = "holds" if lower >= target else "fails" if upper < target else "undecided"
    return DuplicateCertificate(
        method,
        threshold,
        target,
        verdict,
        recall,
        lower,
        upper,
        CONFIDENCE,
        rows,
        population,
        positives,
        positives - hits,
        int(pairs.sum()),
        int((pairs - found).sum()),
        missed_share_bound(pairs, pairs - found, seed),
        seed,
    )


def least_positives(target: float) -> float:
    """Positives without a loss that a look needs to certify ``target``; infinity for 1."""
    if target >= 1:
        return math.inf
    return 0 if target <= 0 else math.ceil(math.log((1 - CONFIDENCE) / LOOKS) / math.log(target))


def missed_share_bound(pairs: NDArray[np.int64], missed: NDArray[np.int64], seed: int) -> float:
    """The 95 % quantile of missed pairs / pairs among 1,000 seeded resamples of the rows, with replacement.

    Pairs of one row are found or missed together, so rows are resampled, not pairs (Efron, 1979).
    """
    rows = len(pairs)
    if not missed.any():
        return 0.0
    shares = np.empty(RESAMPLES)
    step = max(1, _DRAWN_AT_ONCE // rows)
    for begin in range(0, RESAMPLES, step):
        end = min(RESAMPLES, begin + step)
        numbers = np.arange(begin * rows, end * rows, dtype=np.uint64)
        drawn = (uniforms(numbers, seed, _BOOTSTRAP_STREAM) * rows).astype(np.int64).reshape(-1, rows)
        shares[begin:end] = missed[drawn].sum(axis=1) / pairs[drawn].sum(axis=1)
    return float(np.sort(shares)[math.ceil(CONFIDENCE * RESAMPLES) - 1])
