"""CROWDLAB: one label for each row of the votes of several annotators and a classifier's probabilities, and how good
it, each vote and each annotator is.

Goh, Tkachenko, Mueller: CROWDLAB: Supervised learning to infer consensus labels and quality scores for data with
multiple annotators, 2022. Equal to cleanlab 2.9's ``get_label_quality_multiannotator`` (self-confidence), but that ties
which cleanlab breaks at random go to the lowest class, and that ``quality_method="agreement"`` counts votes under their
class, where cleanlab 2.9 moves them to lower ones in rows that do not have all classes. Arrays come back in place of
pandas tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.labels.annotator_votes import VoteBlocks, annotator_confusion, class_frequencies
from pycurate.ops.labels.probabilities import DTYPES

ConsensusMethod: TypeAlias = Literal["best_quality", "majority_vote"]
QualityMethod: TypeAlias = Literal["crowdlab", "agreement"]

_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class MultiannotatorQuality:
    """What the votes and the probabilities say.

    Of each row, (n,): ``consensus_label`` int64, ``consensus_quality_score`` and ``annotator_agreement`` (the share of
    its votes that are the consensus) float64, ``num_annotations`` int64. ``detailed_label_quality`` (n, M) float64: of
    each vote, NaN where there is none. Of each annotator, (M,): ``annotator_quality``, ``agreement_with_consensus``
    float64, ``worst_class``, ``num_examples_labeled`` int64; ``confusion`` (M, K, K) int64 counts by consensus and
    vote. ``model_weight`` and (M,) ``annotator_weight`` are CROWDLAB's, None with ``quality_method="agreement"``.
    """

    consensus_label: NDArray[np.int64]
    consensus_quality_score: NDArray[np.float64]
    annotator_agreement: NDArray[np.float64]
    num_annotations: NDArray[np.int64]
    detailed_label_quality: NDArray[np.float64]
    annotator_quality: NDArray[np.float64]
    agreement_with_consensus: NDArray[np.float64]
    worst_class: NDArray[np.int64]
    num_examples_labeled: NDArray[np.int64]
    confusion: NDArray[np.int64]
    model_weight: float | None
    annotator_weight: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _Quality:
    posterior: NDArray[np.float64]
    agreement: NDArray[np.float64]
    score: NDArray[np.float64]
    model_weight: float | None
    annotator_weight: NDArray[np.float64] | None


class _Problem:
    """Votes as (n, M) with -1 for none, their counts by class, and what of them does not depend on the consensus."""

    def __init__(self, votes: Any, pred_probs: Any) -> None:
        if not isinstance(pred_probs, np.ndarray) or pred_probs.ndim != 2 or pred_probs.dtype.name not in DTYPES:
            raise InputError("pred_probs: expected an array (n, K) of float16, float32 or float64")
        blocks = VoteBlocks(votes, pred_probs.shape[1])
        if blocks.rows != len(pred_probs):
            raise InputError(
                f"labels_multiannotator and pred_probs: expected the same length, got {blocks.rows} and "
                f"{len(pred_probs)}"
            )
        self.pred_probs = pred_probs.astype(np.float64, copy=False)
        self.frequency = class_frequencies(blocks)
        self.votes = np.full((blocks.rows, blocks.annotators), -1, np.int64)
        self.counts = np.zeros((blocks.rows, blocks.num_classes))
        for block in blocks:
            self.votes[block.first + block.row, block.annotator] = block.label
            self.counts[block.first : block.first + block.rows] = blocks.counts(block)
        self.given = self.votes >= 0
        self.num_annotations = self.given.sum(axis=1)
        if not self.num_annotations.all():
            raise InputError(
                f"labels_multiannotator: row {int(self.num_annotations.argmin())} has no vote; take it away"
            )
        if blocks.annotators and not self.given.any(axis=0).all():
            raise InputError(f"labels_multiannotator: annotator {int(self.given.any(axis=0).argmin())} has no vote")
        if blocks.annotators < 2 or not (self.num_annotations > 1).any():
            raise InputError(
                "labels_multiannotator: expected several votes for some rows; see get_label_quality_scores"
            )

    def equals(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self.votes == labels[:, None])

    def share(self, hits: NDArray[np.bool_], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(M,) of the votes on some rows, the share that hits; NaN without votes."""
        total = self.given[rows].sum(axis=0)
        hit = (hits & self.given)[rows].sum(axis=0)
        return np.asarray(np.divide(hit, total, out=np.full(len(total), np.nan), where=total > 0))


