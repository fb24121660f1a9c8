from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.ops.labels import annotator_votes
from pycurate.ops.labels.annotator_votes import SparseVotes, annotator_confusion, majority_vote, soft_average
from pycurate.ops.labels.dawid_skene import dawid_skene
from pycurate.ops.labels.label_model import LabelModel
from pycurate.ops.labels.multiannotator import get_label_quality_multiannotator


def crowd(
    n: int, k: int, m: int, seed: int = 0, *, coverage: float = 0.6
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float64]]:
    """True classes, votes with -1 for none, and each annotator's confusion; every annotator is better than chance."""
    random = np.random.default_rng(seed)
    prior = random.dirichlet(np.full(k, 5.0))
    truth = random.choice(k, n, p=prior)
    skill = random.uniform(0.3, 0.95, m)
    confusion = np.array([s * np.eye(k) + (1 - s) * random.dirichlet(np.ones(k), k) for s in skill])
    votes = np.full((n, m), -1, np.int8)
    for annotator in range(m):
        chances = confusion[annotator][truth].cumsum(axis=1)
        vote = (random.random((n, 1)) > chances).sum(axis=1).clip(max=k - 1)
        votes[:, annotator] = np.where(random.random(n) < coverage, vote, -1)
    return truth, votes, confusion


def sparse_of(votes: NDArray[Any]) -> SparseVotes:
    row, annotator = np.nonzero(votes >= 0)
    offsets = np.concatenate([[0], np.cumsum((votes >= 0).sum(axis=1))])
    return SparseVotes(offsets, annotator.astype(np.int32), votes[row, annotator], votes.shape[1])


def forms(votes: NDArray[np.int8], folder: Path) -> list[Any]:
    np.save(folder / "votes.npy", votes)
    cuts = np.split(votes, [1, 2047, 2048, 2500])
    return [
        votes, votes.astype(np.int64), np.where(votes < 0, np.nan, votes), np.load(folder / "votes.npy", mmap_mode="r"),
        cuts, lambda: iter(cuts), sparse_of(votes),
    ]  # fmt: skip


def test_majority_and_average_against_loops() -> None:
    _, votes, _ = crowd(500, 4, 5, coverage=0.4)
    frequency = np.bincount(votes[votes >= 0], minlength=4)
    for ties in ("lowest", "rarest", "abstain"):
        found = majority_vote(votes, 4, ties=ties)
        for i, row in enumerate(votes):
            counts = np.bincount(row[row >= 0], minlength=4)
            modes = np.flatnonzero(counts == counts.max()) if counts.sum() else []
            if not len(modes):
                expected = -1
            elif len(modes) > 1:
                expected = {"lowest": modes[0], "rarest": min(modes, key=lambda c: (frequency[c], c)), "abstain": -1}[
                    ties
                ]
            else:
                expected = modes[0]
            assert found.labels[i] == expected
            assert found.tied[i] == (len(modes) > 1)
            assert found.num_votes[i] == counts.sum()
            np.testing.assert_equal(found.agreement[i], counts.max() / counts.sum() if counts.sum() else np.nan)
            np.testing.assert_allclose(soft_average(votes[i : i + 1], 4)[0], counts / max(counts.sum(), 1))
    weights = [0.0, 1.0, 0.5, 2.0, 1.0]
    weighted = soft_average(votes, 4, weights=weights)
    i = int(np.argmax((votes >= 0).sum(axis=1)))
    by_hand = np.bincount(votes[i][votes[i] >= 0], np.array(weights)[votes[i] >= 0], 4)
    np.testing.assert_allclose(weighted[i], by_hand / by_hand.sum())


def test_results_do_not_depend_on_how_votes_are_held(tmp_path: Path) -> None:
    truth, votes, _ = crowd(3000, 3, 6)
    expected = dawid_skene(votes, max_iterations=5)
    majority, shares = majority_vote(votes), soft_average(votes)
    model = LabelModel(3).fit(votes)
    for form in forms(votes, tmp_path):
        assert majority_vote(form).labels.tobytes() == majority.labels.tobytes()
        assert soft_average(form).tobytes() == shares.tobytes()
        found = dawid_skene(form, max_iterations=5)
        assert found.confusion.tobytes() == expected.confusion.tobytes()
        assert found.confidence.tobytes() == expected.confidence.tobytes()
        assert found.log_likelihood == expected.log_likelihood
        assert LabelModel(3).fit(form).predict_proba(form).tobytes() == model.predict_proba(votes).tobytes()
        np.testing.assert_array_equal(annotator_confusion(form, truth), annotator_confusion(votes, truth))


