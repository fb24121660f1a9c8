"""Answers over all pairs of rows, bits equal to the definition on every instruction set."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycurate.kernels import active_isa, set_active_isa
from pycurate.kernels.device import cuda_kernels, cuda_support
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
from pycurate.kernels.spanning_forest import spanning_forest_above
from pycurate.reference import fused_similarity as reference
from pycurate.reference import rowwise
from pycurate.testing import AVAILABLE_ISAS, CUDA

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
    x: Rows,
    y: Rows | None,
    metric: Metric,
    expected: Expected,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Every question, for every threshold of ``expected``."""
    similarity, unjudged, unjudged_y, thresholds, order = expected
    asked: dict[str, Any] = {"metric": metric, "threads": threads, "device": device, **options(x)}
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
            forest = spanning_forest_above(x, threshold, **asked)
            edges = reference.spanning_forest_above(x, similarity, threshold)
            for field, right in zip(("rows", "cols", "similarities"), edges, strict=True):
                assert_same_bits(getattr(forest, field), right, f"forest, {what}")
            assert_same_bits(forest.copy_of, pairs.copy_of, what)
            assert_same_bits(forest.unjudged, unjudged, what)
            indices, best = reference.most_similar_earlier(similarity, order, threshold)
            earlier = most_similar_earlier(x, order, threshold, **asked)
            assert_same_bits(earlier.indices, indices, what)
            assert_same_bits(earlier.similarities, best, what)
            assert_same_bits(earlier.unjudged, unjudged, what)
        else:
            assert_same_bits(pairs.copy_of_y, reference.copy_of(y), what)
            assert_same_bits(pairs.unjudged_y, unjudged_y, what)
    most = 1000 if device == "cpu" else getattr(cuda_kernels(), "most_neighbors", 1000)  # that a GPU keeps
    for k in (1, 5, min(similarity.shape[1] + 2, most)):
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
def test_a_self_join_equals_the_definition(element: str, n: int, d: int, metric: Metric, engine: str) -> None:
    x, expected = self_join(element, n, d, metric)
    assert_equals_definition(x, None, metric, expected, engine)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    ("n", "m", "d"), [(0, 3, 5), (3, 0, 5), (1, 1, 16), (2, 3, 0), (49, 130, 33), (97, 47, 1), (20, 31, 385)]
)
def test_a_cross_join_equals_the_definition(element: str, n: int, m: int, d: int, metric: Metric, engine: str) -> None:
    x, y, expected = cross_join(element, n, m, d, metric)
    assert_equals_definition(x, y, metric, expected, engine)


@pytest.mark.parametrize(("element", "metric"), SOME)
def test_many_dimensions(element: str, metric: Metric, engine: str) -> None:
    for n, d in ((9, 4096), (4, 9001)):
        x, expected = self_join(element, n, d, metric)
        assert_equals_definition(x, None, metric, expected, engine)


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
    assert_on_every_engine(x, y, metric)


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
    assert_on_every_engine(x, y, metric)


def test_an_inner_product_that_overflows_is_no_pair_and_hides_none(engine: str) -> None:
    """Squares just below float32's largest number, products just above it; and a shorter row that is a neighbour."""
    random = np.random.default_rng(0)
    x = 1 + 1e-4 * random.standard_normal((300, 32))
    x = np.float32(x * np.sqrt(float(np.finfo(np.float32).max) / np.square(x).sum(1))[:, None] * (1 - 1e-9))
    x = x[np.isfinite(rowwise.pair_similarity(x, x, "inner_product"))][:40]
    x[::8] *= np.float32(0.5)
    expected = expect(x, None, "inner_product")
    overflows = np.argwhere(np.triu(np.isnan(expected.similarity), 1))
    assert len(overflows) > 30
    assert_equals_definition(x, None, "inner_product", expected, engine)
    few = np.concatenate([x[overflows[0]], x[:1]])
    assert_equals_definition(few, None, "inner_product", expect(few, None, "inner_product"), engine)