def get_label_quality_multiannotator(
    labels_multiannotator: Any,
    pred_probs: NDArray[Any],
    *,
    consensus_method: ConsensusMethod = "best_quality",
    quality_method: QualityMethod = "crowdlab",
) -> MultiannotatorQuality:
    """One label for each row, and how good it, each vote and each annotator is.

    Parameters
    ----------
    labels_multiannotator
        (n, M) integers, -1 for no vote, or floats with NaN for none; each row and each annotator has a vote.
    pred_probs
        (n, K) out-of-sample probabilities of a classifier trained on some consensus, float16, float32 or float64.
    consensus_method
        ``best_quality``: the class of largest CROWDLAB probability. ``majority_vote``: the class most voted for; of
        equal ones that of largest probability, then the rarest in all, then that of the better annotators.
    quality_method
        ``crowdlab``: a mean of the classifier and the annotators, weighted by how far each agrees with others.
        ``agreement``: shares of votes.

    Returns
    -------
    `MultiannotatorQuality`. Needs 8 (M + 3 K) bytes a row.
    """
    if consensus_method not in ("best_quality", "majority_vote"):
        raise InputError(f"consensus_method: expected best_quality or majority_vote, got {consensus_method!r}")
    if quality_method not in ("crowdlab", "agreement"):
        raise InputError(f"quality_method: expected crowdlab or agreement, got {quality_method!r}")
    problem = _Problem(labels_multiannotator, pred_probs)
    consensus = _majority(problem)
    quality = _quality(problem, consensus, quality_method)
    if consensus_method == "best_quality":
        best = quality.posterior == quality.posterior.max(axis=1, keepdims=True)
        consensus = np.where(best.sum(axis=1) == 1, best.argmax(axis=1), consensus)
        quality = _quality(problem, consensus, quality_method)
    detailed = np.where(
        problem.given, np.take_along_axis(quality.posterior, np.maximum(problem.votes, 0), axis=1), np.nan
    )
    everywhere = np.ones(len(consensus), np.bool_)
    votes = np.where(problem.given, problem.votes, -1)
    return MultiannotatorQuality(
        consensus, quality.score, quality.agreement, problem.num_annotations, detailed,
        _annotator_quality(problem, consensus, quality, detailed),
        problem.share(problem.equals(consensus), everywhere),
        _worst_classes(problem, consensus, quality.score),
        problem.given.sum(axis=0),
        annotator_confusion(votes, consensus, problem.counts.shape[1]),
        quality.model_weight, quality.annotator_weight,
    )  # fmt: skip


def _majority(problem: _Problem) -> NDArray[np.int64]:
    """(n,) the class most voted for, ties broken by one thing after the other."""
    candidates = problem.counts == problem.counts.max(axis=1, keepdims=True)
    untied = candidates.sum(axis=1) == 1
    candidates = _narrowed(candidates, problem.pred_probs)
    candidates = _narrowed(candidates, np.broadcast_to(-problem.frequency, candidates.shape))
    if (candidates.sum(axis=1) > 1).any():
        settled = candidates.argmax(axis=1)
        agreement = problem.share(problem.equals(settled), untied)
        known = agreement[~np.isnan(agreement)]
        agreement = np.where(np.isnan(agreement), known.mean() if len(known) else 0.0, agreement)
        for row in np.flatnonzero(candidates.sum(axis=1) > 1).tolist():
            classes = np.flatnonzero(candidates[row])
            scores = [agreement[problem.votes[row] == k].mean() for k in classes.tolist()]
            candidates[row] = False
            candidates[row, classes[int(np.argmax(scores))]] = True
    return np.asarray(candidates.argmax(axis=1))


