"""The definition of fused similarity against answers worked out by hand and against pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from pycurate.reference import fused_similarity as reference
from pycurate.reference import rowwise

# Angles 0, 60, 90 and 0 degrees, a zero row, a row that is not finite; row 3 has the bits of row 0.
ROWS = np.array([[2, 0], [1, np.sqrt(3)], [0, 3], [2, 0], [0, 0], [np.nan, 1]], np.float32)
NAN = np.nan


def test_cosine_of_a_few_rows() -> None:
    side, half = np.float32(np.sqrt(3) / 2), np.float32(0.5)
    expected = [
        [NAN, half, 0, 1, NAN, NAN],
        [half, NAN, side, half, NAN, NAN],
        [0, side, NAN, 0, NAN, NAN],
        [1, half, 0, NAN, NAN, NAN],
        [NAN] * 6,
        [NAN] * 6,
    ]
    np.testing.assert_array_max_ulp(reference.similarities(ROWS, None, "cosine")[:4, :4], np.float32(expected)[:4, :4])
    np.testing.assert_array_equal(np.isnan(reference.similarities(ROWS, None, "cosine")), np.isnan(expected))
    assert reference.unjudged_rows(ROWS, "cosine").tolist() == [4, 5]
    assert reference.unjudged_rows(ROWS, "l2").tolist() == [5]
    assert reference.similarities(ROWS, None, "l2")[4, 2] == -9


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("element", ["float32", "float16", "bfloat16", "int8"])
def test_every_similarity_is_that_of_the_pair(element: str, metric: rowwise.Metric) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((30, 37), dtype=np.float32), random.standard_normal((41, 37), dtype=np.float32)
    if element == "int8":
        x, y = (x * 40).astype(np.int8), (y * 40).astype(np.int8)
    elif element != "float32":
        x, y = rowwise.narrow(x, element), rowwise.narrow(y, element)
    rows, cols = (index.ravel() for index in np.indices((30, 41)))
    expected = rowwise.pair_similarity(x[rows], y[cols], metric).reshape(30, 41)
    np.testing.assert_array_equal(reference.similarities(x, y, metric), expected)


def test_an_inner_product_with_a_row_that_is_not_finite_is_none() -> None:
    x = np.array([[1e20, 0], [1, 0]], np.float32)  # 1e20 * 1 is finite, but the square of 1e20 is not
    assert rowwise.pair_similarity(x[:1], x[1:], "inner_product") == np.float32(1e20)
    assert np.isnan(reference.similarities(x, None, "inner_product")).all()


def test_copies_have_the_same_bits() -> None:
    assert reference.copy_of(ROWS).tolist() == [-1, -1, -1, 0, -1, -1]
    assert reference.copy_of(np.array([[0.0], [-0.0], [0.0]], np.float32)).tolist() == [-1, -1, 0]


def test_pairs_are_of_rows_that_are_first_with_their_bits() -> None:
    similarity = reference.similarities(ROWS, None, "cosine")
    rows, cols, found = reference.pairs_above(ROWS, similarity, 0.25)
    assert list(zip(rows.tolist(), cols.tolist(), strict=True)) == [(0, 1), (1, 2)]
    np.testing.assert_array_equal(found, similarity[[0, 1], [1, 2]])
    cross = reference.similarities(ROWS[2:], ROWS, "cosine")
    rows, cols, _ = reference.pairs_above(ROWS[2:], cross, 0.75, ROWS)
    assert list(zip(rows.tolist(), cols.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0)]


def test_components_are_linked_through_other_rows() -> None:
    similarity = reference.similarities(ROWS, None, "cosine")
    assert reference.components_above(similarity, 0.25).tolist() == [0, 0, 0, 0, 4, 5]
    assert reference.components_above(similarity, 0.75).tolist() == [0, 1, 1, 0, 4, 5]
    assert reference.components_above(similarity, 1.5).tolist() == [0, 1, 2, 3, 4, 5]
    chain = np.full((7, 7), np.nan, np.float32)
    for row, col in ((6, 5), (5, 3), (3, 4), (4, 1), (2, 0)):
        chain[row, col] = chain[col, row] = 1
    assert reference.components_above(chain, 1).tolist() == [0, 1, 0, 1, 1, 1, 1]


def test_counts_hold_copies() -> None:
    assert reference.count_above(reference.similarities(ROWS, None, "cosine"), 0.25).tolist() == [2, 3, 1, 2, 0, 0]


def test_ties_go_to_the_row_of_highest_priority_and_to_the_lower_row() -> None:
    similarity = reference.similarities(ROWS, None, "cosine")
    indices, best = reference.most_similar_earlier(similarity, np.array([3, 2, 5, 0, 1, 4]), 0.25)
    assert indices.tolist() == [3, 2, -1, -1, -1, -1]
    np.testing.assert_array_equal(best, np.float32([1, similarity[1, 2], NAN, NAN, NAN, NAN]))
    indices, _ = reference.most_similar_earlier(similarity, np.array([3, 0, 1, 2, 4, 5]), 0.25)
    assert indices.tolist() == [3, 3, 1, -1, -1, -1]  # row 1 is as near to 0 as to 3
    indices, near = reference.nearest(similarity, 5)
    assert indices[:4].tolist() == [[3, 1, 2, -1, -1], [2, 0, 3, -1, -1], [1, 0, 3, -1, -1], [0, 1, 2, -1, -1]]
    assert (indices[4:] == -1).all()
    np.testing.assert_array_equal(np.isnan(near), indices == -1)


def test_log_sum_exp_is_of_the_pairs() -> None:
    similarity = reference.similarities(ROWS, ROWS[:3], "cosine")
    rows, cols = reference.log_sum_exp(similarity, 100)
    terms = 100 * similarity[:4].astype(np.float64)
    np.testing.assert_allclose(rows[:4], np.log(np.exp(terms - 100).sum(1)) + 100, rtol=1e-14)
    np.testing.assert_allclose(cols, np.log(np.exp(terms - 100).sum(0)) + 100, rtol=1e-14)
    assert rows[4:].tolist() == [-np.inf, -np.inf]


def test_a_threshold_is_rounded_once() -> None:
    similarity = np.float32([[0.8]])
    assert [bool(reference.reaching(similarity, t)[0, 0]) for t in (0.8, 0.8 + 1e-9, 0.8 + 6e-8, 1e300, -1e300)] == [
        True, True, False, False, True,
    ]  # fmt: skip
