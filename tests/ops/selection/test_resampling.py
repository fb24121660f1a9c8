from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.ops.selection.resampling import (
    balanced_entries,
    entry_keep_probabilities,
    repeat_factors,
    repeat_rows,
)
from pycurate.reference import balance as reference
from pycurate.types import UID_DTYPE


def padded(rows: list[list[int]]) -> np.ndarray:
    made = np.full((len(rows), max(map(len, rows))), -1)
    for row, values in zip(made, rows, strict=True):
        row[: len(values)] = values
    return made


def drawn_rows(n: int, seed: int) -> tuple[list[list[int]], dict[int, int]]:
    random = np.random.default_rng(seed)
    rows = [random.zipf(1.5, random.integers(0, 5)).clip(0, 30).tolist() for _ in range(n)]
    rows[0] = [2, 2, 5]
    return rows, {c: sum(c in row for row in rows) for c in range(31)}


def test_a_row_takes_the_largest_factor_of_its_classes() -> None:
    rows, rows_with = drawn_rows(400, 0)
    found = repeat_rows(padded(rows), 0.05)
    expected = [reference.repeat_factor(row, rows_with, 400, 0.05) for row in rows]
    np.testing.assert_allclose(found.factors, expected, rtol=1e-15)
    assert ((found.times == np.floor(found.factors)) | (found.times == np.ceil(found.factors))).all()
    assert found.times.min() == 1


def test_repeats_are_the_factors_on_average_and_follow_the_uid_alone() -> None:
    n = 20_000
    labels = (np.arange(n) % 100 == 0).astype(np.int64)
    found = repeat_rows(labels, 0.08)
    assert found.factors[0] == pytest.approx(8**0.5)
    assert found.times[labels == 1].mean() == pytest.approx(8**0.5, abs=4 * 0.5 / 200**0.5)
    assert (found.times[labels == 0] == 1).all()
    uids = np.zeros(n, UID_DTYPE)
    uids["f1"] = np.arange(n)
    order = np.random.default_rng(0).permutation(n)
    again = repeat_rows(labels[order], 0.08, uids=uids[order])
    np.testing.assert_array_equal(again.times, found.times[order])


def test_power_one_evens_out_and_power_zero_does_nothing() -> None:
    counts = np.array([900, 90, 10, 0])
    np.testing.assert_allclose(repeat_factors(counts, 1000, 0.9, power=1), [1, 10, 90, 1])
    np.testing.assert_allclose(repeat_factors(counts, 1000, 0.9, power=0), 1)


def test_metaclip_probabilities_are_their_definition() -> None:
    rows, rows_with = drawn_rows(300, 1)
    found = entry_keep_probabilities(padded(rows), 20)
    expected = [reference.keep_probability(row, rows_with, 20) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    counts = np.full(31, 1000)
    np.testing.assert_allclose(
        entry_keep_probabilities(padded(rows), 20, counts), [1 - 0.98 ** len(set(row)) for row in rows], atol=1e-12
    )
    kept = balanced_entries(padded(rows), 20)
    assert kept[found == 1].all()
    assert not kept[found == 0].any()


def test_metaclip_flattens_the_head() -> None:
    entries = np.where(np.arange(50_000) % 50 == 0, 1, 0)
    kept = balanced_entries(entries, 1000)
    assert kept[entries == 1].all()
    assert abs(kept[entries == 0].sum() - 1000) < 5 * 1000**0.5


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: repeat_rows(np.array([0.5]), 0.1), r"labels: expected \(n,\) or \(n, m\) whole numbers"),
        (lambda: repeat_rows(np.array([1]), 0), "threshold: expected a share above 0 and at most 1, got 0"),
        (lambda: repeat_rows(np.array([1]), float("nan")), "threshold: expected a share above 0"),
        (lambda: repeat_rows(np.array([1]), 0.1, power=2), "power: expected a number from 0 to 1, got 2"),
        (lambda: repeat_factors([-1], 3, 0.1), r"counts: expected \(C,\) whole numbers of at least 0"),
        (lambda: repeat_factors([9], 3, 0.1), "rows: expected at least the 9 rows of the largest class, got 3"),
        (lambda: entry_keep_probabilities(np.array([1]), 0), "limit: expected a whole number of at least 1, got 0"),
        (lambda: entry_keep_probabilities(np.array([3]), 2, [5]), "counts: expected one for each entry up to 3"),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()
