from __future__ import annotations

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.ops.dedup.priority import NO_VALUE, priority_keys


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_sort_by_value_and_missing_ones_last(dtype: type) -> None:
    values = np.array([-np.inf, -2.5, -1e-4, -0.0, 0.0, 1e-4, 1.0, 3.0, np.inf, np.nan, -np.nan], dtype)
    for order, sign in (("lowest", 1), ("highest", -1)):
        keys = priority_keys(values, order)  # type: ignore[arg-type]
        assert keys.dtype == np.uint64
        assert keys[3] == keys[4]
        assert (keys[9:] == NO_VALUE).all()
        assert (keys[:9] < NO_VALUE).all()
        steps = np.sign(np.diff(keys[:9].astype(object)))
        assert steps.tolist() == [sign, sign, sign, 0, sign, sign, sign, sign]


def test_integers_keep_their_low_bits() -> None:
    values = np.array([-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63 - 1])
    assert (np.diff(priority_keys(values, "lowest").astype(object)) > 0).all()
    assert (np.diff(priority_keys(values, "highest").astype(object)) < 0).all()
    assert priority_keys(np.array([0, 7, 255], np.uint8), "lowest").tolist() == [0, 7, 255]
    assert priority_keys(np.array([True, False]), "highest").argsort().tolist() == [0, 1]
    assert len(priority_keys(np.empty(0, np.float32), "lowest")) == 0


def test_what_is_no_number_a_row_is_refused() -> None:
    with pytest.raises(InputError, match="one number a row"):
        priority_keys(np.array([b"a"]), "lowest")
    with pytest.raises(InputError, match=r"shape \(2, 2\)"):
        priority_keys(np.zeros((2, 2)), "lowest")
