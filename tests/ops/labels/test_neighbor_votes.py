from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.graph_build import knn_graph
from pycurate.kernels import votes as kernels
from pycurate.kernels.fused_similarity import nearest
from pycurate.ops.labels.neighbor_votes import neighbor_votes
from pycurate.ops.labels.neighbors import neighbor_lists
from pycurate.types import UID_DTYPE


def clusters(n: int, classes: int, seed: int = 0, spread: float = 0.4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    centres = random.normal(size=(classes, 16))
    return (centres[labels] + spread * random.normal(size=(n, 16))).astype(np.float32), labels


def test_votes_are_those_of_the_nearest_other_rows() -> None:
    x, labels = clusters(200, 5, spread=1.5)
    labels[::7] = -1
    found = neighbor_votes(x, labels, 6, weights="count", top=3)
    near = nearest(x, 6).indices
    for row in range(len(x)):
        there = [int(label) for label in labels[near[row]] if label >= 0]
        ranked = sorted(Counter(there).items(), key=lambda item: (-item[1], item[0]))[:3]
        assert found.labels[row].tolist() == ([label for label, _ in ranked] + [-1] * 3)[:3]
        np.testing.assert_allclose(found.shares[row, : len(ranked)], [c / len(there) for _, c in ranked], rtol=1e-6)
        assert found.voters[row] == len(there)
        if labels[row] < 0:
            assert np.isnan(found.agreement[row])
        else:
            assert found.agreement[row] == pytest.approx(there.count(labels[row]) / len(there), rel=1e-6)
    np.testing.assert_array_equal(found.winners, found.labels[:, 0])
    np.testing.assert_array_equal(found.margin, found.shares[:, 0] - found.shares[:, 1])


@pytest.mark.usefixtures("isa")
def test_votes_do_not_depend_on_threads_blocks_order_or_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = clusters(300, 4, spread=1.5)
    x[50:60] = x[7]
    x[100:120] = np.round(x[100:120])
    uids = np.zeros(300, UID_DTYPE)
    uids["f0"] = np.random.default_rng(3).permutation(300)
    first = neighbor_votes(x, labels, 9, threads=1, uids=uids)
    monkeypatch.setattr(kernels, "BLOCK_EDGES", 100)
    again = neighbor_votes(x, labels, 9, threads=3, uids=uids)
    order = np.random.default_rng(4).permutation(300)
    moved = neighbor_votes(x[order], labels[order], 9, uids=uids[order])
    for name in ("labels", "shares", "agreement", "voters"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(moved, name), getattr(first, name)[order])


def test_copies_have_one_vote_and_none_about_each_other() -> None:
    x, labels = clusters(60, 3)
    many = np.concatenate([x, np.repeat(x[:1], 500, axis=0)])
    marked = np.concatenate([labels, np.full(500, 2)])
    marked[0] = 1
    found = neighbor_votes(many, marked, 10)
    plain = neighbor_votes(x, np.concatenate([[2], labels[1:]]), 10)  # most copies say 2
    np.testing.assert_array_equal(found.labels[:60], plain.labels)
    assert (found.labels[60:] == found.labels[0]).all()
    assert (found.voters[60:] == 10).all()
    assert len(np.unique(found.agreement[60:])) == 1
    both = np.concatenate([x, x[:1]]), np.concatenate([labels, [labels[0] + 1]])
    tied = neighbor_votes(*both, 59, weights="count", n_classes=9)
    assert tied.voters[1] == 58  # two copies that contradict each other abstain


@pytest.mark.parametrize("wide", [False, True])
def test_a_ready_graph_gives_the_same_votes(tmp_path: Path, wide: bool) -> None:
    x, labels = clusters(120, 4, spread=1)
    x[30] = np.nan
    plain = neighbor_votes(x, labels, 8)
    graph = knn_graph(x, 20 if wide else 8, out=tmp_path / "graph")
    pair = nearest(x, 20 if wide else 8)
    np.save(tmp_path / "i.npy", pair.indices.astype(np.int32))
    mapped = (np.load(tmp_path / "i.npy", mmap_mode="r"), pair.similarities)
    for knn in (graph, mapped, neighbor_lists(x, 8)):
        found = neighbor_votes(None, labels, 8, knn=knn)
        np.testing.assert_array_equal(found.labels, plain.labels)
        np.testing.assert_array_equal(found.agreement, plain.agreement)
        assert found.unjudged.tolist() == plain.unjudged.tolist() == [30]


def test_a_graph_with_copies_is_freed_of_them_by_its_rows() -> None:
    x, labels = clusters(80, 3, spread=1)
    x[40:45] = x[2]
    graph = knn_graph(x, 30)
    found = neighbor_votes(x, labels, 6, knn=graph)
    plain = neighbor_votes(x, labels, 6)
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_array_equal(found.agreement, plain.agreement)
    assert (neighbor_votes(None, labels, 6, knn=graph).agreement != plain.agreement).any()


def test_votes_without_weight_are_none() -> None:
    x = np.array([[1, 0], [1, 0.1], [-1, 0]], np.float32)
    found = neighbor_votes(x, [0, 1, 1], 2)
    assert found.voters.tolist() == [1, 1, 0]
    assert found.unjudged.tolist() == [2]
    assert neighbor_votes(x, [0, 1, 1], 2, weights="count").voters.tolist() == [2, 2, 2]


@pytest.mark.parametrize("element", ["float16", "bfloat16", "int8"])
def test_other_elements_and_rows_apart(element: str) -> None:
    import ml_dtypes

    x, labels = clusters(60, 3)
    kinds = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int8": np.int8}
    wide = np.zeros((60, 40), kinds[element])
    wide[:, :16] = (x * 20).astype(kinds[element])
    uids = np.zeros(60, UID_DTYPE)
    uids["f1"] = np.arange(60)
    right = neighbor_votes(wide[:, :16].astype(np.float32), labels, 5)
    for keys in (None, uids):
        found = neighbor_votes(wide[:, :16], labels, 5, uids=keys, weights="similarity")
        if element != "int8":  # whose similarities are rounded by other sums
            np.testing.assert_array_equal(found.shares, right.shares)
        np.testing.assert_array_equal(found.winners, right.winners)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(n: int) -> None:
    found = neighbor_votes(np.ones((n, 3), np.float32), np.zeros(n, np.int64), 10)
    assert found.voters.tolist() == [0] * n
    assert found.winners.tolist() == [-1] * n


def test_many_copies_and_many_classes_take_memory_of_the_rows_only() -> None:
    """100,000 copies of one row, and labels out of 2^29 classes: rows x classes would be 4 * 10^14 bytes."""
    x, labels = clusters(2000, 5)
    many = np.concatenate([x, np.broadcast_to(x[0], (100_000, 16))])
    marked = np.concatenate([labels * 100_000_000, np.zeros(100_000, np.int64)])
    marked[0] = 7
    tracemalloc.start()
    found = neighbor_votes(many, marked, 10, n_classes=1 << 29, top=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000  # 102,000 rows, and the lists of 2,000
    assert (found.winners[2000:] == found.winners[0]).all()
    assert found.winners[0] == labels[0] * 100_000_000


def test_ucm_images_are_told_by_their_neighbours(shared_data: Path) -> None:
    x = np.load(shared_data / "ucm_captions" / "feat_mobilenet1024_fp16.npy")
    found = neighbor_votes(x, np.arange(2100) // 100, 10, weights="count")
    assert np.mean(found.winners == np.arange(2100) // 100) == pytest.approx(0.92, abs=0.002)


def test_bad_input_is_named() -> None:
    x, labels = clusters(20, 3)
    with pytest.raises(InputError, match=r"labels: expected shape \(20,\), one label for each row, got \(19,\)"):
        neighbor_votes(x, labels[1:])
    with pytest.raises(InputError, match=r"labels: expected from 0 to 1, or -1 for none, got 2 in row"):
        neighbor_votes(x, labels, n_classes=2)
    with pytest.raises(InputError, match=r"got -2 in row 0"):
        neighbor_votes(x, np.full(20, -2))
    with pytest.raises(InputError, match="labels: expected integers from 0"):
        neighbor_votes(x, labels.astype(np.float32))
    with pytest.raises(InputError, match="n_classes: expected from 1"):
        neighbor_votes(x, labels, n_classes=0)
    with pytest.raises(InputError, match="k: expected a whole number of at least 1, got 0"):
        neighbor_votes(x, labels, 0)
    with pytest.raises(InputError, match="x: expected embeddings"):
        neighbor_votes(None, labels)
    with pytest.raises(InputError, match="weights='count' or another metric"):
        neighbor_votes(x, labels, metric="l2")
    with pytest.raises(ValueError, match="weights: expected 'similarity' or 'count', got 'none'"):
        neighbor_votes(x, labels, weights="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="knn: expected a graph in order of similarity"):
        neighbor_votes(None, labels, knn=knn_graph(x, 3).symmetrize())
    with pytest.raises(InputError, match=r"knn: expected \(n, k\) integers"):
        neighbor_votes(None, labels, knn=(np.zeros((20, 2)), np.zeros((20, 2))))
    with pytest.raises(InputError, match="knn: expected row numbers below 20, got 20 in row 0"):
        neighbor_votes(None, labels, knn=(np.full((20, 2), 20), np.zeros((20, 2))))
    with pytest.raises(InputError, match="knn: expected neighbours of 10 rows, as x has, got those of 20"):
        neighbor_votes(x[:10], labels[:10], knn=knn_graph(x, 3))
    with pytest.raises(InputError, match=r"uids: expected \(20,\) uids"):
        neighbor_votes(x, labels, uids=np.zeros(3, UID_DTYPE))
    with pytest.raises(InputError, match="top: margins need at least 2"):
        _ = neighbor_votes(x, labels, top=1).margin
