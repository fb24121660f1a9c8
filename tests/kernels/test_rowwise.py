from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycurate.kernels import active_isa, rowwise, set_active_isa
from pycurate.kernels.device import cuda_support
from pycurate.kernels.rowwise import Heads, convert, pair_similarity, row_statistics, rowwise_scores, sum_by_cluster
from pycurate.reference import rowwise as reference
from pycurate.testing import AVAILABLE_ISAS, CUDA

ELEMENTS = ["float16", "bfloat16", "float32", "int8"]
METRICS: list[rowwise.Metric] = ["cosine", "inner_product", "l2"]
SIZES = [0, 1, 15, 16, 17, 31, 32, 33, 511, 512, 768, 1025]  # around every vector width and step

Rows = NDArray[Any]


def options(x: Rows) -> dict[str, Any]:
    """How to call a kernel on ``x``: bfloat16 is held as uint16 here."""
    return {"dtype": "bfloat16"} if x.dtype == np.uint16 else {}


def make_rows(element: str, shape: tuple[int, ...], seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    if element == "int8":
        return rng.integers(-128, 128, shape).astype(np.int8)
    x = rng.standard_normal(shape, dtype=np.float32)
    return x if element == "float32" else reference.narrow(x, element)


def any_bits(element: str, shape: tuple[int, ...], seed: int) -> Rows:
    """Rows of random bits, so that NaN, infinities, subnormals and extremes are among them, and whole zero rows."""
    stored = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32, "int8": np.int8}[element]
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (*shape, np.dtype(stored).itemsize), np.uint8).view(stored)[..., 0]
    x[rng.random(shape[:-1]) < 0.2] = 0
    return x


def make_heads(count: int, d: int) -> Heads:
    rng = np.random.default_rng(d)
    return Heads(rng.standard_normal((count, d), dtype=np.float32), rng.standard_normal(count, dtype=np.float32))


def assert_same_bits(actual: Rows | None, expected: Rows) -> None:
    assert actual is not None
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    bits = f"u{actual.dtype.itemsize}"
    np.testing.assert_array_equal(actual.view(bits), expected.view(bits))


def assert_equals_reference(
    a: Rows, b: Rows, heads_a: Heads | None, heads_b: Heads | None, device: str = "cpu"
) -> None:
    for metric in METRICS:
        expected = reference.pair_similarity(a, b, metric)
        assert_same_bits(pair_similarity(a, b, metric, device=device, **options(a)), expected)
        scores = rowwise_scores(a, b, metric, heads_a=heads_a, heads_b=heads_b, device=device, **options(a))
        assert_same_bits(scores.similarities, expected)
    for x, norms, scored, heads in ((a, scores.norms_a, scores.heads_a, heads_a),
                                    (b, scores.norms_b, scores.heads_b, heads_b)):  # fmt: skip
        statistics = row_statistics(x, heads=heads, device=device, **options(x))
        assert_same_bits(norms, reference.norms(x))
        assert_same_bits(statistics.norms, reference.norms(x))
        assert_same_bits(statistics.flags, reference.flags(x))
        if heads is None:
            assert scored is None
            assert statistics.heads is None
        else:
            expected = reference.head_scores(x, heads.weights, heads.bias)
            assert_same_bits(scored, expected)
            assert_same_bits(statistics.heads, expected)
    assert_same_bits(scores.flags, reference.flags(a) | reference.flags(b) << 2)


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_bits_equal_the_reference(element: str, d: int, engine: str) -> None:
    a, b = make_rows(element, (2, 5, d), seed=d)
    assert_equals_reference(a, b, make_heads(3, d), make_heads(1, d), engine)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 16, 17, 33])  # around the rows that are finished together
@pytest.mark.parametrize(("count_a", "count_b"), [(0, 2), (2, 0), (1, 5)])
def test_every_row_and_head_is_scored(n: int, count_a: int, count_b: int, engine: str) -> None:
    a, b = make_rows("float16", (2, n, 40), seed=n)
    heads = [make_heads(count, 40) if count else None for count in (count_a, count_b)]
    assert_equals_reference(a, b, *heads, engine)


