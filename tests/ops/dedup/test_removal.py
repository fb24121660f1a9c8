"""The removal semantics equal their definitions, whatever the order of the pairs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycurate.kernels.fused_similarity import MostSimilarEarlier
from pycurate.ops.dedup import removal
from pycurate.ops.dedup.curve import greedy_counts, kept_counts
from pycurate.reference import removal as reference

LEVELS = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]


class Case:
    """A symmetric matrix of few levels, so that ties abound; its pairs in any order, some of them twice."""

    def __init__(self, n: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.n = n
        upper = np.triu(random.choice(np.array([*LEVELS, np.nan], np.float32), (n, n)), 1)
        self.matrix = (upper + upper.T).astype(np.float32)
        self.rank = random.permutation(n)
        rows, cols = np.triu_indices(n, 1)
        there = ~np.isnan(self.matrix[rows, cols])
        rows, cols = rows[there], cols[there]
        again = random.integers(0, len(rows), len(rows) // 3) if len(rows) else np.empty(0, np.int64)
        order = random.permutation(np.concatenate([np.arange(len(rows)), again]).astype(np.int64))
        flip = random.random(len(order)) < 0.5
        a, b = rows[order], cols[order]
        self.pairs = np.where(flip, b, a), np.where(flip, a, b), self.matrix[a, b]


def best_of(matrix: NDArray[np.float32], rank: NDArray[np.int64]) -> MostSimilarEarlier:
    indices, similarities = reference.published(matrix, rank, -np.inf, False)
    return MostSimilarEarlier(indices, similarities, np.empty(0, np.int64))


def assert_same(found: removal.Duplicates, expected: reference.Removed) -> None:
    assert found.duplicate_of.dtype == np.int64
    assert found.similarity.dtype == np.float32
    np.testing.assert_array_equal(found.duplicate_of, expected[0])
    np.testing.assert_array_equal(found.similarity, expected[1])
    np.testing.assert_array_equal(found.kept, expected[0] < 0)


cases = st.builds(Case, st.integers(0, 14), st.integers(0, 1 << 30))
thresholds = st.sampled_from([*LEVELS, -1.0, 0.3, 1.5])


@settings(max_examples=150, deadline=None)
@given(cases, thresholds, st.booleans())
def test_each_equals_its_definition(case: Case, threshold: float, strict: bool) -> None:
    n, matrix, rank = case.n, case.matrix, case.rank
    found = removal.published(best_of(matrix, rank), threshold, strict)
    assert_same(found, reference.published(matrix, rank, threshold, strict))
    found = removal.greedy(n, *case.pairs, rank, threshold, strict)
    assert_same(found, reference.greedy(matrix, rank, threshold, strict))
    found = removal.component(n, *case.pairs, rank, threshold, strict)
    assert_same(found, reference.component(matrix, rank, threshold, strict))


@settings(max_examples=100, deadline=None)
@given(cases, thresholds, st.booleans())
def test_the_spanning_forest_holds_all_that_component_needs(case: Case, threshold: float, strict: bool) -> None:
    upper = np.triu_indices(case.n, 1)
    forest = removal.spanning_forest(case.n, *upper, case.matrix[upper])
    edges = list(zip(*(part.tolist() for part in forest), strict=True))
    assert set(edges) == reference.spanning_forest(case.matrix)
    assert edges == sorted(edges, key=lambda edge: (-edge[2], edge[0], edge[1]))
    found = removal.component(case.n, *forest, case.rank, threshold, strict)
    assert_same(found, reference.component(case.matrix, case.rank, threshold, strict))


@settings(max_examples=100, deadline=None)
@given(cases, thresholds, st.booleans(), st.integers(0, 1 << 30))
def test_copies_stand_for_their_pairs(case: Case, threshold: float, strict: bool, seed: int) -> None:
    """Rows of the case are contents; each of 20 rows has one of them."""
    random = np.random.default_rng(seed)
    content = random.integers(0, max(case.n, 1), 20) if case.n else np.empty(0, np.int64)
    n, rank = len(content), random.permutation(len(content))
    matrix = case.matrix[np.ix_(content, content)]
    matrix[content[:, None] == content[None, :]] = 1
    lowest = {c: r for r, c in reversed(list(enumerate(content.tolist())))}
    first = np.array([lowest[c] for c in content.tolist()], np.int64)
    copy_of = np.where(first == np.arange(n), -1, first)
    rows, cols = np.triu_indices(n, 1)
    kept = (copy_of[rows] < 0) & (copy_of[cols] < 0) & ~np.isnan(matrix[rows, cols])
    pairs = rows[kept], cols[kept], matrix[rows, cols][kept]
    found = removal.greedy(n, *pairs, rank, threshold, strict, copy_of=copy_of)
    assert_same(found, reference.greedy(matrix, rank, threshold, strict, copy_of))
    counted = greedy_counts(n, *pairs, rank, [threshold], strict, copy_of=copy_of)
    assert counted[0] == np.count_nonzero(found.kept)
    # Decisions, if not the row that is named, are those of all pairs written out.
    np.testing.assert_array_equal(found.kept, reference.greedy(matrix, rank, threshold, strict)[0] < 0)
    found = removal.component(n, *pairs, rank, threshold, strict, copy_of=copy_of)
    assert_same(found, reference.component(matrix, rank, threshold, strict))


@settings(max_examples=50, deadline=None)
@given(cases, st.booleans())
def test_a_curve_counts_what_each_threshold_keeps(case: Case, strict: bool) -> None:
    limits = [*LEVELS, 0.3, -1.0, 2.0] * 10  # more than one sweep answers
    n, matrix, rank = case.n, case.matrix, case.rank
    of_published = kept_counts(n, best_of(matrix, rank).similarities, limits, strict)
    of_component = kept_counts(n, removal.spanning_forest(n, *case.pairs)[2], limits, strict)
    of_greedy = greedy_counts(n, *case.pairs, rank, limits, strict)
    for at, limit in enumerate(limits):
        assert of_published[at] == np.sum(reference.published(matrix, rank, limit, strict)[0] < 0)
        assert of_component[at] == np.sum(reference.component(matrix, rank, limit, strict)[0] < 0)
        assert of_greedy[at] == np.sum(reference.greedy(matrix, rank, limit, strict)[0] < 0)


def test_a_chain_is_cut_by_each_semantics_in_its_way() -> None:
    """0 - 1 - 2 - 3, each like the next only."""
    rows, cols = np.array([0, 1, 2]), np.array([1, 2, 3])
    near, rank = np.array([0.97, 0.95, 0.96], np.float32), np.arange(4)
    best = MostSimilarEarlier(np.array([-1, 0, 1, 2]), np.array([np.nan, *near], np.float32), np.empty(0, np.int64))
    assert removal.published(best, 0.95).duplicate_of.tolist() == [-1, 0, 1, 2]
    assert removal.greedy(4, rows, cols, near, rank, 0.95).duplicate_of.tolist() == [-1, 0, -1, 2]
    found = removal.component(4, rows, cols, near, rank, 0.95)
    assert found.duplicate_of.tolist() == [-1, 0, 0, 0]
    np.testing.assert_array_equal(found.similarity[1:], np.array([0.97, 0.95, 0.95], np.float32))
    assert removal.component(4, rows, cols, near, rank, 0.95, strict=True).duplicate_of.tolist() == [-1, 0, -1, 2]


def test_a_threshold_is_rounded_to_float32_once() -> None:
    near = np.array([0.93], np.float32)  # a little above 0.93
    one, two = np.array([0]), np.array([1])
    assert not removal.greedy(2, one, two, near, np.arange(2), 0.93).kept[1]
    assert removal.greedy(2, one, two, near, np.arange(2), 1 - 0.07, strict=True).kept[1]


def test_wrong_arguments_are_named() -> None:
    one, two, near = np.array([0]), np.array([1]), np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"^rank: expected each of 0 to 1 once, but no row has rank 1"):
        removal.greedy(2, one, two, near, np.zeros(2, np.int64), 0.5)
    with pytest.raises(ValueError, match=r"^rank: expected integers of shape \(2,\), got float64"):
        removal.component(2, one, two, near, np.zeros(2), 0.5)
    with pytest.raises(ValueError, match=r"^cols: expected row numbers from 0 to 0, got 1 to 1"):
        removal.greedy(1, one, two, near, np.zeros(1, np.int64), 0.5)
    with pytest.raises(ValueError, match=r"^rows, cols, similarities: expected \(p,\) each"):
        removal.spanning_forest(2, one, two, np.ones(2, np.float32))
    with pytest.raises(ValueError, match=r"^threshold: expected a number, got NaN"):
        removal.greedy(2, one, two, near, np.arange(2), np.nan)


def test_ten_million_pairs_take_seconds() -> None:
    random = np.random.default_rng(0)
    n, p = 1_000_000, 10_000_000
    rows, cols = random.integers(0, n, (2, p))
    near = random.random(p, dtype=np.float32)
    rank = random.permutation(n)
    small = np.arange(2)
    removal.greedy(2, small[:1], small[1:], near[:1], small, 0.5)  # compiled
    removal.component(2, small[:1], small[1:], near[:1], small, 0.5)
    started = time.process_time()
    removal.greedy(n, rows, cols, near, rank, 0.1)
    removal.component(n, rows, cols, near, rank, 0.1)
    assert time.process_time() - started < 40  # 7 s in all on one processor


@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_however_many_pairs_are_held_greedy_is_its_definition(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycurate.ops.dedup.sweeps.PAIRS_AT_ONCE", at_once)
    for seed in range(20):
        case = Case(14, seed)
        for strict in (False, True):
            expected = reference.greedy(case.matrix, case.rank, 0.5, strict)
            assert_same(removal.greedy(case.n, *case.pairs, case.rank, 0.5, strict), expected)
            limits = [0.9, 0.25, 0.5]
            kept = [np.count_nonzero(reference.greedy(case.matrix, case.rank, t, strict)[0] < 0) for t in limits]
            assert greedy_counts(case.n, *case.pairs, case.rank, limits, strict).tolist() == kept
