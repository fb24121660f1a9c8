"""A label model of labelling functions that may abstain, from how often they agree.

Ratner et al.: Training Complex Models with Multi-Task Weak Supervision, AAAI 2019, as Snorkel's ``LabelModel`` has it:
functions are independent given the true class, so that the block of O = E[l l^T] of two functions i, j is
mu_i diag(P) mu_j^T with mu_i = P(vote of i | true). Only O, (M K)^2 numbers, is kept of the rows. Where Snorkel
descends by gradient from a seed, each mu_i is here solved for in turn by least squares: no learning rate, no seed, the
same answer every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.labels.annotator_votes import VoteBlock, VoteBlocks, Votes, log_scores

_LEAST_FUNCTIONS = 3  # of two, O does not say which is right
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True)
class _Fit:
    prior: NDArray[np.float64]
    conditional: NDArray[np.float64]  # (M, K, K) P(vote|true) by vote and class; the rest of a column abstains
    coverage: NDArray[np.float64]


class LabelModel:
    """How far each labelling function can be trusted, and the classes that their votes make probable.

    Parameters
    ----------
    cardinality
        K classes.
    """

    def __init__(self, cardinality: int = 2) -> None:
        if cardinality < 2:
            raise InputError(f"cardinality: expected at least 2 classes, got {cardinality}")
        self.cardinality = cardinality
        self._fit: _Fit | None = None
        self.iterations = 0
        self.converged = False

    def fit(
        self,
        votes: Votes,
        class_balance: Any = None,
        *,
        prec_init: float = 0.7,
        max_iterations: int = 1000,
        tolerance: float = 1e-5,
    ) -> LabelModel:
        """Learn from votes, read once.

        Parameters
        ----------
        votes
            (n, M) with -1 for abstains, see `Votes`; M at least 3.
        class_balance
            (K,) P(true). None: uniform, as Snorkel takes it, which costs much where classes are not as frequent.
        prec_init
            How often a vote is right, to begin with: which of the model's mirror images is meant.
        max_iterations, tolerance
            Ends when no probability moves by more than ``tolerance``: ``converged`` and ``iterations`` say so after.
        """
        blocks = VoteBlocks(votes, self.cardinality)
        if blocks.annotators < _LEAST_FUNCTIONS:
            raise InputError(
                f"votes: expected at least {_LEAST_FUNCTIONS} labelling functions, got {blocks.annotators}"
            )
        if not blocks.rows:
            raise InputError("votes: expected at least one row, got none")
        prior = self._prior(class_balance)
        overlap = _overlaps(blocks) / blocks.rows
        m, k = blocks.annotators, self.cardinality
        frequency = overlap.diagonal().reshape(m, k)
        conditional = np.empty((m, k, k))
        for vote in range(k):
            for true in range(k):
                share = prec_init if vote == true else (1 - prec_init) / (k - 1)
                conditional[:, vote, true] = np.minimum(frequency[:, vote] * share / prior[true], 1.0)
        self.converged = False
        for self.iterations in range(1, max_iterations + 1):
            before = conditional.copy()
            for function in range(m):
                conditional[function] = _solved(function, overlap, conditional, prior, frequency[function])
            self.converged = bool(np.abs(conditional - before).max() <= tolerance)
            if self.converged:
                break
        self._fit = _Fit(prior, conditional, frequency.sum(axis=1))
        return self

    def predict_proba(self, votes: Votes) -> NDArray[np.float64]:
        """(n, K) P(true|votes), abstains passed over; the class balance where all abstain."""
        fit = self._fitted()
        blocks = self._blocks(votes, fit)
        found = np.empty((blocks.rows, self.cardinality))
        logs = np.log(np.maximum(fit.conditional, _LEAST_PROBABILITY))
        for block in blocks:
            found[block.first : block.first + block.rows] = _posterior(block, np.log(fit.prior), logs)
        return found

    def predict(self, votes: Votes, tie_break_policy: Literal["abstain", "lowest"] = "abstain") -> NDArray[np.int64]:
        """(n,) the most probable class, -1 where all abstain; of equal ones none (-1) or the lowest."""
        if tie_break_policy not in ("abstain", "lowest"):
            raise InputError(f"tie_break_policy: expected abstain or lowest, got {tie_break_policy!r}")
        fit = self._fitted()
        blocks = self._blocks(votes, fit)
        found = np.full(blocks.rows, -1, np.int64)
        logs = np.log(np.maximum(fit.conditional, _LEAST_PROBABILITY))
        for block in blocks:
            p = _posterior(block, np.log(fit.prior), logs)
            # 1e-5: how near the two largest may be that differ only by rounding, as Snorkel has it.
            tied = (p >= p.max(axis=1, keepdims=True) - 1e-5).sum(axis=1) > 1
            silent = np.bincount(block.row, minlength=block.rows) == 0
            skipped = silent | (tied if tie_break_policy == "abstain" else False)
            found[block.first : block.first + block.rows] = np.where(skipped, -1, p.argmax(axis=1))
        return found

    def get_weights(self) -> NDArray[np.float64]:
        """(M,) how often each function's votes are right, where it votes; NaN where it never does."""
        fit = self._fitted()
        right = np.einsum("mkk,k->m", fit.conditional, fit.prior)
        weights = np.divide(right, fit.coverage, out=np.full(len(right), np.nan), where=fit.coverage > 0)
        return np.asarray(weights.clip(0, 1))

    def get_conditional_probs(self) -> NDArray[np.float64]:
        """(M, K + 1, K) P(vote|true), first that the function abstains, then each vote; columns sum to 1."""
        fit = self._fitted()
        abstains = 1 - fit.conditional.sum(axis=1, keepdims=True)
        return np.concatenate([abstains, fit.conditional], axis=1)

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise InputError("LabelModel: expected fit(votes) before this call")
        return self._fit

    def _blocks(self, votes: Votes, fit: _Fit) -> VoteBlocks:
        blocks = VoteBlocks(votes, self.cardinality)
        if blocks.annotators != len(fit.conditional):
            raise InputError(f"votes: expected {len(fit.conditional)} labelling functions, got {blocks.annotators}")
        return blocks

    def _prior(self, class_balance: Any) -> NDArray[np.float64]:
        if class_balance is None:
            return np.full(self.cardinality, 1 / self.cardinality)
        prior = np.asarray(class_balance, np.float64)
        if prior.shape != (self.cardinality,) or not (prior > 0).all() or abs(prior.sum() - 1) > 1e-6:
            raise InputError(f"class_balance: expected {self.cardinality} numbers above 0 that sum to 1, got {prior}")
        return np.asarray(prior / prior.sum())