@settings(max_examples=60, deadline=None)
@given(
    element=st.sampled_from(ELEMENTS),
    n=st.integers(0, 20),
    d=st.integers(0, 70),
    count=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bits_equal_the_reference(element: str, n: int, d: int, count: int, seed: int) -> None:
    a, b = any_bits(element, (2, n, d), seed)
    if seed % 3 == 0:
        b = a.copy()
    before = active_isa()
    try:
        for isa in AVAILABLE_ISAS:
            set_active_isa(isa)
            assert_equals_reference(a, b, make_heads(count, d) if count else None, None)
    finally:
        set_active_isa(before)
    if not cuda_support().missing:
        assert_equals_reference(a, b, make_heads(count, d) if count else None, None, CUDA)


def test_reads_every_float16(engine: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    expected = every[:, 0].astype(np.float32)
    expected[~np.isfinite(expected)] = np.nan
    np.testing.assert_array_equal(pair_similarity(every, np.ones_like(every), "inner_product", device=engine), expected)


@cache
def float32_around_every_half(element: str) -> Rows:
    """Every value of a 16-bit type and the midpoint to the next, each with its two float32 neighbours."""
    dropped = 13 if element == "float16" else 16
    every = np.arange(2**16, dtype=np.uint16)
    bits = reference.widen(every if element == "bfloat16" else every.view(np.float16)).view(np.uint32).astype(np.int64)
    near = [bits + half + step for half in (0, 1 << (dropped - 1)) for step in (-1, 0, 1)]
    subnormal = np.float32(2**-25) * np.arange(5000, dtype=np.float32)  # midpoints of subnormal float16
    return np.concatenate([*(n.astype(np.uint32).view(np.float32) for n in near), subnormal]).reshape(1, -1)


@pytest.mark.usefixtures("isa")
def test_convert_rounds_every_value_to_nearest_even() -> None:
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    assert_same_bits(convert(every.view(np.float16), "float32"), reference.widen(every.view(np.float16)))
    assert_same_bits(convert(every, "float32", dtype="bfloat16"), reference.widen(every))
    for element in ("float16", "bfloat16"):
        x = float32_around_every_half(element)
        assert_same_bits(convert(x, element), reference.narrow(x, element))
    wide = float32_around_every_half("float16")
    number = ~np.isnan(wide)
    with np.errstate(over="ignore"):
        assert_same_bits(convert(wide, "float16")[number], wide[number].astype(np.float16))
    assert_same_bits(convert(every, "float16", dtype="bfloat16"), reference.narrow(reference.widen(every), "float16"))


@pytest.mark.parametrize("d", [0, 1, 15, 16, 17, 100])
@pytest.mark.usefixtures("isa")
def test_convert_of_strided_rows(d: int) -> None:
    x = make_rows("float32", (9, d + 3))[::-2, 1 : d + 1]
    assert_same_bits(convert(x, "bfloat16"), reference.narrow(np.ascontiguousarray(x), "bfloat16"))
    assert_same_bits(convert(convert(x, "float16"), "float16"), convert(x, "float16"))


@pytest.mark.parametrize("element", ELEMENTS)
def test_identical_rows_are_exactly_one(element: str, engine: str) -> None:
    a = make_rows(element, (200, 100))
    assert np.all(pair_similarity(a, a.copy(), **options(a), device=engine) == 1)
    distance = pair_similarity(a, a.copy(), "l2", **options(a), device=engine)
    assert not distance.any()
    assert not np.signbit(distance).any()


def test_cosine_never_exceeds_one(engine: str) -> None:
    a = make_rows("float32", (5000, 33))
    scale = np.linspace(0.1, 10, 5000, dtype=np.float32)[:, None]
    similarities = np.concatenate(
        [pair_similarity(a, a * scale, device=engine), pair_similarity(a, -a * scale, device=engine)]
    )
    assert np.abs(similarities).max() == 1


def test_rows_that_cannot_be_judged_are_nan_and_flagged(engine: str) -> None:
    good = np.ones((6, 20), np.float32)
    bad = good.copy()
    bad[0, 3], bad[1, 19], bad[2, 0] = np.nan, np.inf, -np.inf
    bad[3] = 0
    bad[4] = 1e19  # finite, but its squared norm is 2e39
    scores = rowwise_scores(bad, good, device=engine)
    np.testing.assert_array_equal(np.isnan(scores.similarities), [True, True, True, True, True, False])
    not_finite, zero = rowwise.A_NOT_FINITE, rowwise.A_ZERO
    np.testing.assert_array_equal(scores.flags, [not_finite, not_finite, not_finite, zero, not_finite, 0])
    np.testing.assert_array_equal(scores.norms_a[:5], np.array([np.nan, np.inf, np.inf, 0, np.inf], np.float32))
    np.testing.assert_array_equal(rowwise_scores(good, bad, device=engine).flags, scores.flags << 2)
    np.testing.assert_array_equal(row_statistics(bad, device=engine).flags, scores.flags)
    l2, inner_product = (
        rowwise_scores(bad, good, metric, device=engine).similarities for metric in ("l2", "inner_product")
    )
    np.testing.assert_array_equal(np.isnan(l2), [True, True, True, False, True, False])
    np.testing.assert_array_equal(np.isnan(inner_product), [True, True, True, False, False, False])
    assert l2[3] == -20


def test_float16_extremes_and_subnormals(engine: str) -> None:
    a = np.full((3, 64), 65504, np.float16)
    a[1], a[2] = 2**-24, -(2**-24)
    b = np.full((3, 64), 65504, np.float16)
    scores = rowwise_scores(a, b, device=engine)
    np.testing.assert_array_equal(scores.similarities, np.array([1, 1, -1], np.float32))
    np.testing.assert_array_equal(scores.norms_a, np.array([8 * 65504, 2**-21, 2**-21], np.float32))


def test_the_last_group_is_filled_with_zeros(engine: str) -> None:
    # 1e-30 * -1e-30 rounds to -0. A lane that ends on it stays -0, unless a zero product is added after it.
    for d, negative in ((16, True), (31, False), (32, True), (33, False), (48, True)):
        a = np.full((1, d), 1e-30, np.float32)
        assert np.signbit(pair_similarity(a, -a, "inner_product", device=engine))[0] == negative, d


def test_int8_sums_exactly_beyond_int32(engine: str) -> None:
    a = np.full((1, 200_003), -128, np.int8)
    assert pair_similarity(a, a, "inner_product", device=engine)[0] == np.float32(200_003 * 2**14)
    assert row_statistics(a, device=engine).norms[0] == np.float32(np.sqrt(200_003.0) * 128)


@pytest.mark.parametrize("element", ELEMENTS)
def test_rows_any_stride_apart_are_read_in_place(element: str, engine: str) -> None:
    base = make_rows(element, (12, 90))
    for view in (base[::3, 7:60], base[::-1], np.broadcast_to(base[4], (6, 90)), base[:, 5:6], base[3:4]):
        expected = np.ascontiguousarray(view)
        assert_same_bits(
            pair_similarity(view, view[::-1], **options(base), device=engine),
            reference.pair_similarity(expected, expected[::-1], "cosine"),
        )
    a, b = make_rows(element, (2, 4, 49), seed=1)
    odd = np.empty(a.nbytes + 1, np.uint8)
    odd[1:] = a.view(np.uint8).ravel()
    unaligned = odd[1:].view(a.dtype).reshape(a.shape)
    assert_equals_reference(unaligned, b, make_heads(2, 49), None, engine)


@pytest.mark.parametrize("metric", METRICS)
def test_threads_do_not_change_a_bit(metric: rowwise.Metric) -> None:
    a, b = make_rows("float16", (2, 3001, 200))
    heads = make_heads(2, 200)
    one = rowwise_scores(a, b, metric, heads_a=heads, threads=1)
    assert_same_bits(one.similarities[-7:], reference.pair_similarity(a[-7:], b[-7:], metric))
    for threads in (2, 7, None):
        many = rowwise_scores(a, b, metric, heads_a=heads, threads=threads)
        for name in ("similarities", "norms_a", "norms_b", "flags", "heads_a"):
            assert_same_bits(getattr(many, name), getattr(one, name))
    assert_same_bits(convert(a, "bfloat16", threads=7), convert(a, "bfloat16", threads=1))


def test_bfloat16_of_ml_dtypes_is_taken_as_it_is() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    bits = make_rows("bfloat16", (2, 5, 33))
    a, b = bits.view(ml_dtypes.bfloat16)
    expected = pair_similarity(*bits, dtype="bfloat16")
    assert_same_bits(pair_similarity(a, b), expected)
    assert_same_bits(pair_similarity(a, bits[1], dtype="bfloat16"), expected)
    assert_same_bits(convert(a, "float32"), a.astype(np.float32))


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_stops_a_long_call(threads: int) -> None:
    x = np.broadcast_to(np.ones(1 << 15, np.float32), (2_000_000, 1 << 15))  # a minute of work
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pair_similarity(x, x, threads=threads)
    assert time.monotonic() - start < 1.2  # within a second of the signal
    interrupt.join()


ROWS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.zeros((2, 3)), r"b: expected float16, .* got dtype float64; .* b\.astype\(numpy\.float32\)"),
        (np.zeros((2, 3), int), "b: expected float16, bfloat16, float32 or int8 in native byte order, got dtype int64"),
        (ROWS.astype(">f4"), "b: .*native byte order, got dtype >f4"),
        (np.zeros((2, 3), np.float16), "b: expected float32 to match a, got float16"),
        (np.zeros((2, 3), np.uint16), "b: got dtype uint16, .*pass dtype='bfloat16'"),
        ([[0.0] * 3] * 2, r"b: expected a NumPy array, got list; pass numpy\.asarray\(b\)"),
        (np.zeros((2, 4), np.float32), r"b: expected shape \(2, 3\) to match a, got \(2, 4\)"),
        (np.zeros(3, np.float32), r"b: expected a 2-D array \(n, d\), got 1-D"),
        (
            np.zeros((3, 2), np.float32).T,
            r"b: expected adjacent elements.*\(4, 8\); pass numpy\.ascontiguousarray\(b\)",
        ),
        (np.zeros((2, 6), np.float32)[:, ::2], "b: expected adjacent elements in each row"),
    ],
)
def test_a_wrong_argument_is_named(b: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pair_similarity(ROWS, b)
    with pytest.raises((TypeError, ValueError), match=message):
        rowwise_scores(ROWS, b)


def test_dtypes_are_type_errors_and_shapes_value_errors() -> None:
    with pytest.raises(TypeError, match=r"^a: expected float16"):
        pair_similarity(np.zeros((2, 3)), ROWS)
    with pytest.raises(TypeError, match=r"^x: expected float16"):
        row_statistics(np.zeros((2, 3), np.int64))
    with pytest.raises(TypeError, match="a: expected bfloat16 or its bits as uint16"):
        pair_similarity(ROWS, ROWS, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype: expected None or 'bfloat16', got 'float16'"):
        pair_similarity(ROWS, ROWS, dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metric: expected 'cosine', 'inner_product' or 'l2', got 'dot'"):
        pair_similarity(ROWS, ROWS, "dot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads: expected None or at least 1, got 0"):
        pair_similarity(ROWS, ROWS, threads=0)
    with pytest.raises(TypeError, match="x: expected float32, float16 or bfloat16 to convert, got int8"):
        convert(ROWS.astype(np.int8), "float32")
    with pytest.raises(ValueError, match=r"to: expected .* got 'float64'"):
        convert(ROWS, "float64")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        (np.zeros((2, 4), np.float32), np.zeros(2, np.float32), r"heads_a\.weights: expected shape \(h, 3\).*\(2, 4\)"),
        (np.zeros((2, 3), np.float32), np.zeros(3, np.float32), r"heads_a\.bias: expected shape \(2,\).*\(3,\)"),
        (np.zeros(3, np.float32), np.zeros(1, np.float32), r"heads_a\.weights: expected a 2-D array"),
        (np.zeros((3, 2), np.float32).T, np.zeros(2, np.float32), r"heads_a\.weights: expected C order"),
        (np.zeros((2, 3)), np.zeros(2, np.float32), "weights: expected a float32 array, got dtype float64"),
        (np.zeros((2, 3), np.float32), [0.0, 0.0], "bias: expected a float32 array, got list"),
    ],
)
def test_wrong_heads_are_named(weights: Any, bias: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        rowwise_scores(ROWS, ROWS, heads_a=Heads(weights, bias))


@pytest.mark.parametrize(
    ("n", "d", "clusters", "block_rows"), [(0, 5, 3, 7), (1, 1, 1, 1), (300, 0, 2, 9), (1000, 131, 37, 64)]
)
@pytest.mark.parametrize("divided", [False, True])
def test_sums_by_cluster(n: int, d: int, clusters: int, block_rows: int, divided: bool) -> None:
    random = np.random.default_rng(n)
    x = random.standard_normal((n, d)).astype(np.float32) * np.float32(10) ** random.integers(-20, 20, (n, 1))
    x[::7] = -0.0
    x = x.astype(np.float32)
    lengths = random.uniform(0.1, 9, n) if divided else None
    cluster = random.integers(0, clusters, n)
    expected = reference.sum_by_cluster(x, lengths, cluster, clusters, block_rows)
    for threads in (1, 2, 5):
        found = sum_by_cluster(x, lengths, cluster, clusters, block_rows, threads=threads)
        np.testing.assert_array_equal(found.view(np.uint64), expected.view(np.uint64))


def test_sums_by_cluster_refuse_what_is_none() -> None:
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(IndexError, match=r"cluster: expected numbers in \[0, 2\), got 2"):
        sum_by_cluster(x, None, np.array([0, 1, 2]), 2, 4)
    with pytest.raises(ValueError, match=r"expected shape \(3,\), C order"):
        sum_by_cluster(x, np.ones(2), np.zeros(3, np.int64), 2, 4)
    with pytest.raises(ValueError, match="block_rows: expected at least 1"):
        sum_by_cluster(x, None, np.zeros(3, np.int64), 2, 0)
