from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pycurate.reference import rowwise as reference

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def round_to_float32(exact: Fraction) -> np.float32:
    """Nearest float32, ties to even, found by comparing exact distances."""
    with np.errstate(all="ignore"):
        guess = np.float32(float(exact))
        around = [guess, np.nextafter(guess, np.float32(-np.inf)), np.nextafter(guess, np.float32(np.inf))]
    finite = [value for value in around if np.isfinite(value)]
    return min(finite, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(np.uint32)) & 1))


# Just below a tie: float64 rounds the sum to the tie itself, and rounding that again goes the wrong way.
@example(x=2**-12 * (1 + 2**-23), y=2**-12 * (1 - 2**-23), z=1 + 2**-23)
@example(x=2**-12 * (1 + 2**-23), y=-(2**-12) * (1 - 2**-23), z=-1 - 2**-23)
@example(x=2**-75, y=2**-75, z=2**-149)
@example(x=1.5 * 2**-75, y=2**-75, z=-(2**-149))
@example(x=2**-100, y=-(2**-100), z=1.0)
@settings(max_examples=300, deadline=None)
@given(x=FLOATS, y=FLOATS, z=FLOATS)
def test_fused_multiply_add_rounds_once(x: float, y: float, z: float) -> None:
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    assume(abs(exact) < Fraction(2) ** 128 - Fraction(2) ** 103)  # what is nearer to 2^128 overflows
    result = reference.fused_multiply_add(*(np.array([v], np.float32) for v in (x, y, z)))[0]
    assert result == round_to_float32(exact)


def test_fused_multiply_add_differs_from_rounding_twice() -> None:
    x, y, z = (np.array([v], np.float32) for v in (2**-12 * (1 + 2**-23), 2**-12 * (1 - 2**-23), 1 + 2**-23))
    twice = (x.astype(np.float64) * y + z).astype(np.float32)
    assert reference.fused_multiply_add(x, y, z) != twice


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("d", [1, 17, 768])
def test_canonical_similarity_is_near_the_textbook_one(metric: reference.Metric, d: int) -> None:
    a, b = np.random.default_rng(d).standard_normal((2, 20, d), dtype=np.float32).astype(np.float16)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    # Each of three sums of at most d / 16 + 5 rounded additions errs by that many half units of the sum of magnitudes.
    magnitude = np.square(wide_a).sum(1) + np.square(wide_b).sum(1) + 2 * np.abs(wide_a * wide_b).sum(1)
    bound = (d / 16 + 6) * 2.0**-24 * (1 if metric == "cosine" else magnitude)
    bound = bound * (4 if metric == "cosine" else 1)
    error = np.abs(reference.pair_similarity(a, b, metric) - reference.pair_similarity_float64(a, b, metric))
    assert np.all(error <= bound)


def test_lanes_are_folded_in_the_stated_order() -> None:
    # 2^24 + 1 rounds to 2^24, so that what is added to lane 0 alone is lost: lane 8 first, then lanes 4 + 12.
    x = np.zeros((1, 16), np.float32)
    x[0, [0, 8, 4]] = 2**24, 1, 1
    ones = np.ones_like(x)
    assert reference.canonical_sum(x, ones)[0] == 2**24
    x[0, [0, 8, 4, 12]] = 2**24, 0, 1, 1
    assert reference.canonical_sum(x, ones)[0] == 2**24 + 2