def plain_dawid_skene(votes: NDArray[Any], k: int, iterations: int, smoothing: float) -> Any:
    """The published rule, row by row and annotator by annotator."""
    n, m = votes.shape
    p = np.zeros((n, k))
    for i in range(n):
        for j in range(m):
            if votes[i, j] >= 0:
                p[i, votes[i, j]] += 1
    voted = p.sum(axis=1) > 0
    p[voted] /= p[voted].sum(axis=1, keepdims=True)
    for _ in range(iterations + 1):
        prior = p[voted].sum(axis=0) + smoothing
        prior /= prior.sum()
        confusion = np.full((m, k, k), smoothing)
        for i in range(n):
            for j in range(m):
                if votes[i, j] >= 0:
                    confusion[j, :, votes[i, j]] += p[i]
        confusion /= confusion.sum(axis=2, keepdims=True)
        likelihood = np.zeros(n)
        for i in range(n):
            p[i] = prior
            for j in range(m):
                if votes[i, j] >= 0:
                    p[i] *= confusion[j, :, votes[i, j]]
            likelihood[i] = p[i].sum()
            p[i] /= p[i].sum()
    return prior, confusion, p, float(np.log(likelihood[voted]).sum())


def test_dawid_skene_equals_a_plain_rendition() -> None:
    _, votes, _ = crowd(150, 3, 4, coverage=0.5)
    assert (votes < 0).all(axis=1).any()
    for iterations in (1, 4):
        prior, confusion, p, _ = plain_dawid_skene(votes, 3, iterations, 0.01)
        found = dawid_skene(votes, 3, max_iterations=iterations, tolerance=0.0)
        np.testing.assert_allclose(found.prior, prior, rtol=1e-10)
        np.testing.assert_allclose(found.confusion, confusion, rtol=1e-10)
        np.testing.assert_allclose(found.predict_proba(votes), p, rtol=1e-9)
        silent = (votes < 0).all(axis=1)
        np.testing.assert_array_equal(found.labels, np.where(silent, -1, p.argmax(axis=1)))
        np.testing.assert_allclose(found.confidence, np.where(silent, 0, p.max(axis=1)), rtol=1e-9)


def test_sums_of_votes_do_not_depend_on_where_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    _, votes, _ = crowd(300, 3, 4, coverage=0.5)
    random = np.random.default_rng(0)
    prior, logs = random.normal(size=3), random.normal(size=(4, 3, 3))
    (block,) = annotator_votes.VoteBlocks(votes, 3)
    expected = np.array([prior + sum(logs[m, v] for m, v in enumerate(row) if v >= 0) for row in votes])
    whole = annotator_votes.log_scores(block, prior, logs)
    np.testing.assert_allclose(whole, expected, rtol=1e-12)
    for at_once in (1, 3, 12, 20, 300, 900, 5000):
        monkeypatch.setattr(annotator_votes, "_NUMBERS_AT_ONCE", at_once)
        assert annotator_votes.log_scores(block, prior, logs).tobytes() == whole.tobytes()


def test_dawid_skene_finds_confusion_and_beats_the_majority() -> None:
    truth, votes, confusion = crowd(20_000, 4, 7, seed=3)
    found = dawid_skene(votes, 4)
    assert found.converged
    assert np.all(np.diff(found.log_likelihood) >= -1e-6)
    assert np.abs(found.confusion - confusion).max() < 0.06
    assert (found.labels == truth).mean() > (majority_vote(votes).labels == truth).mean() + 0.02


