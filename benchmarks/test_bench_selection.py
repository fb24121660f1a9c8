"""Facility location against apricot, k-centre against NumPy; processor time of one thread.

The picks of apricot's plain greedy algorithm on the same graph are ours, pick for pick.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embeddings import real_rows
from numpy.typing import NDArray
from peers.selection_peers import apricot_picks, numpy_k_center, scipy_graph

from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import knn_graph
from pycurate.ops.selection.facility import facility_location
from pycurate.ops.selection.k_center import k_center

PICKS = 1000
ROUNDS = 3


def seconds(function: Any, *arguments: Any, **options: Any) -> tuple[float, Any]:
    started = time.process_time()
    result = function(*arguments, **options)
    return time.process_time() - started, result


def raced(name: str, ours: Any, peer: Any) -> float:
    """Median ratio of interleaved rounds, after one that warms up."""
    peer(), ours()
    pairs = [(seconds(peer)[0], seconds(ours)[0]) for _ in range(ROUNDS)]
    ratio = float(np.median([p / o for p, o in pairs]))
    print(f"\n{name}: {min(o for _, o in pairs):.3f} s, apricot {min(p for p, _ in pairs):.2f} s, {ratio:.1f} x")
    return ratio


@pytest.fixture(scope="module")
def captions() -> NDArray[np.float32]:
    rows = real_rows("web captions")
    if rows is None:
        pytest.skip("the real captions are not here")
    return rows


@pytest.fixture(scope="module")
def graph(captions: NDArray[np.float32]) -> KnnGraph:
    return knn_graph(captions, 16, threads=1).symmetrize()


@pytest.mark.gate
def test_gate_facility_location_on_a_graph(graph: KnnGraph) -> None:
    matrix = scipy_graph(graph)
    plain = apricot_picks(matrix, PICKS, optimizer="naive")
    ours = facility_location(graph, PICKS, negative="zero", threads=1)
    np.testing.assert_array_equal(ours.rows, plain)
    print(f"\n{PICKS} of {len(graph):,} rows, certified ratio {ours.ratio:.3f}, {ours.evaluations:,} gains anew")
    for optimizer in ("lazy", "two-stage"):
        ratio = raced(
            f"graph, against {optimizer}",
            lambda: facility_location(graph, PICKS, negative="zero", threads=1),
            lambda optimizer=optimizer: apricot_picks(matrix, PICKS, optimizer=optimizer),
        )
        assert ratio >= 20


@pytest.mark.benchmark(group="facility location from rows")
@pytest.mark.parametrize("which", ["pycurate", "apricot"])
def test_bench_from_rows(benchmark: Any, captions: NDArray[np.float32], which: str) -> None:
    """Ours on the exact graph of 16 neighbours, apricot on all pairs; what either's picks reach over all pairs."""
    if which == "apricot":
        picks = benchmark.pedantic(
            apricot_picks, (captions, PICKS), {"metric": "cosine"}, rounds=ROUNDS, warmup_rounds=1
        )
    else:
        options = {"negative": "zero", "threads": 1}
        picks = benchmark.pedantic(facility_location, (captions, PICKS), options, rounds=ROUNDS).rows
    reached = np.zeros(len(captions), np.float32)
    for row in picks:
        np.maximum(reached, captions @ captions[row], out=reached)
    benchmark.extra_info["objective over all pairs"] = float(reached.sum(dtype=np.float64))


@pytest.mark.benchmark(group="facility location on a matrix of all pairs")
@pytest.mark.parametrize("which", ["pycurate", "apricot"])
def test_bench_matrix(benchmark: Any, captions: NDArray[np.float32], which: str) -> None:
    similarities = np.maximum(captions @ captions.T, np.float32(0))
    if which == "apricot":
        doubles = similarities.astype(np.float64)
        benchmark.pedantic(apricot_picks, (doubles, PICKS), rounds=ROUNDS, warmup_rounds=1)
    else:
        options = {"metric": "precomputed", "threads": 1}
        benchmark.pedantic(facility_location, (similarities, PICKS), options, rounds=ROUNDS)


@pytest.mark.benchmark(group="k-centre")
@pytest.mark.parametrize("which", ["pycurate", "numpy"])
def test_bench_k_center(benchmark: Any, captions: NDArray[np.float32], which: str) -> None:
    if which == "numpy":
        benchmark.pedantic(numpy_k_center, (captions, PICKS), rounds=ROUNDS)
    else:
        benchmark.pedantic(k_center, (captions, PICKS), {"threads": 1}, rounds=ROUNDS)


@pytest.mark.usefixtures("isa")
@pytest.mark.benchmark(group="facility location on a matrix by instruction set")
def test_bench_matrix_by_instruction_set(benchmark: Any, captions: NDArray[np.float32]) -> None:
    some = captions[:4000]
    similarities = np.maximum(some @ some.T, np.float32(0))
    benchmark.pedantic(facility_location, (similarities, 200), {"metric": "precomputed", "threads": 1}, rounds=ROUNDS)


def million_nodes(folder: Path, n: int = 1_000_000, k: int = 16, group: int = 1000) -> KnnGraph:
    """A generated graph on disk: nine of ten edges inside groups of a thousand rows, weights from 0.3 to 1."""
    random = np.random.default_rng(0)
    own = np.arange(n)[:, None]
    inside = own // group * group + random.integers(0, group, (n, k))
    targets = np.where(random.random((n, k)) < 0.9, inside, random.integers(0, n, (n, k)))
    targets = np.sort(np.where(targets == own, (own + 1) % n, targets), axis=1).astype(np.uint32)
    weights = (0.3 + 0.7 * random.random((n, k))).astype(np.float16)
    made = KnnGraph(np.arange(n + 1, dtype=np.uint64) * k, targets.reshape(-1), weights.reshape(-1), "row")
    return made.save(folder / "graph")


@pytest.mark.benchmark(group="facility location, a million nodes")
@pytest.mark.parametrize("bound_steps", [1, 20])
@pytest.mark.parametrize("parts", ["whole", "1,000 parts"])
def test_bench_million_nodes(benchmark: Any, tmp_path: Path, parts: str, bound_steps: int) -> None:
    graph = million_nodes(tmp_path)
    partition = None if parts == "whole" else np.arange(len(graph)) // 1000
    found = benchmark.pedantic(
        facility_location,
        (graph, 10_000),
        {"partition": partition, "bound_steps": bound_steps, "threads": 1},
        rounds=1,
    )
    benchmark.extra_info.update(ratio=found.ratio, objective=found.objective, proposed=found.proposed)
