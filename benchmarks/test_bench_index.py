"""Neighbour graphs and k-means beside FAISS: an approximate contender prints its recall beside its time.

Each contender in a process of its own, in turn, processor seconds of one thread, building included.
PYCURATE_BENCH_INDEX_ROWS lists the sizes (20000), PYCURATE_BENCH_TABLES a file to add the tables to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from embeddings import clip_like, flat_spectrum, real_rows
from peers.similarity_race import Contender, Race, compare_neighbors, publish, table

pytest.importorskip("faiss", reason="faiss is not installed")

SIZES = [int(rows) for rows in os.environ.get("PYCURATE_BENCH_INDEX_ROWS", "20000").split(",")]
GRAPHS = [
    Contender("pycurate exact", "similarity_ours.nearest"),
    Contender("pycurate ivf", "similarity_ours.graph_ivf"),
    Contender("pycurate hnsw", "similarity_ours.graph_hnsw"),
    Contender("faiss flat", "similarity_peers.nearest_faiss", "faiss"),
    Contender("faiss ivf", "similarity_peers.graph_faiss_ivf", "faiss"),
    Contender("faiss hnsw", "similarity_peers.graph_faiss_hnsw", "faiss"),
]
MEANS = [
    Contender("pycurate", "similarity_ours.means"),
    Contender("faiss", "similarity_peers.means_faiss", "faiss"),
]


@pytest.mark.parametrize("name", ["flat", "CLIP-like", "web captions"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.benchmark(group="graph of 32 neighbours")
def test_bench_graph(benchmark: Any, tmp_path: Path, n: int, name: str) -> None:
    """A flat spectrum has no structure for an approximate index to use: its recall there is the worst case."""
    x = real_rows(name) if name == "web captions" else (flat_spectrum if name == "flat" else clip_like)(n, 512)
    if x is None or (name == "web captions" and n != SIZES[0]):
        pytest.skip("the real data sets (../shared/data) are not here, or raced already")
    with Race(GRAPHS, {"x": x}, {"k": 32}, tmp_path) as race:
        race.run(0)
        benchmark.pedantic(race.run, (1, 0), rounds=3, warmup_rounds=0)
        rows = []
        for k, contender in enumerate(GRAPHS):
            agreement = compare_neighbors(x, x, race.answer(0), race.answer(k))
            assert agreement.wrong == 0, f"{contender.name}: {agreement}"
            seconds = f"{race.seconds(k):.3g} s"
            rows.append([contender.name, seconds, f"{race.ratio(k):.3g}", agreement if k else "exact"])
        words = [str(race.answer(k)["certificate"]) for k in (1, 2)]
    shape = f"{len(x):,} x {x.shape[1]}"
    publish(
        f"Graph of 32 neighbours, {name}, {shape}",
        table(["who", "cpu time", "times ours exact", "answer"], rows),
        f"Certificates of pycurate's, in their time: ivf: {words[0]}; hnsw: {words[1]}",
    )


@pytest.mark.parametrize("name", ["CLIP-like", "web captions"])
@pytest.mark.benchmark(group="k-means")
def test_bench_k_means(benchmark: Any, tmp_path: Path, name: str) -> None:
    """Ten iterations each, counted, and the mean cosine reached: a peer that stops early or ends worse is no peer."""
    x = real_rows(name) if name == "web captions" else clip_like(SIZES[0], 512)
    if x is None:
        pytest.skip("the real data sets (../shared/data) are not here")
    k = max(1, len(x) // 100)
    with Race(MEANS, {"x": x}, {"k": k}, tmp_path) as race:
        race.run(0)
        benchmark.pedantic(race.run, (1, 0), rounds=3, warmup_rounds=0)
        ours, theirs = race.answer(0), race.answer(1)
        assert ours["iterations"] == theirs["iterations"] == 10
        assert abs(ours["similarity"] - theirs["similarity"]) < 0.01  # another random start
        rows = [
            [each.name, f"{race.seconds(at):.3g} s", f"{race.ratio(at):.3g}", f"{race.answer(at)['similarity']:.4f}"]
            for at, each in enumerate(MEANS)
        ]
    publish(
        f"k-means, {name}, {len(x):,} x {x.shape[1]}, {k} centroids, 10 iterations and an assignment",
        table(["who", "cpu time", "times ours", "mean cosine to the centroid"], rows),
    )
