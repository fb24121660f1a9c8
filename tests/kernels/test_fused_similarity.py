"""Answers over all pairs of rows, bits equal to the definition on every instruction set."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import active_isa, fused_similarity, set_active_isa
from pycurate.kernels.arrays import matrix_of
from pycurate.kernels.fused_similarity import (
    components_above,
    count_above,
    log_sum_exp,
    most_similar_earlier,
    nearest,
    pairs_above,
    unjudged_rows,
)
from pycurate.kernels.rowwise import Metric
from pycurate.reference import fused_similarity as reference
from pycurate.reference import rowwise
from pycurate.testing import AVAILABLE_ISAS

ELEMENTS = ["float16", "bfloat16", "float32", "int8"]
FLOATS = ELEMENTS[:3]
METRICS: list[Metric] = ["cosine", "inner_product", "l2"]
# (n, d): no row, one row, around the rows a tile holds and the lanes of a sum, one element, more than a tile.
SHAPES = [(0, 5), (1, 5), (2, 16), (3, 0), (47, 15), (48, 17), (49, 1), (385, 24), (40, 3), (33, 511), (21, 1025)]
# Where every combination would say little more: each element and each metric at least once.
SOME: list[tuple[str, Metric]] = [
    ("float16", "cosine"),
    ("bfloat16", "l2"),
    ("float32", "inner_product"),
    ("int8", "cosine"),
]
SCALE = 7.5

Rows = NDArray[Any]
Indices = NDArray[np.int64]


def options(x: Rows) -> dict[str, Any]:
    """How to call a function on ``x``: bfloat16 is held as uint16 here."""
    return {"dtype": "bfloat16"} if x.dtype == np.uint16 else {}


def stored(x: NDArray[np.float32], element: str) -> Rows:
    """``x`` rounded to an element type; int8 is x times 40."""
    if element == "int8":
        return np.clip(np.rint(x * 40), -128, 127).astype(np.int8)
    return x if element == "float32" else rowwise.narrow(x, element)


def make_rows(element: str, n: int, d: int, seed: int = 0) -> Rows:
    """Random rows, some of them noisy or exact copies of others, some zero, some negated."""
    rng = np.random.default_rng([seed, n, d])
    x = rng.standard_normal((n, d), dtype=np.float32)
    source = rng.integers(0, max(n, 1), n)
    noisy = rng.random(n) < 0.5
    x[noisy] = x[source[noisy]] + rng.choice([0.01, 0.1, 0.4], (noisy.sum(), 1)).astype(np.float32) * x[noisy]
    x[rng.random(n) < 0.05] = 0
    negated = rng.random(n) < 0.05
    x[negated] = -x[source[negated]]
    result = stored(x, element)
    copied = rng.random(n) < 0.2
    result[copied] = result[source[copied]]
    return result


def any_bits(element: str, n: int, d: int, seed: int) -> Rows:
    """Rows of random bits: NaN, infinities, subnormals and extremes among them; whole zero rows, and copies."""
    kind = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32, "int8": np.int8}[element]
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, d, np.dtype(kind).itemsize), np.uint8).view(kind)[..., 0]
    if element != "int8" and d > 4:
        x[rng.random(n) < 0.5, 4:] = 0  # else few rows of random bits have a finite norm
    x[rng.random(n) < 0.2] = 0
    if n:
        copied = rng.random(n) < 0.3
        x[copied] = x[rng.integers(0, n, n)[copied]]
    return x


def assert_same_bits(actual: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    assert actual.dtype == expected.dtype, what
    assert actual.shape == expected.shape, what
    view = f"u{actual.dtype.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(view), np.ascontiguousarray(expected).view(view), err_msg=what
    )


class Expected(NamedTuple):
    """What the definition says of x, or of x and y."""

    similarity: NDArray[np.float32]
    unjudged: Indices
    unjudged_y: Indices
    thresholds: list[float]
    order: Indices


def thresholds_of(similarity: NDArray[np.float32]) -> list[float]:
    """An existing similarity, the float32 before and after it, a high one, and the ends."""
    known = np.unique(similarity[np.isfinite(similarity)])
    if not len(known):
        return [0.5]
    exactly, high = known[len(known) * 3 // 5], known[len(known) * 49 // 50]
    around = [np.nextafter(exactly, np.float32(side)) for side in (-np.inf, np.inf)]
    return [float(t) for t in (exactly, *around, high, known[0])] + [math.inf]


def expect(x: Rows, y: Rows | None, metric: Metric) -> Expected:
    similarity = reference.similarities(x, y, metric)
    return Expected(
        similarity,
        reference.unjudged_rows(x, metric),
        reference.unjudged_rows(x if y is None else y, metric),
        thresholds_of(similarity),
        np.random.default_rng(len(x)).permutation(len(x)),
    )


def with_unjudged(values: NDArray[Any], rows: Indices, mark: float) -> NDArray[Any]:
    values = values.copy()
    values[rows] = mark
    return values


def assert_equals_definition(
    x: Rows, y: Rows | None, metric: Metric, expected: Expected, threads: int | None = None
) -> None:
    """Every question, for every threshold of ``expected``."""
    similarity, unjudged, unjudged_y, thresholds, order = expected
    asked: dict[str, Any] = {"metric": metric, "threads": threads, **options(x)}
    np.testing.assert_array_equal(unjudged_rows(x, metric, threads=threads, **options(x)), unjudged)
    for threshold in thresholds:
        what = f"{metric}, threshold {threshold!r}"
        pairs = pairs_above(x, threshold, y, **asked)
        rows, cols, similarities = reference.pairs_above(x, similarity, threshold, y)
        assert_same_bits(pairs.rows, rows, what)
        assert_same_bits(pairs.cols, cols, what)
        assert_same_bits(pairs.similarities, similarities, what)
        assert_same_bits(pairs.unjudged, unjudged, what)
        assert_same_bits(pairs.copy_of, reference.copy_of(x), what)
        counts = with_unjudged(reference.count_above(similarity, threshold), unjudged, -1)
        assert_same_bits(count_above(x, threshold, y, **asked), counts, what)
        if y is None:
            assert pairs.copy_of_y is None
            assert pairs.unjudged_y is None
            assert_same_bits(
                components_above(x, threshold, **asked), reference.components_above(similarity, threshold), what
            )
            indices, best = reference.most_similar_earlier(similarity, order, threshold)
            earlier = most_similar_earlier(x, order, threshold, **asked)
            assert_same_bits(earlier.indices, indices, what)
            assert_same_bits(earlier.similarities, best, what)
            assert_same_bits(earlier.unjudged, unjudged, what)
        else:
            assert_same_bits(pairs.copy_of_y, reference.copy_of(y), what)
            assert_same_bits(pairs.unjudged_y, unjudged_y, what)
    for k in (1, 5, similarity.shape[1] + 2):
        found = nearest(x, k, y, **asked)
        indices, similarities = reference.nearest(similarity, k)
        assert_same_bits(found.indices, indices, f"{metric}, k {k}")
        assert_same_bits(found.similarities, similarities, f"{metric}, k {k}")
    assert_log_sum_exp(x, y, metric, expected, asked)


def assert_log_sum_exp(x: Rows, y: Rows | None, metric: Metric, expected: Expected, asked: dict[str, Any]) -> None:
    """Of x with y. Exempt from equal bits: 1e-6 relative is what is promised of the sums, so 1e-6 of their logs."""
    if y is None:
        return
    rows, cols = reference.log_sum_exp(expected.similarity, SCALE)
    result = log_sum_exp(x, y, SCALE, **asked)
    for actual, right, unjudged in ((result.rows, rows, expected.unjudged), (result.cols, cols, expected.unjudged_y)):
        assert actual.dtype == np.float64
        right = with_unjudged(right, unjudged, np.nan)
        np.testing.assert_allclose(actual, right, rtol=1e-6, atol=1e-6, err_msg=metric)


@cache
def self_join(element: str, n: int, d: int, metric: Metric) -> tuple[Rows, Expected]:
    x = make_rows(element, n, d)
    return x, expect(x, None, metric)


@cache
def cross_join(element: str, n: int, m: int, d: int, metric: Metric) -> tuple[Rows, Rows, Expected]:
    """Rows of y are fresh, noisy copies of rows of x, or the same."""
    x, y = make_rows(element, n, d), make_rows(element, m, d, seed=1)
    if n and m:
        y[::3] = x[np.arange(0, m, 3) % n]
    return x, y, expect(x, y, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.usefixtures("isa")
def test_a_self_join_equals_the_definition(element: str, n: int, d: int, metric: Metric) -> None:
    x, expected = self_join(element, n, d, metric)
    assert_equals_definition(x, None, metric, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    ("n", "m", "d"), [(0, 3, 5), (3, 0, 5), (1, 1, 16), (2, 3, 0), (49, 130, 33), (97, 47, 1), (20, 31, 385)]
)
@pytest.mark.usefixtures("isa")
def test_a_cross_join_equals_the_definition(element: str, n: int, m: int, d: int, metric: Metric) -> None:
    x, y, expected = cross_join(element, n, m, d, metric)
    assert_equals_definition(x, y, metric, expected)


@pytest.mark.parametrize(("element", "metric"), SOME)
@pytest.mark.usefixtures("isa")
def test_many_dimensions(element: str, metric: Metric) -> None:
    for n, d in ((9, 4096), (4, 9001)):
        x, expected = self_join(element, n, d, metric)
        assert_equals_definition(x, None, metric, expected)


@settings(max_examples=60, deadline=None)
@given(
    element=st.sampled_from(ELEMENTS),
    metric=st.sampled_from(METRICS),
    n=st.integers(0, 14),
    m=st.one_of(st.none(), st.integers(0, 14)),
    d=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bits(element: str, metric: Metric, n: int, m: int | None, d: int, seed: int) -> None:
    x = any_bits(element, n, d, seed)
    y = None if m is None else any_bits(element, m, d, seed + 1)
    assert_on_every_isa(x, y, metric)


@settings(max_examples=80, deadline=None)
@given(
    element=st.sampled_from(ELEMENTS),
    metric=st.sampled_from(METRICS),
    n=st.integers(0, 16),
    m=st.one_of(st.none(), st.integers(0, 10)),
    d=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_ties_and_copies(element: str, metric: Metric, n: int, m: int | None, d: int, seed: int) -> None:
    """Few different elements, -0 among them: most rows are copies, most similarities are equal to another."""
    rng = np.random.default_rng(seed)
    values = np.array([-1, -0.0, 0, 1, 2], np.float32)
    x = stored(rng.choice(values, (n, d)), element)
    y = None if m is None else stored(rng.choice(values, (m, d)), element)
    assert_on_every_isa(x, y, metric)


def assert_on_every_isa(x: Rows, y: Rows | None, metric: Metric) -> None:
    expected = expect(x, y, metric)
    before = active_isa()
    try:
        for isa in AVAILABLE_ISAS:
            set_active_isa(isa)
            assert_equals_definition(x, y, metric, expected, threads=1)
    finally:
        set_active_isa(before)


@cache
def difficult_rows(element: str) -> Rows:
    """Rows of every kind that a screening bound may get wrong, and ordinary ones between them."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((64, 40), dtype=np.float32)
    x[1::2] = x[::2] + 0.05 * x[1::2]  # a near-copy of each
    x[2:4, 7], x[4:6, 39] = 300, -300  # outlier coordinates
    x[6], x[7], x[8] = 1, 1.001, -2  # constant
    x[9], x[10] = 0, -0.0
    x[11] = np.eye(1, 40, 5)
    x[12, 3], x[13, 0], x[14, 39] = np.nan, np.inf, -np.inf
    if element == "int8":
        x = np.nan_to_num(x, posinf=3, neginf=-3)
        x[16:20] = [[127 / 40], [-128 / 40], [1 / 40], [-1 / 40]]
    elif element == "float16":
        x[16:18], x[18:20], x[20:22], x[22] = 65504, 2.0**-24, -(2.0**-24), 1e-7 * x[22]
        x[24:26] *= 1e4
    else:
        for at, scale in ((16, 1e-25), (20, 1e-38), (24, 1e18), (28, 1e-30), (32, 3e16), (36, 1e19), (40, 1e-20)):
            x[at : at + 4] *= np.float32(scale)
        x[44:46] = 1e-45  # squares to zero
        x[46, 1:] *= 1e-12
    x[50], x[51] = x[49], -x[49]
    return stored(x, element)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.usefixtures("isa")
