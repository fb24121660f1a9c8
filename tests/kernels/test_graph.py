"""One body for every instruction set and device: values against the definition, bits against the scalar twin."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.kernels import Isa, active_isa, set_active_isa
from pycurate.kernels.graph import (
    BLOCK_ROWS,
    LABELLED,
    NO_LABEL,
    WIDTH_STEP,
    SeedRows,
    SparseRows,
    is_symmetric,
    sweep_dense,
    sweep_top,
)
from pycurate.kernels.sweeps import gpu_of, sweeps_of
from pycurate.reference import graph as reference

SIZES = [0, 1, 2, 17, 300, BLOCK_ROWS + 1]


@functools.cache
def random_rows(n: int, degree: int, dtype: str = "float32", *, wide: bool = False, seed: int = 0) -> SparseRows:
    """Rows of up to ``degree`` different neighbours, some of none; values are multiples of 1/64."""
    random = np.random.default_rng([n, degree, seed])
    degrees = random.integers(0, min(degree, n) + 1, n)
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.uint64)
    picked = [np.sort(random.choice(n, count, replace=False)) for count in degrees]
    indices = np.concatenate([np.empty(0, np.int64), *picked]).astype(np.uint64 if wide else np.uint32)
    values = (random.integers(1, 64, len(indices)) / 64).astype(dtype)
    return SparseRows.whole(indptr, indices, values)


def random_seeds(n: int, classes: int, dtype: str = "float32", *, clamp: bool = False) -> SeedRows:
    random = np.random.default_rng([n, classes])
    counts = random.integers(0, 3, n) * (random.random(n) < 0.4)
    counts = np.minimum(counts, classes)
    labels = [np.sort(random.choice(classes, count, replace=False)) for count in counts]
    flat = np.concatenate([np.empty(0, np.int64), *labels]).astype(np.uint32)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    values = (random.integers(1, 9, len(flat)) / 8).astype(dtype)
    return SeedRows(indptr, flat, values, (counts > 0).astype(np.uint8) if clamp else None)


def dense_seeds(seeds: SeedRows, width: int) -> NDArray[np.float64]:
    out = np.zeros((len(seeds.indptr) - 1, width))
    rows = np.repeat(np.arange(len(out)), np.diff(seeds.indptr).astype(np.int64))
    out[rows, seeds.labels] = seeds.values
    return out


def random_state(n: int, classes: int, dtype: str = "float32", *, seed: int = 3) -> NDArray[Any]:
    state = np.zeros((n, -(-classes // WIDTH_STEP) * WIDTH_STEP), dtype)
    state[:, :classes] = np.random.default_rng([n, classes, seed]).normal(size=(n, classes))
    return state


def swept(
    device: str,
    matrix: SparseRows,
    seeds: SeedRows | None,
    state: NDArray[Any],
    out: NDArray[Any],
    *,
    labels: int | None = None,
    previous: NDArray[Any] | None = None,
    threads: int | None = None,
    **factors: float,
) -> NDArray[np.float64]:
    """A sweep on a device, over dense values or, with ``labels``, the largest few; ``out`` on the host."""
    limit = state.shape[1] if labels is None else labels
    on: Any = sweeps_of(matrix, seeds, labels=limit, gpu=gpu_of(device), threads=threads)
    there, into = on.values(state), on.values(out)
    if labels is not None:
        changes = on.sweep_top(there, into, **factors)
    else:
        before = None if previous is None else into if previous is out else on.values(previous)
        changes = on.sweep_dense(there, into, previous=before, **factors)
    made = on.read(into)
    if made is not out:
        out[...] = made
    return np.asarray(changes)


def with_scalar(function: Any) -> Any:
    before = active_isa()
    set_active_isa(Isa.scalar)
    try:
        return function()
    finally:
        set_active_isa(before)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
@pytest.mark.parametrize(("n", "classes"), [*itertools.product(SIZES, [1, 17, 112, 300]), (3, 2100)])
def test_a_dense_sweep_equals_the_definition(
    processor: str, n: int, classes: int, dtype: str, tolerance: float
) -> None:
    matrix = random_rows(n, 9, dtype, wide=bool(n % 2))
    state, previous = random_state(n, classes, dtype), random_state(n, classes, dtype, seed=4)
    plain = reference.dense_matrix(matrix.indptr, matrix.indices, matrix.values)
    for clamp in (False, True):
        seeds = random_seeds(n, classes, dtype, clamp=clamp)
        clamped = None if seeds.clamped is None else seeds.clamped.astype(bool)
        for before, omega in ((None, 1.0), (previous, 1.25)):
            out = np.full_like(state, np.nan)
            changes = swept(processor, matrix, seeds, state, out, alpha=0.75, omega=omega, previous=before, threads=2)
            expected, change = reference.sweep(
                plain,
                dense_seeds(seeds, state.shape[1]),
                state.astype(np.float64),
                0.75,
                omega=omega,
                previous=None if before is None else before.astype(np.float64),
                clamped=clamped,
            )
            # sums of up to 9 products of size 4 at most, each rounded once
            np.testing.assert_allclose(out, expected, atol=40 * tolerance)
            np.testing.assert_allclose(changes.sum(), change, rtol=1e-5, atol=1e-12)
            assert len(changes) == -(-n // BLOCK_ROWS)
            again = np.empty_like(state)

            def scalar(into: Any = again, seeds: Any = seeds, before: Any = before, omega: Any = omega) -> Any:
                return sweep_dense(matrix, seeds, state, into, alpha=0.75, omega=omega, previous=before)

            np.testing.assert_array_equal(with_scalar(scalar), changes)
            assert again.tobytes() == out.tobytes()


def test_a_sweep_over_what_came_before_it_in_place(processor: str) -> None:
    matrix, state, previous = random_rows(500, 9), random_state(500, 20), random_state(500, 20, seed=4)
    out = np.empty_like(state)
    sweep_dense(matrix, None, state, out, alpha=0.9, omega=1.5, previous=previous)
    swept(processor, matrix, None, state, previous, alpha=0.9, omega=1.5, previous=previous)
    np.testing.assert_array_equal(out, previous)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_stay_in_their_columns(processor: str, dtype: str) -> None:
    matrix, state = random_rows(40, 9, dtype), random_state(40, 20, dtype)
    state[3, 2], state[5, 7] = np.nan, np.inf
    out = np.empty_like(state)
    changes = swept(processor, matrix, None, state, out, alpha=0.5)
    others = np.delete(np.arange(20), [2, 7])
    assert np.isfinite(out[:, others]).all()
    plain = reference.dense_matrix(matrix.indptr, matrix.indices, matrix.values)
    np.testing.assert_array_equal(np.isnan(out[:, 2]), plain[:, 3] > 0)
    np.testing.assert_array_equal(np.isinf(out[:, 7]), plain[:, 5] > 0)
    assert np.isnan(changes).all()


@pytest.mark.parametrize("kept", [1, 3, 8, 40])
@pytest.mark.parametrize("classes", [1, 7, 2000])
@pytest.mark.parametrize("n", SIZES)
def test_a_top_sweep_equals_the_definition(processor: str, n: int, classes: int, kept: int) -> None:
    # Values are multiples of 2^-12 below 16, so that float32 sums are exact and ties are ties.
    matrix, alpha = random_rows(n, 9, wide=bool(n % 2)), 0.5
    plain = reference.dense_matrix(matrix.indptr, matrix.indices, matrix.values)
    for clamp in (False, True):
        seeds = random_seeds(n, classes, clamp=clamp)
        start = reference.largest(dense_seeds(seeds, classes), kept)
        state = as_labelled(start, kept)
        out = np.empty_like(state)
        changes = swept(processor, matrix, seeds, state, out, labels=classes, alpha=alpha, threads=2)
        matrix_here = plain.copy()
        if seeds.clamped is not None:
            matrix_here[seeds.clamped.astype(bool)] = 0
        expected, change = reference.sweep_top(matrix_here, dense_seeds(seeds, classes), start, alpha, kept)
        np.testing.assert_array_equal(out, as_labelled(expected, kept))
        np.testing.assert_allclose(changes.sum(), change, rtol=1e-12)


def as_labelled(values: NDArray[np.float64], kept: int) -> NDArray[np.void]:
    out = np.zeros((len(values), kept), LABELLED)
    out["label"] = NO_LABEL
    for row, of_row in enumerate(values):
        order = np.argsort(-of_row, kind="stable")[:kept]
        order = order[of_row[order] > 0]
        out["label"][row, : len(order)] = order
        out["value"][row, : len(order)] = of_row[order]
    return out


@pytest.mark.parametrize(("n", "classes", "degree", "kept"), [(3000, 40, 30, 4), (400, 3000, 200, 8)])
def test_a_top_sweep_gives_the_bits_of_the_scalar_twin(
    processor: str, n: int, classes: int, degree: int, kept: int
) -> None:
    # Of 3,000 classes, neighbours of a row hold several hundred: more than a GPU's table has at a time.
    matrix, seeds = random_rows(n, degree), random_seeds(n, classes)
    matrix = matrix.scaled(np.full(n, 1 / 7), np.full(n, 1 / 3))
    start = np.random.default_rng(0).random((n, classes)) if degree > n // 4 else dense_seeds(seeds, classes)
    states = [as_labelled(start, kept)]
    sums = []
    for _ in range(4):
        out = np.empty_like(states[-1])
        sums.append(swept(processor, matrix, seeds, states[-1], out, labels=classes, alpha=0.9, threads=3))
        states.append(out)

    def scalar() -> Any:
        state = states[0]
        for of_sweep in sums:
            out = np.empty_like(state)
            changes = sweep_top(matrix, seeds, state, out, labels=classes, alpha=0.9, threads=1)
            np.testing.assert_array_equal(of_sweep, changes)
            state = out
        return state

    assert with_scalar(scalar).tobytes() == states[-1].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [5, 33, 100])
@pytest.mark.parametrize("wide", [False, True])
def test_rows_of_many_edges(processor: str, wide: bool, classes: int, dtype: str) -> None:
    # More than 512, and not a multiple of what is read at a time; 1,029 are a tile of 16 columns and some.
    random = np.random.default_rng(0)
    n, degrees = 1500, np.full(1500, 3)
    degrees[[0, 700, 701, 1499]] = [513, 1029, 1500, 640]
    picked = [np.sort(random.choice(n, count, replace=False)) for count in degrees]
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.uint64)
    indices = np.concatenate(picked).astype(np.uint64 if wide else np.uint32)
    matrix = SparseRows.whole(indptr, indices, random.random(len(indices)).astype(dtype))
    seeds, state = random_seeds(n, classes, dtype, clamp=True), random_state(n, classes, dtype)
    out, again = np.empty_like(state), np.empty_like(state)
    changes = swept(processor, matrix, seeds, state, out, alpha=0.9, threads=2)

    def scalar() -> Any:
        return sweep_dense(matrix, seeds, state, again, alpha=0.9)

    np.testing.assert_array_equal(with_scalar(scalar), changes)
    assert out.tobytes() == again.tobytes()
    if dtype == "float32":
        on: Any = sweeps_of(matrix, None, labels=state.shape[1], gpu=gpu_of(processor))
        here: Any = sweeps_of(matrix, None, labels=state.shape[1])
        product = on.room(np.empty_like(state))
        np.testing.assert_array_equal(
            on.cg_product(on.values(state), product, 0.9), with_scalar(lambda: here.cg_product(state, again, 0.9))
        )
        assert on.read(product).tobytes() == again.tobytes()


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_the_rows_give_what_all_give(processor: str, parts: int) -> None:
    n, classes = 3 * BLOCK_ROWS + 17, 21
    matrix, seeds, state = random_rows(n, 7), random_seeds(n, classes, clamp=True), random_state(n, classes)
    whole, pieces, gpu = np.empty_like(state), np.empty_like(state), gpu_of(processor)
    expected = sweep_dense(matrix, seeds, state, whole, alpha=0.9)
    bounds = [BLOCK_ROWS * p for p in range(parts)] + [n]
    changes = []
    for first, last in itertools.pairwise(bounds):
        edges = slice(int(matrix.indptr[first]), int(matrix.indptr[last]))
        part = SparseRows(matrix.indptr[first : last + 1], matrix.indices[edges], matrix.values[edges], first)
        on: Any = sweeps_of(part, seeds.part(first, last), labels=state.shape[1], gpu=gpu, threads=2)
        out = on.room(np.empty_like(state if gpu is not None else state[first:last]))
        changes.append(on.sweep_dense(on.values(state), out, alpha=0.9))
        pieces[first:last] = on.read(out)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(np.concatenate(changes), expected)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize(
    ("n", "classes"), [(0, 20), (1, 20), (2, 300), (40, 3000), (BLOCK_ROWS + 100, 20), (1100, 240)]
)
def test_conjugate_gradients_equal_the_definition(processor: str, n: int, classes: int, clamp: bool) -> None:
    made = random_rows(n, 9).without_loops(both_ways=True)
    plain = reference.normalized(reference.dense_matrix(made.indptr, made.indices, made.values))
    degrees = np.zeros(n)
    made.add_column_sums(degrees)
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    matrix = made.scaled(scale, scale)
    right, seeds = random_state(n, classes), random_seeds(n, classes, clamp=clamp)
    if seeds.clamped is not None:
        right[seeds.clamped.astype(bool)] = 0

    def solve(device: str, threads: int) -> tuple[NDArray[np.float32], list[Any]]:
        on: Any = sweeps_of(matrix, seeds, labels=right.shape[1], gpu=gpu_of(device), threads=threads)
        x, residual, direction = on.values(np.zeros_like(right)), on.values(right.copy()), on.values(right.copy())
        product = on.room(np.empty_like(right))
        none = np.zeros(right.shape[1], np.float32)
        square, _ = on.cg_step(x, residual, direction, direction, none)
        told: list[Any] = []
        for _ in range(8):
            dots = on.cg_product(direction, product, 0.9)
            step = np.where(square > 0, square / np.where(dots > 0, dots, 1), 0).astype(np.float32)
            last = square
            square, changes = on.cg_step(x, residual, direction, product, step)
            left = on.read(residual)
            np.testing.assert_allclose(changes.sum(), np.abs(left).sum(dtype=np.float64), rtol=1e-5, atol=1e-20)
            ratio = np.where(last > 0, square / np.where(last > 0, last, 1), 0).astype(np.float32)
            on.cg_turn(residual, ratio, direction)
            told += [dots, square, changes]
        return on.read(x), told

    found, told = solve(processor, 2)
    if seeds.clamped is None:
        expected = reference.conjugate_gradients(plain, right.astype(np.float64), 0.9, 8)
        np.testing.assert_allclose(found, expected, atol=1e-4)  # eight steps of float32
    exact, exactly_told = with_scalar(lambda: solve("cpu", 1))
    assert exact.tobytes() == found.tobytes()
    for numbers, exact_numbers in zip(told, exactly_told, strict=True):
        np.testing.assert_array_equal(numbers, exact_numbers)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_a_matrix_is_made_as_defined(n: int, wide: bool) -> None:
    matrix = random_rows(n, 9, wide=wide)
    plain = reference.dense_matrix(matrix.indptr, matrix.indices, matrix.values)
    order = np.random.default_rng(0).permutation(len(matrix.indices))
    row = np.repeat(np.arange(n), np.diff(matrix.indptr).astype(np.int64))[order]
    by_row = order[np.argsort(row, kind="stable")]
    shuffled = SparseRows(matrix.indptr, matrix.indices[by_row], matrix.values[by_row])
    for given in (matrix, shuffled):
        alone, both = given.without_loops(threads=2), given.without_loops(both_ways=True, threads=2)
        assert alone.indices.dtype == matrix.indices.dtype
        np.testing.assert_array_equal(
            reference.dense_matrix(alone.indptr, alone.indices, alone.values), plain - np.diag(np.diag(plain))
        )
        np.testing.assert_array_equal(
            reference.dense_matrix(both.indptr, both.indices, both.values), reference.symmetric_sum(plain)
        )
        for made in (alone, both):
            for i in range(n):
                assert (np.diff(made.indices[int(made.indptr[i]) : int(made.indptr[i + 1])].astype(np.int64)) > 0).all()
        assert is_symmetric(both)
        np.testing.assert_allclose(alone.row_sums(), reference.dense_matrix(*alone._arrays).sum(axis=1))
        sums = np.zeros(n)
        both.add_column_sums(sums)
        np.testing.assert_allclose(sums, both.row_sums())
        scale = np.random.default_rng(1).random(n)
        for dtype, tolerance in (("float32", 1e-7), ("float64", 1e-16)):
            scaled = both.scaled(scale, scale, dtype)
            assert scaled.values.dtype == dtype
            np.testing.assert_allclose(
                reference.dense_matrix(*scaled._arrays),
                reference.symmetric_sum(plain) * scale[:, None] * scale[None, :],
                rtol=tolerance,
            )
    if n > 2:
        assert not is_symmetric(matrix.without_loops())


def test_a_part_of_a_matrix_is_made_as_the_whole() -> None:
    matrix = random_rows(300, 9)
    whole = matrix.without_loops()
    edges = slice(int(matrix.indptr[100]), int(matrix.indptr[200]))
    part = SparseRows(matrix.indptr[100:201], matrix.indices[edges], matrix.values[edges], 100).without_loops()
    expected = slice(int(whole.indptr[100]), int(whole.indptr[200]))
    np.testing.assert_array_equal(part.indices, whole.indices[expected])
    np.testing.assert_array_equal(part.values, whole.values[expected])


def test_bad_rows_are_named() -> None:
    indptr, values = np.array([0, 1, 3], np.uint64), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="row 1 names a row that is not there"):
        SparseRows.whole(indptr, np.array([1, 0, 2], np.uint32), values)
    with pytest.raises(ValueError, match="row 1 names a neighbour twice"):
        SparseRows.whole(indptr, np.array([1, 0, 0], np.uint32), values).without_loops()
    with pytest.raises(ValueError, match="0 to the number of edges"):
        SparseRows.whole(indptr, np.array([1, 0], np.uint32), values[:2])
    with pytest.raises(ValueError, match="indptr: expected"):
        SparseRows.whole(indptr.astype(np.int64), np.array([1, 0, 1], np.uint32), values)  # type: ignore[arg-type]
    matrix, state = random_rows(20, 3), random_state(20, 5)
    out = np.empty_like(state)
    with pytest.raises(ValueError, match="multiple of 16"):
        sweep_dense(matrix, None, np.zeros((20, 5), np.float32), out, alpha=1)
    with pytest.raises(ValueError, match="state: expected at least 20 rows, got 19"):
        sweep_dense(matrix, None, state[:19], out, alpha=1)
    with pytest.raises(ValueError, match="out: expected 320 elements"):
        sweep_dense(matrix, None, state, out[:5], alpha=1)
    with pytest.raises(TypeError, match="values: expected dtype float64"):
        sweep_dense(matrix, None, state.astype(np.float64), out, alpha=1)
    seeds = SeedRows(np.arange(21, dtype=np.uint64), np.full(20, 16, np.uint32), np.ones(20, np.float32))
    with pytest.raises(ValueError, match="seed_labels: expected less than 16, got 16"):
        sweep_dense(matrix, seeds, state, out, alpha=1)
    with pytest.raises(ValueError, match="C order"):
        sweep_dense(matrix, None, state[::-1], out, alpha=1)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        sweep_dense(matrix, None, state, out, alpha=1)


def test_ctrl_c_stops_a_long_sweep() -> None:
    n, degree = 200_000, 64
    random = np.random.default_rng(0)
    indptr = np.arange(0, n * degree + 1, degree, dtype=np.uint64)
    matrix = SparseRows(indptr, random.integers(0, n, n * degree, dtype=np.uint32), np.ones(n * degree, np.float32))
    state = np.zeros((n, 512), np.float32)
    out = np.empty_like(state)

    def sweeps_of_many_seconds() -> None:
        for _ in range(200):
            sweep_dense(matrix, None, state, out, alpha=1, threads=1)

    threading.Thread(target=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGINT))).start()
    with pytest.raises(KeyboardInterrupt):
        sweeps_of_many_seconds()
