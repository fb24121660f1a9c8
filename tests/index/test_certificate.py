"""Recall certificates: the bound against exact binomial sums, the count against known misses."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pycurate import nearest, recall_certificate
from pycurate.errors import InputError
from pycurate.index.certificate import incomplete_beta, lower_recall_bound


def at_least(hits: int, trials: int, rate: float) -> float:
    """Probability of ``hits`` or more of ``trials``, summed exactly."""
    p = Fraction(rate)
    return float(sum(math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(hits, trials + 1)))


@pytest.mark.parametrize(("hits", "trials"), [(1, 1), (1, 10), (5, 10), (8, 10), (95, 100), (199, 200), (200, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_bound_is_the_rate_at_which_so_many_hits_are_just_unlikely(
    hits: int, trials: int, confidence: float
) -> None:
    bound = lower_recall_bound(hits, trials, confidence)
    # relative 1e-9: the tail is the incomplete beta function, whose error is said to be below 1e-10
    assert at_least(hits, trials, bound) == pytest.approx(1 - confidence, rel=1e-9)


def test_bounds_of_published_tables() -> None:
    assert lower_recall_bound(0, 50, 0.95) == 0
    assert lower_recall_bound(8, 10, 0.95) == pytest.approx(0.4931, abs=5e-5)  # two-sided 90 % interval of 8 in 10
    assert lower_recall_bound(1000, 1000, 0.95) == pytest.approx(0.05 ** (1 / 1000), rel=1e-12)
    assert lower_recall_bound(1, 1000, 0.95) == pytest.approx(1 - 0.95 ** (1 / 1000), rel=1e-9)


def test_the_incomplete_beta_function_of_large_arguments() -> None:
    assert incomplete_beta(1, 1, 0.3) == pytest.approx(0.3)
    assert incomplete_beta(2, 3, 0.4) == pytest.approx(at_least(2, 4, 0.4))
    # For a = b it is one half in the middle.
    assert incomplete_beta(500_000, 500_000, 0.5) == pytest.approx(0.5, rel=1e-9)
    assert [incomplete_beta(2, 3, x) for x in (0, 1)] == [0, 1]


@pytest.fixture(scope="module")
def x() -> Any:
    return np.random.default_rng(0).normal(size=(400, 12)).astype(np.float32)


def test_exact_neighbours_have_recall_one(x: Any) -> None:
    found = nearest(x, 5)
    made = recall_certificate(found.indices, x, sample=150, seed=3)
    assert (made.k, made.rows, made.expected, made.missed, made.trials, made.hits) == (5, 150, 750, 0, 150, 150)
    assert made.recall == 1
    assert made.lower_bound == pytest.approx(0.05 ** (1 / 150))
    assert "at least 0.9802 with 95% confidence (0 of 750 true neighbours of 150 sampled rows missed)" in (
        made.sentence()
    )


def test_misses_are_counted_one_by_one(x: Any) -> None:
    found = nearest(x, 5).indices
    found[:, 1] = -1
    found[::2, 4] = found[::2, 3]  # a repeat finds nothing more
    made = recall_certificate(found, x, sample=1000)
    assert made.missed == 400 + 200
    assert made.recall == 1 - 600 / 2000
    assert made.lower_bound < made.recall


def test_the_bound_holds_where_rows_are_found_whole_or_not_at_all() -> None:
    # Counting all k neighbours of a row as trials would claim too much here: of 100 seeds, 5 may miss on average.
    x = np.random.default_rng(1).normal(size=(2000, 4)).astype(np.float32)
    found = nearest(x, 10).indices
    found[np.random.default_rng(2).random(2000) < 0.2] = -1
    truth = recall_certificate(found, x, sample=2000).recall
    bounds = [recall_certificate(found, x, sample=60, seed=seed).lower_bound for seed in range(100)]
    assert sum(bound > truth for bound in bounds) <= 12  # 13 or more of 100 at 5 % each: 1 in 1,000


def test_rows_that_tie_with_the_last_are_hits() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    other = np.array([[row // 4 * 4 + (row + 3) % 4] for row in range(12)])
    assert recall_certificate(other, x, k=1).recall == 1
    assert recall_certificate((other + 4) % 12, x, k=1).recall == 0


def test_a_row_is_no_neighbour_of_itself_but_is_in_another_set(x: Any) -> None:
    own = np.arange(len(x))[:, None]
    assert recall_certificate(own, x).recall == 0
    assert recall_certificate(own, x, x.copy()).recall == 1


def test_unjudged_rows_are_counted_and_never_expected(x: Any) -> None:
    x = x.copy()
    x[:40] = 0
    made = recall_certificate(nearest(x, 3).indices, x, sample=400)
    assert (made.unjudged, made.rows, made.recall) == (40, 360, 1)
    assert recall_certificate(np.full((2, 1), -1), np.zeros((2, 3), np.float32)).recall == 1


def test_fewer_neighbours_than_k_are_all_that_is_expected() -> None:
    x = np.eye(3, dtype=np.float32)
    made = recall_certificate(nearest(x, 5).indices, x)
    assert (made.expected, made.missed) == (6, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"indices": np.zeros((3, 2), int)}, r"indices: expected whole numbers of shape \(400, k\)"),
        ({"indices": np.zeros((400, 2))}, "got dtype float64"),
        ({"indices": np.full((400, 2), 400)}, "expected -1 or row numbers below 400, got 400 to 400"),
        ({"confidence": 1.0}, "confidence: expected a number between 0 and 1, got 1.0"),
        ({"metric": "angle"}, "metric: expected one of cosine, inner_product, l2, got 'angle'"),
        ({"sample": 0}, "sample: expected a whole number of at least 1, got 0"),
        ({"y": np.zeros((5, 3), np.float32)}, "y: expected rows of 12 elements as x has, got 3"),
    ],
)
def test_bad_arguments_say_what_was_expected(x: Any, change: dict[str, Any], sentence: str) -> None:
    arguments = {"indices": np.zeros((400, 2), int), "y": None, **change}
    with pytest.raises(InputError, match=sentence):
        recall_certificate(arguments.pop("indices"), x, arguments.pop("y"), **arguments)