def test_the_label_model_finds_accuracies_and_beats_the_majority() -> None:
    random = np.random.default_rng(0)
    n, accuracies = 50_000, np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.85])
    truth = random.integers(0, 2, n)
    votes = np.where(random.random((n, 6)) < accuracies, truth[:, None], 1 - truth[:, None]).astype(np.int8)
    votes[random.random((n, 6)) < 0.5] = -1
    model = LabelModel().fit(votes)
    np.testing.assert_allclose(model.get_weights(), accuracies, atol=0.02)
    conditional = model.get_conditional_probs()
    assert conditional.shape == (6, 3, 2)
    np.testing.assert_allclose(conditional.sum(axis=1), 1)
    np.testing.assert_allclose(conditional[:, 0], 0.5, atol=0.03)
    judged = (votes >= 0).any(axis=1)
    majority = majority_vote(votes, ties="lowest").labels
    right = (model.predict(votes, "lowest") == truth)[judged].mean()
    assert right > (majority == truth)[judged].mean() + 0.02
    # The posterior of the accuracies it was made with, votes independent: what can be reached.
    log_odds = np.where(votes < 0, 0, np.where(votes == 1, 1, -1) * np.log(accuracies / (1 - accuracies))).sum(axis=1)
    assert right > ((log_odds > 0) == (truth == 1))[judged].mean() - 0.005
    assert set(model.predict(np.full((3, 6), -1))) == {-1}
    np.testing.assert_allclose(model.predict_proba(np.full((1, 6), -1)), 0.5)


def test_the_label_model_with_many_classes_and_a_balance() -> None:
    truth, votes, _ = crowd(20_000, 5, 8, seed=1)
    balance = np.bincount(truth, minlength=5) / len(truth)
    model = LabelModel(5).fit(votes, balance)
    assert model.converged
    judged = (votes >= 0).any(axis=1)
    majority = (majority_vote(votes).labels == truth)[judged].mean()
    assert (model.predict(votes, "lowest") == truth)[judged].mean() > majority + 0.01


def test_ferplus(shared_data: Path) -> None:
    with (shared_data / "ferplus" / "fer2013new.csv").open() as file:
        counts = np.array([row[2:] for row in list(csv.reader(file))[1:]], np.int64)
    assert counts.shape == (35_887, 10)
    votes = SparseVotes.of_counts(counts)
    found = majority_vote(votes, 10)
    np.testing.assert_array_equal(found.labels, counts.argmax(axis=1))
    np.testing.assert_array_equal(found.num_votes, counts.sum(axis=1))
    np.testing.assert_array_equal(soft_average(votes, 10), counts / counts.sum(axis=1, keepdims=True))
    model = dawid_skene(votes, 10)
    assert model.converged
    # A crowd without names is one annotator: neutral and happiness are seen alike, contempt and disgust are not.
    diagonal = model.confusion[0].diagonal()
    assert diagonal[[0, 1]].min() > 0.7
    sure = found.agreement >= 0.9
    assert sure.sum() > 10_000
    assert (model.labels[sure] == found.labels[sure]).mean() > 0.99


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("consensus", "quality"),
    [("best_quality", "crowdlab"), ("majority_vote", "crowdlab"), ("majority_vote", "agreement")],
)
def test_crowdlab_equals_cleanlab(consensus: Any, quality: Any, seed: int) -> None:
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    truth, votes, _ = crowd(200, 4, 5, seed, coverage=0.5)
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(4), 200)
    p[np.arange(200), truth] += 1
    p /= p.sum(axis=1, keepdims=True)
    rows = (votes >= 0).any(axis=1)
    votes, p = votes[rows], p[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = multiannotator.get_label_quality_multiannotator(
            np.where(votes < 0, np.nan, votes), p, consensus_method=consensus, quality_method=quality, verbose=False,
            return_weights=quality == "crowdlab",
        )  # fmt: skip
    found = get_label_quality_multiannotator(votes, p, consensus_method=consensus, quality_method=quality)
    table, stats = expected["label_quality"], expected["annotator_stats"].sort_index()
    np.testing.assert_array_equal(found.consensus_label, table["consensus_label"])
    np.testing.assert_array_equal(found.num_annotations, table["num_annotations"])
    np.testing.assert_allclose(found.consensus_quality_score, table["consensus_quality_score"], rtol=1e-12)
    np.testing.assert_allclose(found.annotator_agreement, table["annotator_agreement"], rtol=1e-12)
    if quality == "agreement":  # cleanlab 2.9 counts votes under other classes here
        by_hand = (votes[:, :, None] == votes[:, None, :]).sum(axis=2) / (votes >= 0).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.detailed_label_quality, np.where(votes < 0, np.nan, by_hand), rtol=1e-12)
    else:
        np.testing.assert_allclose(found.detailed_label_quality, expected["detailed_label_quality"], rtol=1e-12)
    np.testing.assert_allclose(found.annotator_quality, stats["annotator_quality"], rtol=1e-12)
    np.testing.assert_allclose(found.agreement_with_consensus, stats["agreement_with_consensus"], rtol=1e-12)
    np.testing.assert_array_equal(found.worst_class, stats["worst_class"])
    np.testing.assert_array_equal(found.num_examples_labeled, stats["num_examples_labeled"])
    if quality == "crowdlab":
        np.testing.assert_allclose(found.model_weight, expected["model_weight"], rtol=1e-12)
        np.testing.assert_allclose(found.annotator_weight, expected["annotator_weight"], rtol=1e-12)
    np.testing.assert_array_equal(found.confusion.sum(axis=(1, 2)), found.num_examples_labeled)


