"""Dawid-Skene: true classes and every annotator's confusion matrix from votes alone, by expectation maximisation.

Dawid, Skene: Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, Applied Statistics 1979.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.labels.annotator_votes import VoteBlock, VoteBlocks, Votes, log_scores


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """What `dawid_skene` found.

    ``prior`` (K,) P(true); ``confusion`` (M, K, K) P(vote|true) of each annotator, rows (true) sum to 1;
    ``log_likelihood`` of the votes after each iteration; ``converged`` whether the last gained less than the tolerance.
    ``labels`` (n,) int64 the most probable class, of equal ones the lowest, -1 without votes; ``confidence`` (n,)
    float64 its probability, 0 without votes.
    """

    prior: NDArray[np.float64]
    confusion: NDArray[np.float64]
    log_likelihood: tuple[float, ...]
    converged: bool
    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def predict_proba(self, votes: Votes) -> NDArray[np.float64]:
        """(n, K) P(true|votes) of these or other rows by the same annotators; the prior without votes."""
        blocks = VoteBlocks(votes, len(self.prior))
        if blocks.annotators != len(self.confusion):
            raise InputError(f"votes: expected {len(self.confusion)} annotators, got {blocks.annotators}")
        found = np.empty((blocks.rows, len(self.prior)))
        log_prior, log_confusion = _logarithms(self.prior, self.confusion)
        for block in blocks:
            found[block.first : block.first + block.rows] = _expected(block, log_prior, log_confusion)[0]
        return found


def dawid_skene(
    votes: Votes,
    num_classes: int | None = None,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    smoothing: float = 0.01,
) -> DawidSkene:
    """Estimate true classes and annotators' confusion together.

    Begins with each row's share of votes; then, in turn, prior and confusion matrices from the rows' probabilities, and
    these from them. Memory: M K^2 numbers and two a row; votes are read once an iteration.

    Parameters
    ----------
    votes
        See `Votes`.
    num_classes
        K. None: one more than the largest vote.
    max_iterations
        At most so many.
    tolerance
        Ends when the log-likelihood gains less than this times its size.
    smoothing
        Votes added to every cell of a confusion matrix, so that what was never seen stays possible.
    """
    if max_iterations < 1 or tolerance < 0 or smoothing <= 0:
        raise InputError("max_iterations, tolerance, smoothing: expected at least 1, from 0 and above 0")
    blocks = VoteBlocks(votes, num_classes)
    if blocks.num_classes < 2:
        raise InputError(f"votes: expected at least two classes, got {blocks.num_classes}; pass num_classes")
    prior, confusion = _first_estimate(blocks, smoothing)
    history: list[float] = []
    converged = False
    for _ in range(max_iterations):
        log_prior, log_confusion = _logarithms(prior, confusion)
        statistics = _Statistics(blocks)
        total = 0.0
        for block in blocks:
            probabilities, log_likelihood = _expected(block, log_prior, log_confusion)
            total += log_likelihood
            statistics.add(block, probabilities)
        history.append(total)
        prior, confusion = statistics.estimates(smoothing)
        if len(history) > 1 and history[-1] - history[-2] <= tolerance * abs(history[-1]):
            converged = True
            break
    labels, confidence = np.full(blocks.rows, -1, np.int64), np.zeros(blocks.rows)
    log_prior, log_confusion = _logarithms(prior, confusion)
    for block in blocks:
        probabilities, _ = _expected(block, log_prior, log_confusion)
        voted = np.bincount(block.row, minlength=block.rows) > 0
        part = slice(block.first, block.first + block.rows)
        labels[part] = np.where(voted, probabilities.argmax(axis=1), -1)
        confidence[part] = np.where(voted, probabilities.max(axis=1), 0.0)
    return DawidSkene(prior, confusion, tuple(history), converged, labels, confidence)


class _Statistics:
    """Sums of probabilities by class, and by annotator, vote and class: all that an iteration keeps of the rows."""

    def __init__(self, blocks: VoteBlocks) -> None:
        self._shape = (blocks.annotators, blocks.num_classes, blocks.num_classes)
        self._by_vote = np.zeros((blocks.annotators * blocks.num_classes, blocks.num_classes))
        self._by_class = np.zeros(blocks.num_classes)

    def add(self, block: VoteBlock, probabilities: NDArray[np.float64]) -> None:
        voted = np.bincount(block.row, minlength=block.rows) > 0
        self._by_class += probabilities[voted].sum(axis=0)
        place = block.annotator * self._shape[1] + block.label
        for true in range(self._shape[1]):
            self._by_vote[:, true] += np.bincount(place, probabilities[block.row, true], len(self._by_vote))

    def estimates(self, smoothing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        prior = self._by_class + smoothing
        confusion = self._by_vote.reshape(self._shape).transpose(0, 2, 1) + smoothing
        return prior / prior.sum(), confusion / confusion.sum(axis=2, keepdims=True)


def _first_estimate(blocks: VoteBlocks, smoothing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    statistics = _Statistics(blocks)
    for block in blocks:
        counts = blocks.counts(block)
        total = counts.sum(axis=1, keepdims=True)
        statistics.add(block, np.divide(counts, total, out=np.zeros_like(counts), where=total > 0))
    return statistics.estimates(smoothing)


def _logarithms(
    prior: NDArray[np.float64], confusion: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log P(true), and (M, K, K) log P(vote|true) by annotator, vote and class."""
    return np.log(prior), np.log(confusion.transpose(0, 2, 1))


def _expected(
    block: VoteBlock, log_prior: NDArray[np.float64], log_confusion: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """(rows, K) P(true|votes), and the log-likelihood of the block's votes."""
    scores = log_scores(block, log_prior, log_confusion)
    highest = scores.max(axis=1, keepdims=True)
    likelihood = np.exp(scores - highest)
    total = likelihood.sum(axis=1, keepdims=True)
    voted = np.bincount(block.row, minlength=block.rows) > 0
    return likelihood / total, float((highest + np.log(total))[voted].sum())
