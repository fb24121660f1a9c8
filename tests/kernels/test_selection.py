from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from pycurate import _core
from pycurate.errors import InputError
from pycurate.kernels.selection import (
    DenseCandidates,
    EdgeBlock,
    RowState,
    SparseCandidates,
    add_gains,
)
from pycurate.reference import selection as reference

SIZES = [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 130, 257]


def sparse_problem(n: int, degree: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """indptr, indices, similarities with ties, zeros, loops and double edges; and similarities with oneself."""
    random = np.random.default_rng(seed)
    degrees = random.integers(0, degree + 1, n)
    indptr = np.append(0, np.cumsum(degrees))
    indices = random.integers(0, max(n, 1), indptr[-1])
    similarities = random.choice(np.float32([0, 1e-30, 0.25, 0.5, 0.75, 1, 3]), indptr[-1])
    similarities = np.where(random.random(indptr[-1]) < 0.5, similarities, random.random(indptr[-1], np.float32))
    return indptr, indices, similarities, random.random(n, np.float32)


def blocks_of(
    indptr: np.ndarray, indices: np.ndarray, similarities: np.ndarray, selves: np.ndarray, cuts: list[int]
) -> Iterator[EdgeBlock]:
    for first, last in pairwise([0, *cuts, len(selves)]):
        part = slice(indptr[first], indptr[last])
        yield EdgeBlock(
            (indptr[first + 1 : last + 1] - indptr[first]).astype(np.uint64),
            indices[part].astype(np.uint32),
            similarities[part].astype(np.float32),
            np.arange(first, last, dtype=np.uint32),
            selves[first:last],
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_sparse_greedy_is_the_naive_one_pick_for_pick(n: int, weighted: bool) -> None:
    for seed in range(4):
        problem = sparse_problem(n, 9, seed)
        weights = np.random.default_rng(seed).choice([0.0, 0.5, 1, 2.75], n) if weighted else None
        columns = reference.sparse_columns(n, *problem)
        picks, gains, covered, representative = reference.naive_greedy(n, columns, n, weights)
        for cuts in ([], [n // 3, n // 2]):
            candidates = SparseCandidates.of(n, n, lambda cuts=cuts, problem=problem: blocks_of(*problem, cuts))
            state = RowState.uncovered(n, weights)
            found = candidates.greedy(state, candidates.gains(state, threads=1), n)
            assert found.candidates.tolist() == picks
            assert found.gains.tolist() == gains
            np.testing.assert_array_equal(state.covered, covered)
            assert state.representative.view(np.int32).tolist() == representative.tolist()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_dense_greedy_is_the_naive_one_pick_for_pick(n: int, weighted: bool) -> None:
    random = np.random.default_rng(n)
    similarities = np.maximum(random.normal(size=(n, n)), 0).astype(np.float32)
    similarities[random.random((n, n)) < 0.2] = 0.5
    similarities = similarities[: n - n // 5]  # fewer candidates than rows
    weights = random.choice([0.0, 0.5, 1, 2.75], n) if weighted else None
    columns = [(np.arange(n), row) for row in similarities]
    picks, gains, covered, representative = reference.naive_greedy(n, columns, n, weights, dense=True)
    candidates, state = DenseCandidates(similarities), RowState.uncovered(n, weights)
    found = candidates.greedy(state, candidates.gains(state, threads=2), n)
    assert found.candidates.tolist() == picks
    assert found.gains.tolist() == gains
    np.testing.assert_array_equal(state.covered, covered)
    assert state.representative.view(np.int32).tolist() == representative.tolist()
    assert found.evaluations <= len(picks) ** 2


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("n", SIZES)
def test_dense_gains_are_the_reference_bits(n: int) -> None:
    random = np.random.default_rng(n)
    similarities = random.random((3, n + 1), np.float32)[:, :n].copy()
    covered = random.random(n, np.float32)
    for weights in (None, random.random(n)):
        state = RowState(covered.copy(), np.zeros(n, np.uint32), weights)
        expected = [reference.dense_gain(reference.gain_terms(row, covered, weights)) for row in similarities]
        assert DenseCandidates(similarities).gains(state, threads=1).tolist() == expected
        allowed = np.array([False, True, False])
        assert DenseCandidates(similarities).gains(state, allowed, 1).tolist() == [-1, expected[1], -1]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("n", SIZES[1:])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -0.25])
def test_a_similarity_that_is_no_number_from_0_on_is_refused_wherever_it_stands(n: int, wrong: float) -> None:
    for row in {0, n // 2, n - 1}:
        similarities = np.full((4, n), 0.5, np.float32)
        similarities[2:, row] = wrong
        with pytest.raises(InputError, match=rf"got {wrong} between candidate 2 and row {row}; drop"):
            DenseCandidates(similarities).gains(RowState.uncovered(n))
        if np.isfinite(wrong):
            gains = DenseCandidates(similarities, negative_as_zero=True).gains(RowState.uncovered(n))
            assert gains.tolist() == [n / 2, n / 2, (n - 1) / 2, (n - 1) / 2]


def test_added_gains_are_the_bits_of_columns() -> None:
    n = 150
    indptr, indices, similarities, selves = sparse_problem(n, 9, 0)
    keys = np.unique(np.repeat(np.arange(n), np.diff(indptr)) * n + indices)  # each edge once
    indptr, indices = np.searchsorted(keys, np.arange(n + 1) * n), keys % n
    problem = (indptr, indices, similarities[: len(keys)], selves)
    state = RowState(np.random.default_rng(1).random(n, np.float32), np.zeros(n, np.uint32), np.linspace(0, 3, n))
    expected = SparseCandidates.of(n, n, lambda: blocks_of(*problem, [40])).gains(state)
    for cuts in ([], [1, 90]):
        gains, first = np.zeros(n), 0
        for block in blocks_of(*problem, cuts):
            add_gains(block, first, state, gains)
            first += len(block.ends)
        assert gains.tolist() == expected.tolist()


def test_counts_of_better_candidates() -> None:
    n = 60
    problem = sparse_problem(n, 6, 3)
    columns = reference.sparse_columns(n, *problem)
    covered = np.full(n, 0.4, np.float32)
    chosen = np.array([4, 9, 33], np.uint32)
    expected = np.zeros(n, np.int32)
    for column in chosen:
        rows, similarities = columns[column]
        expected[rows] += similarities > 0.4
    sparse = SparseCandidates.of(n, n, lambda: blocks_of(*problem, []))
    assert sparse.count_better(chosen, covered).tolist() == expected.tolist()
    dense = np.zeros((n, n), np.float32)
    for column, (rows, similarities) in enumerate(columns):
        dense[column, rows] = similarities
    assert DenseCandidates(dense).count_better(chosen, covered).tolist() == expected.tolist()


def test_what_would_read_or_write_outside_is_refused() -> None:
    good = {
        "ends": np.array([1], np.uint64), "columns": np.array([0], np.uint32), "similarities": np.ones(1, np.float32),
        "selves": np.array([0], np.uint32), "self_similarities": np.ones(1, np.float32),
    }  # fmt: skip
    wrong = [
        ({"columns": np.array([1], np.uint32)}, "columns: expected numbers below 1"),
        ({"selves": np.array([7], np.uint32)}, "columns: expected numbers below 1"),
        ({"ends": np.array([2], np.uint64)}, "ends: expected rising numbers up to that of the edges"),
        ({"similarities": np.ones(2, np.float32)}, r"similarities: expected shape \(1,\), got \(2,\)"),
    ]
    for change, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            _core.selection.Columns(1, 1).count(**{**good, **change})
    columns = _core.selection.Columns(1, 1)
    with pytest.raises(ValueError, match="place: expected 1 rows to be placed, got 0"):
        columns.gains(np.zeros(1, np.float32), np.zeros(1, np.uint32), None, None, 1)
    columns.count(**good)
    columns.place(**good)
    with pytest.raises(ValueError, match="ends: expected 1 rows in all, got more"):
        columns.place(**good)
    with pytest.raises(ValueError, match="count: expected all blocks to be counted before one is placed"):
        columns.count(**good)
    other = _core.selection.Columns(2, 1)
    two = {**good, "ends": np.array([2], np.uint64), "columns": np.array([1, 1], np.uint32)}
    other.count(**{**two, "columns": np.array([0, 0], np.uint32), "similarities": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match="place: expected the blocks that were counted, got one with more edges"):
        other.place(**{**two, "similarities": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match="chosen: expected candidates below 1"):
        columns.cover(np.array([1], np.uint32), None, np.zeros(1, np.float32), np.zeros(1, np.uint32))


def test_progress_is_told_and_an_error_in_it_ends_the_call() -> None:
    n = 3000
    similarities = np.random.default_rng(0).random((n, n), np.float32)
    told: list[float] = []

    def stop(done: float) -> None:
        told.append(done)
        raise RuntimeError("enough")

    candidates, state = DenseCandidates(similarities), RowState.uncovered(n)
    gains = candidates.gains(state)
    with pytest.raises(RuntimeError, match="enough"):
        candidates.greedy(state, gains, n, None, stop)
    assert len(told) == 1
    assert 0 <= told[0] < 1