def _narrowed(candidates: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of each row's candidates those of largest value."""
    of_candidates = np.where(candidates, values, -np.inf)
    return np.asarray(candidates & (of_candidates == of_candidates.max(axis=1, keepdims=True)))


def _quality(problem: _Problem, consensus: NDArray[np.int64], method: QualityMethod) -> _Quality:
    agreement = problem.equals(consensus).sum(axis=1) / problem.num_annotations
    if method == "agreement":
        return _Quality(problem.counts / problem.num_annotations[:, None], agreement, agreement, None, None)
    classes = problem.pred_probs.shape[1]
    several = problem.num_annotations != 1
    likelihood = float(np.mean(agreement[several]))
    rest = (1 - likelihood) / (classes - 1) if classes > 1 else 0.0
    chosen = consensus[several]
    most_likely = np.argmax(np.bincount(chosen, minlength=classes))
    baseline_error = max(float(np.mean(chosen != most_likely)), _LEAST)
    weight = np.maximum(1 - (1 - _mutual_agreement(problem)) / baseline_error, _LEAST)
    model_error = float(np.mean(problem.pred_probs[several].argmax(axis=1) != chosen))
    model_weight = max(1 - model_error / baseline_error, _LEAST) * float(np.sqrt(np.mean(problem.num_annotations)))
    weighted = np.zeros_like(problem.counts)
    for annotator in range(problem.votes.shape[1]):
        rows = np.flatnonzero(problem.given[:, annotator])
        weighted[rows, problem.votes[rows, annotator]] += weight[annotator]
    total = weighted.sum(axis=1, keepdims=True)
    posterior = problem.pred_probs * model_weight + weighted * likelihood + (total - weighted) * rest
    posterior /= total + model_weight
    score = posterior[np.arange(len(consensus)), consensus]
    return _Quality(posterior, agreement, score, model_weight, weight)


def _mutual_agreement(problem: _Problem) -> NDArray[np.float64]:
    """(M,) of all other votes on an annotator's rows, the share that agrees; without any, the mean of the others."""
    own = np.take_along_axis(problem.counts, np.maximum(problem.votes, 0), axis=1) - 1
    same = np.where(problem.given, own, 0).sum(axis=0)
    others = np.where(problem.given, (problem.num_annotations - 1)[:, None], 0).sum(axis=0)
    found = np.divide(same, others, out=np.full(len(same), np.nan), where=others > 0)
    return np.asarray(np.where(np.isnan(found), np.nanmean(found), found))


def _annotator_quality(
    problem: _Problem, consensus: NDArray[np.int64], quality: _Quality, detailed: NDArray[np.float64]
) -> NDArray[np.float64]:
    several = problem.num_annotations != 1
    agreement = problem.share(problem.equals(consensus), several)
    if quality.model_weight is None or quality.annotator_weight is None:
        return agreement
    of_votes = np.nanmean(detailed, axis=0)
    share = np.mean(problem.num_annotations) / problem.votes.shape[1]
    trust = quality.model_weight / (quality.model_weight + np.sum(quality.annotator_weight) * share)
    return np.asarray(trust * of_votes + (1 - trust) * agreement)


def _worst_classes(problem: _Problem, consensus: NDArray[np.int64], score: NDArray[np.float64]) -> NDArray[np.int64]:
    """(M,) the class whose votes are least often the consensus; of equal ones the most voted, then of highest score."""
    classes = problem.counts.shape[1]
    worst = np.empty(problem.votes.shape[1], np.int64)
    for annotator in range(len(worst)):
        rows = np.flatnonzero(problem.given[:, annotator])
        votes = problem.votes[rows, annotator]
        count = np.bincount(votes, minlength=classes)
        right = np.bincount(votes, votes == consensus[rows], classes)
        scores = np.bincount(votes, score[rows], classes)
        voted = np.flatnonzero(count)
        worst[annotator] = min(voted.tolist(), key=lambda k: (right[k] / count[k], -count[k], -scores[k] / count[k], k))
    return worst