def _overlaps(blocks: VoteBlocks) -> NDArray[np.float64]:
    """(M K, M K) rows in which function i votes a and function j votes b: whole numbers, the same in any order."""
    size = blocks.annotators * blocks.num_classes
    counts = np.zeros((size, size))
    for block in blocks:
        marks = np.zeros((block.rows, size), np.float32)  # sums of at most 2,048 ones: exact
        marks[block.row, block.annotator * blocks.num_classes + block.label] = 1
        counts += marks.T @ marks
    return counts


def _solved(
    function: int,
    overlap: NDArray[np.float64],
    conditional: NDArray[np.float64],
    prior: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(K, K) P(vote|true) of one function by least squares, given all others and how frequent its votes are."""
    m, k, _ = conditional.shape
    others = np.delete(conditional, function, axis=0).reshape(-1, k) * prior
    design = np.concatenate([others, prior[None]])
    rows = np.delete(overlap.reshape(m, k, m, k)[function], function, axis=1).reshape(k, -1)
    target = np.concatenate([rows, frequency[:, None]], axis=1)
    # A trace of ridge: where functions never overlap, the last estimate stays.
    ridge = 1e-9 * np.trace(design.T @ design) / k
    gram = design.T @ design + ridge * np.eye(k)
    found = np.linalg.solve(gram, design.T @ target.T + ridge * conditional[function].T).T
    found = np.clip(found, 0.0, 1.0)
    return np.asarray(found / np.maximum(found.sum(axis=0), 1.0))


def _posterior(block: VoteBlock, log_prior: NDArray[np.float64], logs: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = log_scores(block, log_prior, logs)
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True))
