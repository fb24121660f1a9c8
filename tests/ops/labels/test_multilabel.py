from __future__ import annotations

from typing import Any, get_args

import cleanlab.count
import cleanlab.multilabel_classification.filter as peer_filter
import cleanlab.multilabel_classification.rank as peer_rank
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.ops.labels import multilabel
from pycurate.ops.labels.label_issues import FilterBy
from pycurate.ops.labels.label_quality import ScoreMethod

pytestmark = pytest.mark.filterwarnings("ignore:labels. .* classes, such as .* have at most")
FILTERS = get_args(FilterBy)
SCORES = get_args(ScoreMethod)
Ties = Any  # the fixture ties_in_row_order


def problem_of(n: int, k: int, seed: int) -> tuple[list[list[int]], NDArray[np.float64]]:
    """Each class is there in some rows and not in others: cleanlab refuses it otherwise."""
    random = np.random.default_rng(seed)
    true = random.random((n, k)) < 0.4
    p = np.clip(np.where(true, 0.8, 0.2) + random.normal(0, 0.25, (n, k)), 0.01, 0.99)
    given_marks = true ^ (random.random((n, k)) < 0.2)
    given_marks[0], given_marks[1] = True, False
    return [np.flatnonzero(row).tolist() for row in given_marks], p


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 120), st.integers(1, 8), st.integers(0, 2**32))
def test_joints_equal_cleanlab(ties_in_row_order: Ties, n: int, k: int, seed: int) -> None:
    labels, p = problem_of(n, k, seed)
    with ties_in_row_order():
        thresholds = cleanlab.count.get_confident_thresholds(labels, p, multi_label=True)
        plain, off = cleanlab.count.compute_confident_joint(
            labels, p, multi_label=True, calibrate=False, return_indices_of_off_diagonals=True
        )
        calibrated = cleanlab.count.compute_confident_joint(labels, p, multi_label=True)
        estimate = cleanlab.count.estimate_joint(labels, p, multi_label=True)
        count = cleanlab.count.num_label_issues(labels, p, multi_label=True)
        neq = cleanlab.filter.find_predicted_neq_given(labels, p, multi_label=True)
    np.testing.assert_allclose(pycurate.get_confident_thresholds(labels, p, multi_label=True), thresholds, rtol=1e-14)
    ours, rows = pycurate.compute_confident_joint(
        labels, p, multi_label=True, calibrate=False, return_indices_of_off_diagonals=True
    )
    np.testing.assert_array_equal(ours, plain)
    assert [part.tolist() for part in rows] == [list(part) for part in off]
    np.testing.assert_array_equal(pycurate.compute_confident_joint(labels, p, multi_label=True), calibrated)
    np.testing.assert_array_equal(pycurate.calibrate_confident_joint(plain, labels, multi_label=True), calibrated)
    np.testing.assert_allclose(pycurate.estimate_joint(labels, p, multi_label=True), estimate, rtol=1e-14)
    assert pycurate.num_label_issues(labels, p, multi_label=True) == count
    np.testing.assert_array_equal(pycurate.find_predicted_neq_given(labels, p, multi_label=True), neq)


@settings(max_examples=8, deadline=None)
@given(st.integers(4, 80), st.integers(2, 6), st.integers(0, 2**32))
def test_issues_equal_cleanlab(ties_in_row_order: Ties, n: int, k: int, seed: int) -> None:
    labels, p = problem_of(n, k, seed)
    for filter_by in FILTERS:
        with ties_in_row_order():
            mask = peer_filter.find_label_issues(labels, p, filter_by=filter_by, n_jobs=1)
            per_class = peer_filter.find_multilabel_issues_per_class(labels, p, filter_by=filter_by, n_jobs=1)
        np.testing.assert_array_equal(
            pycurate.find_label_issues(labels, p, filter_by=filter_by, multi_label=True), mask
        )
        ours = multilabel.find_multilabel_issues_per_class(labels, p, filter_by=filter_by)
        np.testing.assert_array_equal(ours, per_class)
        for score in ("self_confidence", "normalized_margin"):
            if mask.sum() < 2:
                continue
            try:
                with ties_in_row_order():
                    ranked = peer_filter.find_label_issues(
                        labels, p, filter_by=filter_by, return_indices_ranked_by=score, n_jobs=1
                    )
            except ValueError:  # cleanlab scores the rows found alone, and refuses them where all labels are one value
                continue
            found = multilabel.find_label_issues(labels, p, filter_by=filter_by, return_indices_ranked_by=score)
            np.testing.assert_array_equal(found, ranked)


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 120), st.integers(2, 8), st.integers(0, 2**32))
def test_scores_equal_cleanlab(ties_in_row_order: Ties, n: int, k: int, seed: int) -> None:
    labels, p = problem_of(n, k, seed)
    aggregators: list[Any] = [None, {"method": "softmin", "temperature": 0.2}]
    aggregators.append({"method": "exponential_moving_average", "alpha": None})
    for method in SCORES:
        expected = peer_rank.get_label_quality_scores_per_class(labels, p, method=method)
        ours = multilabel.get_label_quality_scores_per_class(labels, p, method=method)
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
        for how in aggregators:
            kwargs = {} if how is None else {"aggregator_kwargs": how}
            expected = peer_rank.get_label_quality_scores(labels, p, method=method, **kwargs)
            found = multilabel.get_label_quality_scores(labels, p, method=method, **kwargs)
            np.testing.assert_allclose(found, expected, rtol=1e-12)
    adjusted = peer_rank.get_label_quality_scores(labels, p, adjust_pred_probs=True)
    np.testing.assert_allclose(
        multilabel.get_label_quality_scores(labels, p, adjust_pred_probs=True), adjusted, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "expected a list of lists of class ids"),
        ([[0], [3]], "expected class ids from 0 to 2, got 3 in row 1"),
        ([[0], ["a"]], "expected lists of integers"),
        ([[0]], "expected the same length and a column a class, got 1 lists"),
    ],
)
def test_what_cannot_be_used_is_named(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pycurate.find_label_issues(labels, np.full((2, 3), 0.5), multi_label=True)


def test_rows_of_no_class_and_probabilities_beyond() -> None:
    assert pycurate.find_label_issues([[], []], np.array([[0.9, 0.1], [0.1, 0.2]]), multi_label=True).shape == (2,)
    with pytest.raises(InputError, match="expected probabilities from 0 to 1"):
        pycurate.find_label_issues([[], []], np.array([[1.5, 0.1], [0.1, 0.2]]), multi_label=True)
    with pytest.raises(InputError, match=r"confident_joint: expected shape \(2, 2, 2\)"):
        pycurate.find_label_issues([[], []], np.full((2, 2), 0.5), multi_label=True, confident_joint=np.ones((3, 2, 2)))
    with pytest.warns(UserWarning, match="confident_joint: not used"):
        pycurate.find_label_issues([[], []], np.full((2, 2), 0.5), multi_label=True, confident_joint=np.ones((2, 2)))
