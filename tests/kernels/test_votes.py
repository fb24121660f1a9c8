from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels import votes
from pycurate.kernels.fused_similarity import nearest
from pycurate.reference import votes as reference


def lists(n: int, width: int, classes: int, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Neighbours with gaps, the node itself at any place, weights of 0, below 0 and NaN, and rows without a label."""
    random = np.random.default_rng(seed)
    indices = random.integers(-1, max(n, 1), (n, width))
    weights = random.random((n, width)).astype(np.float32)
    odd = random.random((n, width))
    weights[odd < 0.1] = 0
    weights[odd > 0.95] = np.nan
    weights[(odd > 0.9) & (odd < 0.95)] = -1
    weights[(odd > 0.5) & (odd < 0.6)] = 0.25  # ties
    labels = random.integers(-1, classes, n).astype(np.int32)
    nodes = random.integers(0, max(n, 1), 2 * n)
    own = random.integers(-1, classes, 2 * n).astype(np.int32)
    return indices, weights, labels, nodes, own


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n", "width", "classes"), [(0, 3, 2), (1, 1, 1), (7, 4, 3), (33, 17, 2), (300, 10, 40), (50, 0, 3)]
)
@pytest.mark.usefixtures("isa")
def test_votes_equal_the_reference(n: int, width: int, classes: int, weighted: bool) -> None:
    indices, weights, labels, nodes, own = lists(n, width, classes, n)
    given = weights if weighted else None
    for top, threads in ((1, 1), (3, 2), (0, 1)):
        found = _core.votes.cast_votes(indices, given, 0, labels, nodes, own, top, threads)
        for got, expected in zip(found, reference.cast_votes(indices, given, labels, nodes, own, top), strict=True):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype


@pytest.mark.parametrize("own_vote", [False, True])
@pytest.mark.parametrize(("n", "width", "classes"), [(0, 3, 2), (1, 1, 1), (40, 9, 3), (300, 10, 40)])
@pytest.mark.usefixtures("isa")
def test_votes_of_rounds_equal_the_reference(n: int, width: int, classes: int, own_vote: bool) -> None:
    indices, weights, labels, nodes, own = lists(n, width, classes, n)
    members = np.random.default_rng(1).integers(0, 2**64, n, np.uint64)
    for rounds, neighbors, threads in ((range(64), 5, 1), (range(3, 5), 100, 2)):
        found = _core.votes.round_votes(
            indices, weights, 0, labels, nodes, own, members, rounds.start, rounds.stop, neighbors, own_vote, True,
            threads,
        )  # fmt: skip
        expected = reference.round_votes(indices, weights, labels, nodes, own, members, rounds, neighbors, own_vote)
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("n", "classes"), [(0, 2), (1, 1), (50, 3), (3000, 9)])
@pytest.mark.usefixtures("isa")
def test_triples_equal_the_reference(n: int, classes: int) -> None:
    indices, _, labels, nodes, own = lists(n, 6, classes, n)
    for threads in (1, 2):
        counts = np.zeros(classes**3, np.int64)
        _core.votes.count_triples(indices, 0, labels, nodes, own, classes, counts, threads)
        np.testing.assert_array_equal(counts, reference.count_triples(indices, labels, nodes, own, classes))


@pytest.mark.parametrize(("m", "classes"), [(0, 2), (1, 1), (40, 3), (60, 8), (100, 21), (9000, 9)])
@pytest.mark.usefixtures("isa")
def test_a_step_of_consensus_has_the_bits_of_the_reference(m: int, classes: int) -> None:
    random = np.random.default_rng(m)
    labels = random.integers(0, classes, (m, 3)).astype(np.int32)
    counts = random.integers(1, 9, m).astype(np.float64)
    given, prior = random.random((classes, classes)), random.random(classes)
    expected = reference.consensus_step(labels, counts, given, prior)
    for threads in (1, 3):
        sums, priors, likelihood = votes.consensus_step(labels, counts, given, prior, threads)
        np.testing.assert_array_equal(sums, expected[0])
        np.testing.assert_array_equal(priors, expected[1])
        assert likelihood == pytest.approx(expected[2], rel=1e-12)  # the logarithms are two libraries'


def test_a_triple_of_probability_0_adds_nothing() -> None:
    labels = np.array([[0, 1, 1], [1, 1, 1]], np.int32)
    sums, priors, likelihood = votes.consensus_step(labels, np.ones(2), np.eye(2), np.full(2, 0.5))
    assert likelihood == -np.inf
    np.testing.assert_array_equal(priors, [0, 1])
    np.testing.assert_array_equal(sums, [[0, 0], [0, 3]])


def test_lists_are_those_of_nearest_without_copies() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 8)).astype(np.float32)
    x[10] = x[3]
    x[20] = x[3]
    x[5] = np.nan
    found = votes.nearest_lists(x, 4)
    assert (found.n, found.count, found.width) == (60, 57, 4)
    assert found.unjudged.tolist() == [5]
    rows = found.first_rows
    assert found.node is not None
    assert set(found.node[[3, 10, 20]]) == {3}
    plain = nearest(x[rows], 4)
    indices, similarities = found.read(0, found.count)
    np.testing.assert_array_equal(indices, plain.indices)
    np.testing.assert_array_equal(similarities, plain.similarities)


def test_blocks_hold_every_judged_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    x[7:12] = x[1]
    x[0] = 0
    monkeypatch.setattr(votes, "BLOCK_EDGES", 12)
    found = votes.nearest_lists(x, 3)
    assert found.node is not None
    blocks = list(found.blocks())
    assert len(blocks) == 9
    rows = np.concatenate([block.rows for block in blocks])
    assert sorted(rows.tolist()) == list(range(1, 40))
    for block in blocks:
        np.testing.assert_array_equal(found.node[block.rows], block.first + block.nodes)


def test_a_node_has_the_label_of_most_of_its_rows_or_none() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    found = votes.nearest_lists(x, 3)
    labels = np.array([1, 1, 0, 2, 1, -1, -1, -1, -1, -1, 5, -1], np.int32)
    assert found.node_labels(labels).tolist() == [1, -1, -1, 5]
    same = votes.nearest_lists(np.eye(4, dtype=np.float32), 3)
    assert same.node_labels(labels[:4]).tolist() == labels[:4].tolist()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows_have_few_neighbours(n: int) -> None:
    found = votes.nearest_lists(np.eye(2, dtype=np.float32)[:n], 5)
    indices, _ = found.read(0, n)
    assert indices.tolist() == [[], [[-1]], [[1], [0]]][n]


def test_bad_arrays_are_named() -> None:
    good = (np.zeros((2, 1), np.int64), None, 0, np.zeros(2, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int32))
    with pytest.raises(ValueError, match=r"indices: expected numbers from .* to 1, got 2"):
        _core.votes.cast_votes(np.full((2, 1), 2), *good[1:], 1, 1)
    with pytest.raises(ValueError, match="nodes: expected numbers from 0 to 1, got 2"):
        _core.votes.cast_votes(*good[:4], np.full(1, 2), good[5], 1, 1)
    with pytest.raises(ValueError, match=r"own: expected shape \(1,\), got \(2,\)"):
        _core.votes.cast_votes(*good[:5], np.zeros(2, np.int32), 1, 1)
    with pytest.raises(ValueError, match="weights: expected the shape of indices"):
        _core.votes.cast_votes(good[0], np.zeros((1, 1), np.float32), *good[2:], 1, 1)
    with pytest.raises(ValueError, match="labels: expected at least 3, got 2"):
        _core.votes.cast_votes(good[0], None, 1, *good[3:], 1, 1)
    with pytest.raises(ValueError, match="members: expected shape"):
        _core.votes.round_votes(*good, np.zeros(3, np.uint64), 0, 1, 1, True, True, 1)
    with pytest.raises(ValueError, match="last_round: expected from first_round to 64, got 65"):
        _core.votes.round_votes(*good, np.zeros(2, np.uint64), 0, 65, 1, True, True, 1)
    with pytest.raises(ValueError, match="own: expected numbers from -1 to 0, got 1"):
        _core.votes.count_triples(good[0], 0, *good[3:5], np.ones(1, np.int32), 1, np.zeros(1, np.int64), 1)
    with pytest.raises(ValueError, match=r"counts: expected shape \(8,\)"):
        _core.votes.count_triples(good[0], 0, *good[3:], 2, np.zeros(4, np.int64), 1)
    with pytest.raises(ValueError, match=r"given: expected shape \(2, 2\)"):
        _core.votes.consensus_step(np.zeros((1, 3), np.int32), np.ones(1), np.ones((2, 3)), np.ones(2), 1)
    with pytest.raises(ValueError, match="labels: expected numbers from 0 to 1, got 5"):
        _core.votes.consensus_step(np.full((1, 3), 5, np.int32), np.ones(1), np.ones((2, 2)), np.ones(2), 1)
