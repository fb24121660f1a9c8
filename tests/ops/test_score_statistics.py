from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycurate.errors import InputError
from pycurate.ops.score_statistics import ScoreStatistics, score_statistics


def same(a: ScoreStatistics, b: ScoreStatistics) -> bool:
    fields = ("count", "missing", "infinite", "integral", "total_units")
    extremes = [(a.minimum, b.minimum), (a.maximum, b.maximum)]
    return (
        all(getattr(a, name) == getattr(b, name) for name in fields)
        and all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in extremes)
        and np.array_equal(a.fine_bins, b.fine_bins)
    )


def test_counts_extremes_and_mean_are_those_of_the_finite_values():
    values = np.array([0.5, np.nan, -2.0, np.inf, 0.25, -np.inf, np.nan], np.float32)
    found = score_statistics(values)
    assert (found.count, found.missing, found.infinite) == (3, 2, 2)
    assert (found.minimum, found.maximum, found.integral) == (-2.0, 0.5, False)
    assert found.mean == pytest.approx(-1.25 / 3, rel=1e-15)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_mean_is_the_exact_mean_rounded_once(values):
    exact = sum(map(Fraction, values.tolist())) / len(values)
    assert score_statistics(values).mean == float(exact)


def test_merge_is_the_same_bits_for_any_cut_and_order():
    rng = np.random.default_rng(1)
    values = (rng.standard_normal(5000) * 10.0 ** rng.integers(-20, 20, 5000)).astype(np.float32)
    values[::97] = np.nan
    whole = score_statistics(values)
    parts = np.split(values, np.sort(rng.integers(0, 5000, 9)))
    for order in (range(10), rng.permutation(10)):
        merged = ScoreStatistics()
        for i in order:
            merged = merged.merge(score_statistics(parts[i]))
        assert same(merged, whole)


def test_a_column_longer_than_one_chunk_counts_every_row():
    values = np.tile(np.array([0.1, 0.2, 0.7], np.float32), 400_000)
    found = score_statistics(values)
    assert found.count == 1_200_000
    assert found.mean == float(sum(Fraction(v) for v in values[:3].tolist()) / 3)


def test_mask_takes_only_its_rows():
    values = np.array([1, 2, 30], np.int64)
    assert same(score_statistics(values, np.array([True, True, False])), score_statistics(values[:2]))


@pytest.mark.parametrize(
    ("values", "mask", "sentence"),
    [
        (np.array([b"en"]), None, r"values: expected a 1-D array of numbers, got \|S2 of shape \(1,\)"),
        (np.zeros((2, 2)), None, r"got float64 of shape \(2, 2\)"),
        (np.zeros(3), np.ones(2, bool), r"mask: expected bool of shape \(3,\), got bool of shape \(2,\)"),
    ],
)
def test_what_holds_no_numbers_is_refused(values, mask, sentence):
    with pytest.raises(InputError, match=sentence):
        score_statistics(values, mask)


def test_display_bins_count_exactly_what_lies_between_their_edges():
    values = np.random.default_rng(0).normal(0.22, 0.07, 20_000).astype(np.float32)
    edges, counts = score_statistics(values).display_bins(include=(0.28,))
    assert 60 <= len(counts) <= 90
    assert counts.sum() == len(values)
    above_zero = edges >= 0  # below zero a fine bin holds its upper edge, which float32 rarely meets
    assert np.array_equal(counts, np.histogram(values, edges)[0])
    assert above_zero.any()
    assert (np.diff(edges) > 0).all()


def test_display_bins_of_whole_numbers_hold_one_number_each():
    words = np.repeat(np.arange(-3, 21), 100)
    edges, counts = score_statistics(words).display_bins()
    assert edges.tolist() == [number - 0.5 for number in range(-3, 22)]
    assert counts.tolist() == [100] * 24


def test_display_bins_of_large_whole_numbers_count_exactly():
    sizes = np.random.default_rng(0).integers(-3000, 3000, 20_000)
    edges, counts = score_statistics(sizes).display_bins()
    assert np.array_equal(counts, np.histogram(sizes, edges)[0])
    assert (edges % 1 == 0.5).all()


def test_far_values_share_one_wide_bin_and_thresholds_stay_in_sight():
    values = np.concatenate([np.random.default_rng(0).uniform(1, 2, 10_000), [5000.0]])
    edges, counts = score_statistics(values).display_bins(include=(3.0,))
    assert edges[-1] == 5000
    assert counts[-1] == 1
    assert edges[-2] >= 3
    assert edges[-2] < 4


@pytest.mark.parametrize("values", [[0.3, 0.3], [0.0], [-1.5], [1e300, -1e300], [5e-324]])
def test_degenerate_columns_still_have_a_histogram(values):
    edges, counts = score_statistics(np.array(values)).display_bins()
    assert counts.sum() == len(values)
    assert (np.diff(edges) > 0).all()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-8, 8, width=16)), st.integers(1, 30))
def test_display_bins_rise_and_hold_every_row(values, bins):
    edges, counts = score_statistics(values).display_bins(bins, include=(0.5,))
    assert (np.diff(edges) > 0).all()
    assert counts.sum() == len(values)
    assert edges[0] <= values.min()
    assert edges[-1] >= values.max()


def test_no_finite_value_no_histogram():
    found = score_statistics(np.array([np.nan, np.inf]))
    edges, counts = found.display_bins()
    assert len(edges) == len(counts) == 0
    assert math.isnan(found.mean)
