"""Bounds and words of the certificate of near-duplicates."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pycurate.index.certificate import lower_recall_bound
from pycurate.index.duplicate_certificate import (
    DuplicateCertificate,
    duplicate_certificate,
    least_positives,
    missed_share_bound,
    proven,
)
from pycurate.index.sampling import drawn_rows

LOOK = 1 - 0.05 / 3


def certificate(
    pairs: list[int], found: list[int], target: float = 0.99, rows: int = 5000, population: int = 100_000
) -> DuplicateCertificate:
    return duplicate_certificate(
        np.array(pairs, np.int64),
        np.array(found, np.int64),
        method="a join",
        threshold=0.9,
        target=target,
        rows=rows,
        population=population,
        seed=3,
    )


def test_a_row_is_lost_when_none_of_its_duplicates_was_met() -> None:
    found = certificate([3, 1, 2, 1], [3, 0, 1, 1])
    assert (found.positives, found.lost, found.pairs, found.missed_pairs) == (4, 1, 7, 2)
    assert found.recall == 0.75
    assert found.lower_bound == lower_recall_bound(3, 4, LOOK)
    assert found.upper_bound == 1 - lower_recall_bound(1, 4, LOOK)
    assert found.verdict == "undecided"


@pytest.mark.parametrize("target", [0.5, 0.9, 0.99, 0.999])
def test_the_least_positives_are_the_least_that_hold(target: float) -> None:
    count = int(least_positives(target))
    assert certificate([1] * count, [1] * count, target).verdict == "holds"
    assert certificate([1] * (count - 1), [1] * (count - 1), target).verdict == "undecided"
    assert least_positives(1) == math.inf
    assert least_positives(0) == 0


def test_verdicts() -> None:
    assert certificate([1] * 1000, [1] * 999 + [0]).verdict == "holds"
    assert certificate([1] * 1000, [1] * 992 + [0] * 8).verdict == "undecided"
    assert certificate([1] * 1000, [1] * 970 + [0] * 30).verdict == "fails"
    assert certificate([], []).verdict == "undecided"
    # Where every row was sampled nothing is left to chance.
    assert certificate([1] * 100, [1] * 99 + [0], rows=100_000).verdict == "holds"
    assert certificate([1] * 100, [1] * 98 + [0] * 2, rows=100_000).verdict == "fails"
    assert certificate([], [], 1.0, rows=100_000).verdict == "holds"


def test_the_bounds_cover_the_true_recall_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    for recall in (0.9, 0.985):
        hits = random.binomial(500, recall, 400)
        above = [certificate([1] * 500, [1] * h + [0] * (500 - h)).lower_bound > recall for h in hits]
        assert np.mean(above) <= 0.035  # 1/60 expected at most


def test_missed_pairs_are_bounded_by_a_seeded_bootstrap_over_rows() -> None:
    pairs = np.array([1] * 300 + [50], np.int64)
    missed = np.array([0] * 290 + [1] * 10 + [25], np.int64)
    bound = missed_share_bound(pairs, missed, 1)
    assert bound == missed_share_bound(pairs, missed, 1) != missed_share_bound(pairs, missed, 2)
    # One row holds most of what is missed: resamples that draw it twice or thrice tell how unsure the share is.
    assert 35 / 350 < bound < 0.35
    assert missed_share_bound(pairs, 0 * missed, 1) == 0
    assert missed_share_bound(np.empty(0, np.int64), np.empty(0, np.int64), 1) == 0


def test_sentences() -> None:
    assert proven("10 clusters, every border", 0.9, 0.99, 1000, 0).sentence() == (
        "10 clusters, every border: no pair at or above 0.9 can be missed"
    )
    few = "a join: a recall of 0.99 is not certifiable with 12 positives, 408 are needed where none is lost; at least"
    assert certificate([1] * 12, [1] * 12).sentence().startswith(few)
    holds = certificate([1] * 1000, [1] * 999 + [0])
    assert holds.sentence() == (
        "a join: at least 99.3968% of the rows with a near-duplicate at or above 0.9 keep one, with 95% confidence (1 "
        "of 1,000 lost theirs, 5,000 of 100,000 rows sampled; 1 of 1,000 pairs missed, at most 0.3000%)"
    )
    every = certificate([1] * 100, [1] * 99 + [0], rows=100_000)
    assert every.sentence() == (
        "a join: 99.0000% of the rows with a near-duplicate at or above 0.9 keep one (1 of 100 lost theirs, 100,000 of "
        "100,000 rows sampled)"
    )
    assert json.loads(json.dumps(holds.to_dict()))["verdict"] == "holds"


def test_a_larger_draw_goes_on_where_a_smaller_one_ended() -> None:
    small, large = (drawn_rows(1000, count, 7, 4) for count in (100, 300))
    np.testing.assert_array_equal(large[:100], small)
    assert len(np.intersect1d(drawn_rows(1000, 100, 7), small)) < 30
