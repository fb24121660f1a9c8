from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels import threshold as kernels
from pycurate.reference import threshold as reference
from pycurate.types import UID_DTYPE

SIZES = [0, 1, 3, 4, 5, 7, 8, 9, 17, 1000]
FLOATS = [np.float32, np.float64]


def special_values(dtype: type) -> NDArray[Any]:
    info = np.finfo(dtype)
    numbers = [0.0, info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, 0.25, 0.28, 1, info.max, np.inf]
    nan = np.array([np.nan, -np.nan], dtype)
    bits = nan.view(f"u{nan.itemsize}")
    loud = np.stack([bits + bits.dtype.type(1), bits - bits.dtype.type(1)]).view(dtype).reshape(-1)
    return np.concatenate([np.array(numbers, dtype), -np.array(numbers, dtype), nan, loud])


def values_of(n: int, dtype: type) -> NDArray[Any]:
    """n values: scores around 0.22, in a part of them every special value."""
    rng = np.random.default_rng(n)
    values = rng.normal(0.22, 0.06, n).astype(dtype)
    special = special_values(dtype)
    return np.where(rng.random(n) < 0.4, rng.choice(special, n), values) if n else values


@pytest.mark.parametrize("dtype", FLOATS)
def test_keys_are_ordered_as_values_and_come_back(dtype: type) -> None:
    values = np.sort(values_of(1000, dtype))
    values = values[~np.isnan(values)]
    keys = reference.ordered_keys(values)
    np.testing.assert_array_equal(values[1:] > values[:-1], keys[1:] > keys[:-1])
    back = reference.values_of_keys(keys)
    np.testing.assert_array_equal(back, values)
    assert not np.signbit(back[back == 0]).any()
    assert [kernels.value_of_key(key, np.dtype(dtype)) for key in keys.tolist()] == values.tolist()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.usefixtures("isa")
def test_every_digit_of_floats_equals_the_reference(n: int, dtype: type, masked: bool) -> None:
    values = values_of(n, dtype)
    mask = np.random.default_rng(1).random(n) < 0.6 if masked else None
    digits = kernels.key_digits(np.dtype(dtype))
    first = kernels.count_digit(values, 0, 0, mask)
    competing = values if mask is None else values[mask]
    assert first.dtype == np.int64
    assert first.sum() == np.count_nonzero(~np.isnan(competing))
    keys = reference.ordered_keys(competing[~np.isnan(competing)]).tolist()
    for digit in range(digits):
        every = {key >> 16 * (digits - digit) for key in keys} | {0, 16**4 - 1, 2**15}
        for prefix in sorted(every)[:: 1 + len(every) // 12] if digit else [0]:
            expected = reference.count_digit(values, digit, prefix, mask)
            np.testing.assert_array_equal(kernels.count_digit(values, digit, prefix, mask), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ["zeros", "infinities", "not a number", "equal"])
@pytest.mark.usefixtures("isa")
def test_full_vectors_of_special_values(case: str, dtype: type) -> None:
    values = {
        "zeros": np.tile(np.array([0.0, -0.0], dtype), 20),
        "infinities": np.tile(np.array([np.inf, -np.inf, np.nan], dtype), 20),
        "not a number": np.full(40, np.nan, dtype),
        "equal": np.full(40, 0.28, dtype),
    }[case]
    digits = kernels.key_digits(np.dtype(dtype))
    for value in {0.0, np.inf, -np.inf, 0.28}:
        (key,) = reference.ordered_keys(np.array([value], dtype)).tolist()
        for digit in range(digits):
            prefix = key >> 16 * (digits - digit)
            expected = reference.count_digit(values, digit, prefix)
            np.testing.assert_array_equal(kernels.count_digit(values, digit, prefix), expected)
        assert kernels.count_digit(values, digits - 1, key >> 16)[key & 0xFFFF] == np.count_nonzero(
            values == np.array(value, dtype)
        )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_every_digit_of_uids_equals_the_reference(n: int, masked: bool) -> None:
    rng = np.random.default_rng(n)
    uids = rng.integers(0, 2**64, (n, 2), dtype=np.uint64).reshape(-1).view(UID_DTYPE)
    uids["f0"][: n // 2] = 7
    uids["f1"][: n // 3] = np.uint64(2**63)
    mask = rng.random(n) < 0.6 if masked else None
    numbers = [high << 64 | low for high, low in uids.tolist()]
    for digit in range(8):
        for prefix in {number >> 16 * (8 - digit) for number in numbers[:: max(1, n // 8)]} | {0}:
            expected = reference.count_digit(uids, digit, prefix, mask)
            np.testing.assert_array_equal(kernels.count_digit(uids, digit, prefix, mask), expected)


def test_wrong_arguments_are_named() -> None:
    values = np.zeros(4, np.float32)
    with pytest.raises(TypeError, match="values: expected dtype float32 or float64, got float16"):
        kernels.count_digit(values.astype(np.float16), 0)
    with pytest.raises(ValueError, match="values: expected a contiguous, aligned array; pass a copy"):
        kernels.count_digit(values[::2], 0)
    with pytest.raises(ValueError, match=r"values: expected a 1-D array \(n,\), got 2-D"):
        kernels.count_digit(values.reshape(2, 2), 0)
    with pytest.raises(ValueError, match="digit: expected less than 2"):
        kernels.count_digit(values, 2)
    with pytest.raises(TypeError, match="mask: expected dtype bool, got uint8"):
        kernels.count_digit(values, 0, 0, np.zeros(4, np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask: expected 4 rows, got shape \(3,\)"):
        kernels.count_digit(values, 0, 0, np.zeros(3, np.bool_))
    with pytest.raises(InputError, match="values: expected a contiguous 1-D array of uids"):
        kernels.count_digit(np.zeros(4, UID_DTYPE)[::2], 0)
    with pytest.raises(InputError, match="dtype: expected float32, float64 or uids, got int64"):
        kernels.key_digits(np.dtype(np.int64))