@pytest.mark.usefixtures("torch_on_the_cpu")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_any_bits_by_pytorch(element: str, metric: Metric) -> None:
    for seed in range(6):
        random = np.random.default_rng(seed)
        x = any_bits(element, int(random.integers(0, 90)), int(random.integers(0, 40)), seed)
        y = any_bits(element, int(random.integers(0, 14)), x.shape[1], seed + 1) if seed % 2 else None
        assert_equals_definition(x, y, metric, expect(x, y, metric), CUDA)


def assert_on_every_engine(x: Rows, y: Rows | None, metric: Metric) -> None:
    expected = expect(x, y, metric)
    before = active_isa()
    try:
        for isa in AVAILABLE_ISAS:
            set_active_isa(isa)
            assert_equals_definition(x, y, metric, expected, threads=1)
    finally:
        set_active_isa(before)
    if not cuda_support().missing:
        assert_equals_definition(x, y, metric, expected, CUDA)


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
def test_difficult_rows(element: str, metric: Metric, engine: str) -> None:
    x = difficult_rows(element)
    expected = expected_of_difficult_rows(element, metric)
    if element != "int8":
        assert {12, 13, 14} <= set(expected.unjudged.tolist())
    assert_equals_definition(x, None, metric, expected, engine)


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
def test_pairs_planted_around_a_threshold(element: str, d: int, metric: Metric, threshold: float, engine: str) -> None:
    x, expected = planted(element, d, metric, threshold)
    off = expected.similarity.astype(np.float64) - np.float32(threshold)
    assert np.count_nonzero((off >= 0) & (off < 1e-6)) >= 8  # else the rows do not test what they are for
    assert np.count_nonzero((off < 0) & (off > -1e-6)) >= 8
    assert_equals_definition(x, None, metric, expected, engine)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_clumps_of_noisy_copies(element: str, metric: Metric, engine: str) -> None:
    x, expected = clumps(element, metric)
    assert_equals_definition(x, None, metric, expected, engine)


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
def test_rows_any_stride_apart_are_read_in_place(element: str, engine: str) -> None:
    base = make_rows(element, 60, 50)
    odd = np.empty(base[:20].nbytes + 1, np.uint8)
    odd[1:] = base[:20].view(np.uint8).ravel()
    unaligned = odd[1:].view(base.dtype).reshape(20, 50)
    for x in (base[::3, 7:40], base[::-1], np.broadcast_to(base[4], (6, 50)), base[:, 5:6], unaligned):
        plain = np.ascontiguousarray(x)
        assert_equals_definition(x, None, "cosine", expect(plain, None, "cosine"), engine)


@pytest.mark.parametrize("metric", METRICS)
def test_a_clump_of_identical_rows_among_others(metric: Metric, engine: str) -> None:
    x, expected = clump_among_others(metric)
    assert_equals_definition(x, None, metric, expected, engine)


@cache
def clump_among_others(metric: Metric) -> tuple[Rows, Expected]:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((300, 8), dtype=np.float32)
    x[rng.random(300) < 0.6] = x[7]
    x[rng.random(300) < 0.2] = 2 * x[7]  # as near by cosine, and nearer than itself by inner product
    return x, expect(x, None, metric)


@pytest.mark.parametrize(("element", "metric"), SOME)
def test_scoring_every_pair_gives_the_same(element: str, metric: Metric, engine: str) -> None:
    x, expected = self_join(element, 48, 17, metric)
    for threshold in expected.thresholds:
        rows, cols, similarities = reference.pairs_above(x, expected.similarity, threshold)
        pairs = pairs_above(x, threshold, metric=metric, precision="float32", device=engine, **options(x))
        assert_same_bits(pairs.rows, rows, metric)
        assert_same_bits(pairs.cols, cols, metric)
        assert_same_bits(pairs.similarities, similarities, metric)
