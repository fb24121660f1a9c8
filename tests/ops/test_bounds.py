from __future__ import annotations

import numpy as np
import pytest

from pycurate.ops.scores.image_shape import aspect_ratio, shortest_side
from pycurate.ops.selection.bounds import missing, outside

VALUES = np.float32([0.27999997, 0.28, 0.28000003, np.nan, np.inf, -np.inf, -0.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inclusive", [True, False])
def test_bounds_are_compared_in_the_scores_own_precision(dtype: type, inclusive: bool) -> None:
    values = VALUES.astype(dtype)
    limit = dtype(0.28)
    with np.errstate(invalid="ignore"):
        low = values < limit if inclusive else values <= limit
        high = values > limit if inclusive else values >= limit
    np.testing.assert_array_equal(outside(values, 0.28, "minimum", inclusive), low)
    np.testing.assert_array_equal(outside(values, 0.28, "maximum", inclusive), high)


def test_a_float32_score_equal_to_the_rounded_limit_is_inside() -> None:
    # float32(0.28) is below 0.28 in float64: a comparison in float64 would drop the row that the script keeps.
    assert float(np.float32(0.28)) != 0.28
    assert outside(np.float32([0.28]), 0.28, "minimum").tolist() == [False]
    assert outside(np.float32([0.26]), 0.26, "maximum").tolist() == [False]


def test_nan_is_missing_and_never_outside() -> None:
    nan = np.float32([np.nan])
    assert missing(nan).tolist() == [True]
    assert not outside(nan, 0.0, "minimum").any()
    assert not outside(nan, 0.0, "maximum").any()
    assert missing(np.array([1, 2], np.uint8)).tolist() == [False, False]


def test_a_limit_beyond_float32_drops_all_or_nothing_without_a_warning() -> None:
    finite = np.float32([1.0, 3.4e38])
    assert outside(finite, 1e300, "minimum").all()
    assert not outside(finite, 1e300, "maximum").any()


def test_shapes_are_what_pandas_computes() -> None:
    width = np.array([300, 100, 0, 0, 640, np.nan, 1.0])
    height = np.array([100, 300, 10, 0, 480, 10, np.nan])
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.maximum(width, height) / np.minimum(width, height)
    np.testing.assert_array_equal(shortest_side(width, height), np.minimum(width, height))
    ratio = aspect_ratio(width, height)
    np.testing.assert_array_equal(ratio <= 3.0, plain <= 3.0)
    np.testing.assert_array_equal(ratio[[0, 1, 4]], plain[[0, 1, 4]])
    assert ratio[2] == ratio[3] == np.inf
    assert np.isnan(ratio[5:]).all()