def test_difficult_rows(element: str, metric: Metric) -> None:
    x = difficult_rows(element)
    expected = expected_of_difficult_rows(element, metric)
    if element != "int8":
        assert {12, 13, 14} <= set(expected.unjudged.tolist())
    assert_equals_definition(x, None, metric, expected)


@cache
def expected_of_difficult_rows(element: str, metric: Metric) -> Expected:
    x = difficult_rows(element)
    expected = expect(x, None, metric)
    values = expected.similarity[np.isfinite(expected.similarity)]
    more = [float(np.quantile(values, share)) for share in (0.01, 0.25, 0.5, 0.75, 0.9)]
    return expected._replace(thresholds=[*expected.thresholds, *more, 0.0])


@cache
def planted(element: str, d: int, metric: Metric, threshold: float) -> tuple[Rows, Expected]:
    """Pairs of rows whose canonical similarity is as near to the threshold, on either side, as could be found.

    A vector is rotated towards another until the similarity of the rounded rows is about the threshold (bisection); of
    many neighbours of the result, those nearest to the threshold on each side are planted.
    """
    rng = np.random.default_rng(d)
    limit = np.float32(threshold)
    grain = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[element]
    rows = [make_rows(element, 40, d)]
    for pair in range(8):
        basis, _ = np.linalg.qr(rng.standard_normal((d, 2)))
        if metric == "cosine":
            basis *= 2.0 ** rng.integers(-6, 7)
        if pair == 7:
            basis[d // 2, 0] *= 30  # an outlier coordinate
        anchor = stored(np.float32(basis[None, :, 0]), element)
        near, far = 0.0, np.pi
        for _ in range(30):
            angle = (near + far) / 2
            turned = np.cos(angle) * basis[:, 0] + np.sin(angle) * basis[:, 1]
            row = stored(np.float32(turned[None]), element)
            reached = rowwise.pair_similarity_float64(anchor, row, metric)[0] >= limit
            near, far = (angle, far) if reached else (near, angle)
        neighbours = turned * (1 + grain * rng.uniform(-1, 1, (max(1024, 2**17 // d), d)))
        candidates = stored(np.float32(neighbours), element)
        found = reference.similarities(anchor, candidates, metric)[0].astype(np.float64) - limit
        rows += [anchor, candidates[[np.argmin(np.where(found >= 0, found, np.inf))]]]
        rows += [candidates[[np.argmin(np.where(found < 0, -found, np.inf))]]]
    x = np.concatenate(rows)
    x = x[rng.permutation(len(x))]
    expected = expect(x, None, metric)
    ulps = [float(np.nextafter(limit, np.float32(side))) for side in (-np.inf, np.inf)]
    return x, expected._replace(thresholds=[threshold, *ulps, threshold - 1e-6, threshold + 1e-6])


@pytest.mark.parametrize(
    ("metric", "threshold"), [("cosine", 0.9), ("cosine", 0.3), ("inner_product", 0.8), ("l2", -0.1)]
)
@pytest.mark.parametrize("d", [33, 512])
@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.usefixtures("isa")
def test_pairs_planted_around_a_threshold(element: str, d: int, metric: Metric, threshold: float) -> None:
    x, expected = planted(element, d, metric, threshold)
    off = expected.similarity.astype(np.float64) - np.float32(threshold)
    assert np.count_nonzero((off >= 0) & (off < 1e-6)) >= 8  # else the rows do not test what they are for
    assert np.count_nonzero((off < 0) & (off > -1e-6)) >= 8
    assert_equals_definition(x, None, metric, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.usefixtures("isa")
def test_clumps_of_noisy_copies(element: str, metric: Metric) -> None:
    x, expected = clumps(element, metric)
    assert_equals_definition(x, None, metric, expected)


@cache
def clumps(element: str, metric: Metric) -> tuple[Rows, Expected]:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((3, 64), dtype=np.float32)
    noise = np.float32(0.02) * rng.standard_normal((210, 64), dtype=np.float32)
    x = stored(centres[rng.integers(0, 3, 210)] + noise, element)
    expected = expect(x, None, metric)
    known = np.sort(expected.similarity[np.isfinite(expected.similarity)])
    inside = float(known[len(known) * 5 // 6])  # the middle of what the rows of a clump are from each other
    return x, expected._replace(thresholds=[inside])


@pytest.mark.parametrize(("element", "metric"), SOME)
def test_threads_do_not_change_a_bit(element: str, metric: Metric) -> None:
    x, expected = self_join(element, 385, 24, metric)
    y = make_rows(element, 300, 24, seed=2)
    asked: dict[str, Any] = {"metric": metric, **options(x)}
    one = log_sum_exp(x, y, SCALE, threads=1, **asked)
    for threads in (1, 2, 3):
        assert_equals_definition(x, None, metric, expected, threads=threads)
        many = log_sum_exp(x, y, SCALE, threads=threads, **asked)
        assert_same_bits(many.rows, one.rows, f"{threads} threads")
        assert_same_bits(many.cols, one.cols, f"{threads} threads")


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.usefixtures("isa")
def test_rows_any_stride_apart_are_read_in_place(element: str) -> None:
    base = make_rows(element, 60, 50)
    odd = np.empty(base[:20].nbytes + 1, np.uint8)
    odd[1:] = base[:20].view(np.uint8).ravel()
    unaligned = odd[1:].view(base.dtype).reshape(20, 50)
    for x in (base[::3, 7:40], base[::-1], np.broadcast_to(base[4], (6, 50)), base[:, 5:6], unaligned):
        plain = np.ascontiguousarray(x)
        assert_equals_definition(x, None, "cosine", expect(plain, None, "cosine"))


@pytest.mark.parametrize("element", ELEMENTS)
def test_a_memory_map_stays_one(element: str, tmp_path: Path) -> None:
    x, expected = self_join(element, 48, 17, "cosine")
    np.save(tmp_path / "rows.npy", x)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert np.shares_memory(matrix_of("x", mapped, "bfloat16" if element == "bfloat16" else None)[0], mapped)
    assert_equals_definition(mapped, None, "cosine", expected)


@pytest.mark.parametrize("element", ELEMENTS)
def test_torch_tensors_are_read_in_place(element: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, expected = self_join(element, 48, 17, "cosine")
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if element == "bfloat16" else torch.from_numpy(x)
    array, name = matrix_of("x", tensor, None)
    assert name == element
    assert array.ctypes.data == tensor.data_ptr()
    rows, cols, _ = reference.pairs_above(x, expected.similarity, 0.5)
    pairs = pairs_above(tensor, 0.5)
    assert_same_bits(pairs.rows, rows, element)
    assert_same_bits(pairs.cols, cols, element)
    found = nearest(tensor[::2], 3, tensor)
    again = nearest(x[::2], 3, x, **options(x))
    assert_same_bits(found.indices, again.indices, element)


class OnAnotherDevice:
    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("not to be asked for")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def test_torch_tensors_that_cannot_be_shared_are_named() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.zeros((3, 4))
    with pytest.raises(TypeError, match=r"x: expected .* got dtype float64; .*astype\(numpy\.float32\)"):
        pairs_above(x.double(), 0.5)
    with pytest.raises(TypeError, match=r"x: expected an array or tensor that DLPack can share .* got Parameter"):
        pairs_above(torch.nn.Parameter(x), 0.5)
    with pytest.raises(TypeError, match="y: expected float32 to match x, got bfloat16"):
        pairs_above(x, 0.5, x.bfloat16())
    with pytest.raises(ValueError, match=r"x: expected a tensor in CPU memory, .* pass x\.cpu"):
        pairs_above(OnAnotherDevice(), 0.5)
    with pytest.raises(TypeError, match=r"x: expected an array or tensor that DLPack can share .*meta"):
        pairs_above(torch.zeros((3, 4), device="meta"), 0.5)


def test_bfloat16_of_ml_dtypes_is_taken_as_it_is() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    x, _ = self_join("bfloat16", 48, 17, "cosine")
    bits, typed = nearest(x, 4, dtype="bfloat16"), nearest(x.view(ml_dtypes.bfloat16), 4)
    assert_same_bits(typed.indices, bits.indices, "ml_dtypes")
    assert_same_bits(typed.similarities, bits.similarities, "ml_dtypes")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("isa")
def test_a_clump_of_identical_rows_among_others(metric: Metric) -> None:
    x, expected = clump_among_others(metric)
    assert_equals_definition(x, None, metric, expected)


@cache
def clump_among_others(metric: Metric) -> tuple[Rows, Expected]:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((300, 8), dtype=np.float32)
    x[rng.random(300) < 0.6] = x[7]
    x[rng.random(300) < 0.2] = 2 * x[7]  # as near by cosine, and nearer than itself by inner product
    return x, expect(x, None, metric)


def test_a_hundred_thousand_identical_rows_cost_memory_for_the_answer_only() -> None:
    n, k = 100_000, 4
    x = np.ones((n, 8), np.float16)
    x[-1] = -1
    tracemalloc.start()
    found = nearest(x, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.indices[5:-1], np.tile(np.arange(k), (n - 6, 1)))
    np.testing.assert_array_equal(found.indices[[0, 2, n - 1]], [[1, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3]])
    np.testing.assert_array_equal(found.similarities[-1], np.full(k, -1, np.float32))
    assert peak < 40 * 12 * n * k  # a pair of the clump would be 10^10 times that
    pairs = pairs_above(x, 0.9)
    assert len(pairs.rows) == 0
    assert np.count_nonzero(pairs.copy_of == 0) == n - 2
    np.testing.assert_array_equal(components_above(x, 0.9), [0] * (n - 1) + [n - 1])
    np.testing.assert_array_equal(count_above(x, 0.9), [n - 2] * (n - 1) + [0])
    earlier = most_similar_earlier(x, np.arange(n), 0.9)
    np.testing.assert_array_equal(earlier.indices, [-1] + [0] * (n - 2) + [-1])


def test_the_row_of_highest_priority_comes_first_in_order() -> None:
    x = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    x[1, 2] = 0.1
    assert most_similar_earlier(x, np.array([2, 1, 0]), 0.9).indices.tolist() == [1, -1, -1]
    assert most_similar_earlier(x, np.array([0, 1, 2], np.uint8), 0.9).indices.tolist() == [-1, 0, -1]


def test_a_threshold_is_rounded_to_float32_once() -> None:
    x = np.array([[1, 0], [4, 3]], np.float32)  # similarity 0.8, as float32 a little more than the decimal
    similarity = float(np.float32(0.8))
    assert similarity > 0.8
    for threshold, count in ((0.8, 1), (similarity, 1), (similarity + 1e-9, 1), (similarity + 6e-8, 0)):
        assert len(pairs_above(x, threshold).rows) == count, threshold


def test_thresholds_beyond_every_similarity() -> None:
    x, _ = self_join("float32", 40, 3, "cosine")
    distinct = np.count_nonzero((reference.copy_of(x) < 0) & x.any(axis=1))
    for threshold in (-1, -1.5, -1e300, -math.inf):
        assert len(pairs_above(x, threshold).rows) == distinct * (distinct - 1) // 2
    for threshold in (1.0001, 1e300, math.inf):
        assert len(pairs_above(x, threshold).rows) == 0
        np.testing.assert_array_equal(components_above(x, threshold), np.arange(40))


def test_more_than_max_pairs_is_an_error() -> None:
    x = make_rows("float32", 60, 3)
    count = len(pairs_above(x, 0.2).rows)
    assert count > 10
    assert len(pairs_above(x, 0.2, max_pairs=count).rows) == count
    with pytest.raises(InputError, match=rf"max_pairs: expected at most {count - 1} pairs at or above 0\.2, .*raise"):
        pairs_above(x, 0.2, max_pairs=count - 1)
    with pytest.raises(ValueError, match="max_pairs: expected at least 0, got -1"):
        pairs_above(x, 0.2, max_pairs=-1)


def test_rows_that_cannot_be_judged_raise_if_asked() -> None:
    x = np.ones((9, 4), np.float32)
    x[[1, 5]] = 0
    y = np.ones((9, 4), np.float32)
    y[2:8, 3] = np.nan
    with pytest.raises(InputError, match=r"x: .*squared norm of 2 of them is not finite or zero: rows 1, 5; .*'skip'"):
        pairs_above(x, 0.5, unjudged="raise")
    with pytest.raises(InputError, match=r"y: .*of 6 of them is not finite: rows 2, 3, 4, 5, 6, \.\.\.;"):
        nearest(x, 2, y, "l2", unjudged="raise")
    assert count_above(x, -1, metric="l2", unjudged="raise").tolist() == [6, 1] + [6] * 3 + [1] + [6] * 3


def test_progress_rises() -> None:
    x = np.random.default_rng(0).standard_normal((6000, 128), dtype=np.float32)
    x[3000] = x[0]
    asked: dict[str, Any] = {"metric": "inner_product", "precision": "float32", "threads": 1}
    for ask in (
        lambda seen: count_above(x, 0, progress=seen.append, **asked),
        lambda seen: most_similar_earlier(x, np.arange(6000), 0, progress=seen.append, **asked),  # in two parts
    ):
        seen: list[float] = []
        ask(seen)
        assert seen
        assert seen == sorted(seen)
        assert seen[0] >= 0
        assert seen[-1] <= 1


@pytest.mark.parametrize(("element", "metric"), SOME)
@pytest.mark.usefixtures("isa")
def test_scoring_every_pair_gives_the_same(element: str, metric: Metric) -> None:
    x, expected = self_join(element, 48, 17, metric)
    for threshold in expected.thresholds:
        rows, cols, similarities = reference.pairs_above(x, expected.similarity, threshold)
        pairs = pairs_above(x, threshold, metric=metric, precision="float32", **options(x))
        assert_same_bits(pairs.rows, rows, metric)
        assert_same_bits(pairs.cols, cols, metric)
        assert_same_bits(pairs.similarities, similarities, metric)


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_stops_a_long_call(threads: int) -> None:
    x = np.random.default_rng(0).standard_normal((400_000, 64), dtype=np.float32)  # half of 10^11 pairs pass
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        count_above(x, 0.0, threads=threads)
    assert time.monotonic() - start < 1.5  # within a second of the signal
    interrupt.join()


ROWS = np.ones((3, 4), np.float32)
ORDER = np.arange(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pairs_above(ROWS, math.nan), ValueError, "threshold: expected a number, got NaN"),
        (lambda: components_above(ROWS, math.nan), ValueError, "threshold: expected a number, got NaN"),
        (lambda: count_above(ROWS, math.nan), ValueError, "threshold: expected a number, got NaN"),
        (lambda: most_similar_earlier(ROWS, ORDER, math.nan), ValueError, "floor: expected a number, got NaN"),
        (lambda: log_sum_exp(ROWS, ROWS, math.inf), ValueError, "scale: expected a finite number, got inf"),
        (lambda: log_sum_exp(ROWS, None, 1), TypeError, "y: expected an array, got None; pass x again"),
        (lambda: nearest(ROWS, 0), ValueError, "k: expected at least 1, got 0"),
        (lambda: pairs_above(ROWS, 0.5, metric="dot"), ValueError, "metric: expected 'cosine', .* or 'l2', got 'dot'"),
        (lambda: nearest(ROWS, 1, precision="fp8"), ValueError, "precision: expected 'exact' or 'float32', got 'fp8'"),
        (lambda: nearest(ROWS, 1, unjudged="drop"), ValueError, "unjudged: expected 'skip' or 'raise', got 'drop'"),
        (lambda: nearest(ROWS, 1, threads=0), ValueError, "threads: expected None or at least 1, got 0"),
        (lambda: nearest(ROWS, 1, dtype="float16"), ValueError, "dtype: expected None or 'bfloat16', got 'float16'"),
        (lambda: pairs_above(None, 0.5), TypeError, "x: expected a NumPy array, got NoneType"),
        (lambda: pairs_above([[1.0]], 0.5), TypeError, r"x: expected a NumPy array, got list; pass numpy\.asarray"),
        (lambda: pairs_above(ROWS.astype(float), 0.5), TypeError, "x: expected float16, .*got dtype float64; convert"),
        (lambda: pairs_above(ROWS.astype(int), 0.5), TypeError, "x: expected float16, .*got dtype int64; convert"),
        (lambda: pairs_above(ROWS.view(np.uint16), 0.5), TypeError, "x: got dtype uint16, .*pass dtype='bfloat16'"),
        (lambda: pairs_above(ROWS[0], 0.5), ValueError, r"x: expected a 2-D array \(n, d\), got 1-D"),
        (lambda: pairs_above(ROWS.T, 0.5), ValueError, r"x: expected adjacent elements .*\(4, 16\); pass numpy"),
        (lambda: pairs_above(ROWS, 0.5, ROWS[:, ::2]), ValueError, "y: expected adjacent elements in each row"),
        (lambda: pairs_above(ROWS, 0.5, ROWS[:, :3]), ValueError, r"y: expected shape \(m, 4\) .*, got \(3, 3\)"),
        (lambda: count_above(ROWS, 0.5, ROWS.astype(np.int8)), TypeError, "y: expected float32 to match x, got int8"),
        (lambda: most_similar_earlier(ROWS, [0, 1, 2], 0.5), TypeError, "order: expected an array .* got list"),
        (lambda: most_similar_earlier(ROWS, ORDER * 1.0, 0.5), TypeError, "order: .*integers.*got dtype float64"),
        (lambda: most_similar_earlier(ROWS, ORDER[:2], 0.5), ValueError, r"order: expected shape \(3,\).* got \(2,\)"),
        (lambda: most_similar_earlier(ROWS, ORDER + 1, 0.5), ValueError, "order: .* from 0 to 2, got 3 at position 2"),
        (lambda: most_similar_earlier(ROWS, ORDER // 2, 0.5), ValueError, "order: .* row 2 is missing"),
        (lambda: unjudged_rows(ROWS, "dot"), ValueError, "metric: expected 'cosine', 'inner_product' or 'l2'"),
    ],
)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_the_functions_are_those_of_the_top_package() -> None:
    for name in fused_similarity.__all__:
        if name[0].islower():
            assert getattr(pycurate, name) is getattr(fused_similarity, name)