def test_no_rows_and_no_votes() -> None:
    for votes in (np.empty((0, 3), np.int8), np.full((4, 3), -1, np.int8)):
        assert majority_vote(votes, 2).labels.tolist() == [-1] * len(votes)
        assert soft_average(votes, 2).tolist() == [[0.0, 0.0]] * len(votes)
        found = dawid_skene(votes, 2)
        assert found.labels.tolist() == [-1] * len(votes)
        assert found.confidence.tolist() == [0.0] * len(votes)
        assert majority_vote(votes).labels.tolist() == [-1] * len(votes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: majority_vote([[0, 1]]), r"votes: expected \(n, M\) integers"),
        (lambda: majority_vote(np.array([[0, -2]])), "expected class ids from 0 and -1 for no vote, got -2 in row 0"),
        (lambda: majority_vote(np.array([[0, 0.5]])), "and NaN for no vote, got 0.5 in row 0 by annotator 1"),
        (lambda: majority_vote(np.array([[0, 3]]), 3), r"class ids below 3 \(num_classes\), got 3 in row 0"),
        (lambda: majority_vote(np.array([[0]]), ties="random"), "ties: expected lowest, rarest or abstain"),
        (lambda: soft_average(np.array([[0, 1]]), weights=[1]), "weights: expected 2 numbers from 0"),
        (lambda: dawid_skene(np.array([[0, 0]])), "expected at least two classes, got 1"),
        (lambda: LabelModel().fit(np.zeros((5, 2), int)), "expected at least 3 labelling functions, got 2"),
        (lambda: LabelModel().predict(np.zeros((5, 3), int)), r"expected fit\(votes\) before"),
        (lambda: LabelModel().fit(np.zeros((5, 3), int), [0.5, 0.6]), "class_balance: expected 2 numbers above 0"),
        (lambda: SparseVotes(np.array([0, 2]), np.zeros(1, int), np.zeros(1, int), 1), "expected 2 votes"),
        (lambda: SparseVotes(np.array([0, 1]), np.array([4]), np.zeros(1, int), 1), "numbers from 0 to 0"),
        (lambda: SparseVotes(np.array([1, 0]), np.zeros(0, int), np.zeros(0, int), 1), "row_offsets: expected"),
        (lambda: annotator_confusion(np.array([[0, 1]]), [0, 1]), "labels: expected 1 class ids below 2"),
        (
            lambda: get_label_quality_multiannotator(np.array([[-1, -1], [0, 0]]), np.full((2, 2), 0.5)),
            "row 0 has no vote",
        ),
        (
            lambda: get_label_quality_multiannotator(np.array([[0, -1], [0, -1]]), np.full((2, 2), 0.5)),
            "annotator 1 has no vote",
        ),
    ],
)
def test_what_cannot_be_used_is_named(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_the_top_package_has_them() -> None:
    for name in ("majority_vote", "soft_average", "dawid_skene", "LabelModel", "get_label_quality_multiannotator"):
        assert getattr(pycurate, name).__name__ == name
