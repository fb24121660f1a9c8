"""Defects and norms of embedding rows against plain NumPy, in every stored format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.kernels import Isa
from pycurate.ops import preflight
from pycurate.ops.preflight import INFINITE, NAN, OVERFLOW, SOUND, ZERO, NormSummary, embedding_defects, norm_summary


def widened(values: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return values.astype(np.float64)


def rows_with_everything(dtype: str, n: int, d: int) -> NDArray[Any]:
    values = np.random.default_rng(d).normal(size=(n, d)).astype(np.float32)
    if dtype == "int8":
        values = (40 * values).clip(-128, 127).astype(np.int8)
        values[::7] = 0
        return values
    values[::7] = -0.0
    values[1::7, -1] = np.nan
    values[2::7, 0] = -np.inf
    values[3::7, d // 2] = np.inf
    values[3::7, 0] = np.nan
    if dtype != "float16":
        values[4::7] = 1e30
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (9, 3), (50, 17), (4099, 33)])
def test_defects_are_those_of_the_definition(dtype: str, n: int, d: int, isa: Isa) -> None:
    values = rows_with_everything(dtype, n, d)
    wide = widened(values, dtype)
    with np.errstate(all="ignore"):
        squares = (wide * wide).sum(axis=1)
        expected = np.select(
            [
                np.isnan(wide).any(axis=1),
                np.isinf(wide).any(axis=1),
                squares > np.finfo(np.float32).max,
                squares == 0,
            ],
            [NAN, INFINITE, OVERFLOW, ZERO],
            SOUND,
        )
    norms, defects = embedding_defects(values, dtype)
    assert (norms.dtype, defects.dtype, norms.shape) == (np.float32, np.uint8, (n,))
    np.testing.assert_array_equal(defects, expected)
    sound = expected == SOUND
    # float32 sums of d <= 33 terms
    np.testing.assert_allclose(norms[sound], np.sqrt(squares[sound]), rtol=33 * 2.0**-24)
    threaded, _ = embedding_defects(values, dtype, threads=3)
    np.testing.assert_array_equal(norms, threaded)


def test_summary_leaves_damaged_rows_out_and_merges() -> None:
    norms = np.array([1.0, 3.0, np.nan, 0.0, 0.995, 1.02], np.float32)
    defects = np.array([SOUND, SOUND, NAN, ZERO, SOUND, SOUND], np.uint8)
    summary = norm_summary(norms, defects)
    assert (summary.rows, summary.minimum, summary.maximum) == (4, np.float32(0.995), 3.0)
    assert summary.total == pytest.approx(6.015)
    assert summary.unnormalised == 2
    np.testing.assert_array_equal(np.flatnonzero(preflight.unnormalised(norms, defects)), [1, 5])
    assert norm_summary(norms[2:4], defects[2:4]) == NormSummary()
    assert NormSummary().merge(summary) == summary.merge(NormSummary()) == summary
    doubled = summary.merge(summary)
    assert (doubled.rows, doubled.total, doubled.unnormalised) == (8, 2 * summary.total, 4)
