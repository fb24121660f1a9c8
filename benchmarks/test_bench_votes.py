"""Votes of neighbours, SimiFeat and zero-shot labels, on one thread, against what their authors' code does with torch.

Features are like those of images: 768 numbers, classes that overlap (10 neighbours tell 92 % of rows right). Seconds
are the processor's, measured in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from label_noise import dense_votes, f1, planted, published_simifeat
from numpy.typing import NDArray

from pycurate.kernels.votes import consensus_step
from pycurate.ops.labels.label_noise import knn_label_noise
from pycurate.ops.labels.neighbor_votes import neighbor_votes
from pycurate.ops.labels.neighbors import neighbor_lists
from pycurate.ops.labels.pseudo_labels import zero_shot_labels

ROWS, DIMENSION, CLASSES, K = 20_000, 768, 100, 10
IMAGES, TEXTS, SHOTS = 50_000, 1_000, 16


@cache
def features(rows: int = ROWS) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, true labels, and labels of which 30 % are wrong."""
    random = np.random.default_rng(0)
    true = random.integers(0, CLASSES, rows)
    spectrum = 1 / np.sqrt(np.arange(1, DIMENSION + 1))  # a few directions matter, as in embeddings
    x = 0.5 * random.normal(size=(CLASSES, DIMENSION))[true] + 0.9 * random.normal(size=(rows, DIMENSION))
    x *= spectrum
    return x.astype(np.float32), true, planted(true, 0.3, CLASSES, 1)


@cache
def classes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(2)
    texts = random.normal(size=(TEXTS, DIMENSION)).astype(np.float32)
    x = 0.3 * texts[random.integers(0, TEXTS, IMAGES)] + random.normal(size=(IMAGES, DIMENSION))
    return x.astype(np.float32), texts


def torch_nearest(x: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """One m x m matrix, as the published code has it."""
    torch = pytest.importorskip("torch")
    unit = torch.nn.functional.normalize(torch.from_numpy(x), dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-2)
    near, indices = similarity.topk(k, dim=1)
    return indices.numpy(), near.numpy()


def torch_votes() -> NDArray[Any]:
    x, _, given = features()
    return dense_votes(given, CLASSES, *torch_nearest(x, K)).argmax(axis=1)


def torch_zero_shot() -> list[NDArray[Any]]:
    """The 16 best rows of each class by a rows x classes matrix in blocks, rows competing for their nearest class."""
    torch = pytest.importorskip("torch")
    x, texts = classes()
    unit = torch.nn.functional.normalize(torch.from_numpy(texts), dim=1)
    best, near = [], []
    for start in range(0, len(x), 8192):
        part = torch.nn.functional.normalize(torch.from_numpy(x[start : start + 8192]), dim=1) @ unit.T
        similarity, nearest = part.topk(1, dim=1)
        best.append(nearest[:, 0])
        near.append(similarity[:, 0])
    label, score = torch.cat(best), torch.cat(near)
    chosen = []
    for c in range(TEXTS):
        rows = torch.nonzero(label == c)[:, 0]
        chosen.append(rows[score[rows].topk(min(SHOTS, len(rows))).indices].numpy())
    return chosen


def our_votes() -> NDArray[Any]:
    return neighbor_votes(features()[0], features()[2], K, top=1, threads=1).winners


def our_simifeat() -> NDArray[np.bool_]:
    return knn_label_noise(features()[0], features()[2], K, threads=1).is_issue


def torch_simifeat() -> NDArray[np.bool_]:
    return published_simifeat(features()[0], features()[2], CLASSES, K, nearest=torch_nearest)


def our_zero_shot() -> NDArray[Any]:
    return zero_shot_labels(*classes(), SHOTS, threads=1).labels


@pytest.mark.benchmark(group=f"votes of {K} neighbours, {ROWS:,} rows")
@pytest.mark.parametrize("way", [our_votes, torch_votes])
def test_bench_votes(benchmark, way: Callable[[], Any], one_torch_thread: None) -> None:
    benchmark.pedantic(way, rounds=3)


@pytest.mark.benchmark(group=f"SimiFeat, 21 rounds, {ROWS:,} rows")
@pytest.mark.parametrize("way", [our_simifeat, torch_simifeat])
def test_bench_simifeat(benchmark, way: Callable[[], Any], one_torch_thread: None) -> None:
    benchmark.pedantic(way, rounds=1)


@pytest.mark.benchmark(group=f"{SHOTS} rows of each of {TEXTS:,} classes, {IMAGES:,} rows")
@pytest.mark.parametrize("way", [our_zero_shot, torch_zero_shot])
def test_bench_zero_shot(benchmark, way: Callable[[], Any], one_torch_thread: None) -> None:
    benchmark.pedantic(way, rounds=3)


@pytest.mark.benchmark(group="votes alone, neighbours given")
def test_bench_votes_of_lists(benchmark) -> None:
    x, _, given = features()
    lists = neighbor_lists(x, 20)
    benchmark(neighbor_votes, None, given, 20, knn=lists, threads=1)


@pytest.mark.benchmark(group="a step of consensus, 200 classes, 100,000 triples")
def test_bench_consensus(benchmark, isa) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 200, (100_000, 3)).astype(np.int32)
    given = random.random((200, 200))
    benchmark(consensus_step, labels, np.ones(len(labels)), given, np.full(200, 1 / 200), 1)


@pytest.fixture
def one_torch_thread() -> Any:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _ratio(ours: Callable[[], Any], peer: Callable[[], Any], rounds: int) -> float:
    """Median of peer's seconds by ours, in turn, so that both see the same disturbance."""
    ratios = []
    for _ in range(rounds):
        start = time.process_time()
        ours()
        middle = time.process_time()
        peer()
        ratios.append((time.process_time() - middle) / (middle - start))
    return float(np.median(ratios))


@pytest.mark.gate
def test_gate_votes(one_torch_thread: None) -> None:
    assert np.mean(our_votes() == torch_votes()) > 0.999
    ratio = _ratio(our_votes, torch_votes, 3)
    print(f"\nvotes of {K} neighbours, {ROWS:,} rows: {ratio:.1f} x torch")
    assert ratio >= 1


@pytest.mark.gate
def test_gate_simifeat(one_torch_thread: None) -> None:
    wrong = features()[2] != features()[1]
    assert f1(our_simifeat(), wrong) > f1(our_votes() != features()[2], wrong)
    ratio = _ratio(our_simifeat, torch_simifeat, 1)
    print(f"\nSimiFeat, {ROWS:,} rows: {ratio:.1f} x the published way in torch")
    assert ratio >= 10


@pytest.mark.gate
def test_gate_zero_shot(one_torch_thread: None) -> None:
    labels = our_zero_shot()
    theirs = torch_zero_shot()
    same = sum(len(np.intersect1d(rows, np.flatnonzero(labels == c))) for c, rows in enumerate(theirs))
    assert same >= 0.999 * sum(map(len, theirs))
    ratio = _ratio(our_zero_shot, torch_zero_shot, 3)
    print(f"\nzero-shot, {IMAGES:,} rows x {TEXTS:,} classes: {ratio:.1f} x torch")
    assert ratio >= 1
