"""Deduplication by clusters of a file larger than its cap, and its pairwise part beside SemDeDup's with torch.

The pool is CLIP-like float16 rows, written block by block; a fifth of them are near-copies of rows anywhere before. The
run is a process of its own, so that its peak memory is its own. PYCURATE_BENCH_DEDUP_ROWS sets the rows (200000) of
the one that is no gate. Seconds compared are the processor's.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embeddings import clip_like_blocks, rotated_towards
from measure import measure
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from peers.similarity_race import publish, table

from pycurate.kernels.block_similarity import BlockPair, LeftBlock

ROWS = int(os.environ.get("PYCURATE_BENCH_DEDUP_ROWS", "200000"))
FLOOR = 0.9
COPIES = 0.2
CAP_BYTES = 1900 << 20
PUBLISHED_CLUSTER_ROWS = 8800
"""440 million rows of LAION in 50,000 clusters."""

RUN = """
import json, sys, time
import numpy as np
import pycurate
source, out, facts, cap, floor, target = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
inside_too = sys.argv[7] == "True"
begun, seconds = [time.process_time(), time.perf_counter()], {}
def lap(name):
    now = [time.process_time(), time.perf_counter()]
    seconds[name] = [b - a for a, b in zip(begun, now)]
    begun[:] = now
joined = pycurate.clustered_join(source, out, memory_bytes=cap, threads=2, probes=4)
lap("open: copies, unjudged rows")
work = joined.work(floor)
lap("k-means, exchange, visits")
best = joined.most_similar_earlier(np.arange(joined.n), floor)
lap("pairwise")
if inside_too:
    inside = pycurate.clustered_join(source, out, memory_bytes=cap, threads=2, probes=0)
    inside.work(floor)
    lap("no visits")
    inside.most_similar_earlier(np.arange(joined.n), floor)
    lap("pairwise, inside clusters only")
found = joined.certificate(floor, target=target) if target else None
lap("certificate")
facts_of = {"seconds": seconds, "work": str(work), "removed": int((best.indices >= 0).sum())}
if found is not None:
    facts_of |= {"certificate": found.to_dict(), "sentence": found.sentence()}
open(facts, "w").write(json.dumps(facts_of))
"""

PEER = """
import json, sys, time
import faiss, numpy as np, torch
source, facts, clusters, floor = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
torch.set_num_threads(2)
faiss.omp_set_num_threads(2)
begun, seconds = [time.process_time(), time.perf_counter()], {}
def lap(name):
    now = [time.process_time(), time.perf_counter()]
    seconds[name] = [b - a for a, b in zip(begun, now)]
    begun[:] = now
rows = np.load(source).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
lap("read and widen")
means = faiss.Kmeans(rows.shape[1], clusters, niter=10, spherical=True, seed=0, max_points_per_centroid=64)
means.train(rows)
nearest = means.assign(rows)[1]
lap("k-means and assignment")
removed = 0
for cluster in range(clusters):
    part = torch.from_numpy(rows[np.flatnonzero(nearest == cluster)])
    if len(part):
        removed += int((torch.triu(torch.mm(part, part.T), diagonal=1).max(dim=0).values >= floor).sum())
lap("pairwise, inside clusters")
open(facts, "w").write(json.dumps({"seconds": seconds, "removed": removed}))
"""


def write_pool(path: Path, n: int, d: int) -> None:
    """A block's copies are of rows of the blocks before it, a cosine of ``FLOOR`` to 1 away."""
    random = np.random.default_rng([1, n, d])
    rows = open_memmap(path, "w+", np.float16, (n, d))
    start = 0
    for block in clip_like_blocks(n, d, FLOOR):
        if start:
            copies = random.permutation(len(block))[: int(len(block) * COPIES)]
            originals = rows[np.sort(random.integers(0, start, len(copies)))].astype(np.float32)
            originals /= np.linalg.norm(originals, axis=1, keepdims=True)
            block[copies] = rotated_towards(originals, random.uniform(FLOOR, 1, len(copies)), random)
        rows[start : start + len(block)] = block
        start += len(block)
    rows.flush()


def run(folder: Path, *, target: float, inside: bool) -> dict[str, Any]:
    facts = folder / "facts.json"
    command = [sys.executable, "-c", RUN, folder / "x.npy", folder / "out", facts, str(CAP_BYTES), str(FLOOR)]
    figures = measure([*command, str(target), str(inside)])
    found: dict[str, Any] = json.loads(facts.read_text())
    found["peak_bytes"], found["wall"], found["cpu"] = figures.peak_bytes, figures.wall_seconds, figures.cpu_seconds
    return found


def run_peer(folder: Path, n: int) -> dict[str, Any]:
    """SemDeDup's way, all rows in memory as float32, with as many clusters and the same sample."""
    facts = folder / "peer.json"
    clusters = math.isqrt(n) // 2
    figures = measure([sys.executable, "-c", PEER, folder / "x.npy", facts, str(clusters), str(FLOOR)])
    found: dict[str, Any] = json.loads(facts.read_text())
    return found | {"peak_bytes": figures.peak_bytes, "wall": figures.wall_seconds, "cpu": figures.cpu_seconds}


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    seconds = [[name, f"{cpu:.3g} s", f"{wall:.3g} s"] for name, (cpu, wall) in found["seconds"].items()]
    return [*seconds, ["whole process", f"{found['cpu']:.3g} s", f"{found['wall']:.3g} s"]]


@pytest.mark.benchmark(group="clustered deduplication")
def test_bench_clustered(benchmark: Any, tmp_path: Path) -> None:
    compare_clustered(benchmark, tmp_path, ROWS)


@pytest.mark.gate
@pytest.mark.slow
@pytest.mark.benchmark(group="clustered deduplication")
def test_bench_clustered_one_million(benchmark: Any, tmp_path: Path) -> None:
    compare_clustered(benchmark, tmp_path, 1_000_000)


def compare_clustered(benchmark: Any, tmp_path: Path, rows: int) -> None:
    write_pool(tmp_path / "x.npy", rows, 512)
    given = {"target": 0.999, "inside": True}
    found = benchmark.pedantic(run, (tmp_path,), given, rounds=1, warmup_rounds=0)
    publish(
        f"Deduplication by clusters, {rows:,} x 512 float16, floor {FLOOR}, two threads, cap {CAP_BYTES >> 20} MiB",
        table(["part", "cpu time", "wall time"], rows_of(found)),
        f"{found['work']}; {found['removed']:,} rows have an earlier near-duplicate; peak {found['peak_bytes'] >> 20} "
        f"MiB. {found['sentence']}",
    )
    if find_spec("faiss") and find_spec("torch"):
        peer = run_peer(tmp_path, rows)
        publish(
            "The same by faiss.Kmeans and, in each cluster, torch.mm, triu and max; no border is looked across",
            table(["part", "cpu time", "wall time"], rows_of(peer)),
            f"{peer['removed']:,} rows have an earlier near-duplicate; peak {peer['peak_bytes'] >> 20} MiB",
        )
        ours, theirs = found["seconds"], peer["seconds"]
        assert theirs["pairwise, inside clusters"][0] >= 8 * ours["pairwise, inside clusters only"][0]
    assert found["peak_bytes"] < 2_000_000_000
    assert found["certificate"]["lower_bound"] >= 0.999, found["sentence"]


@pytest.mark.slow
@pytest.mark.benchmark(group="clustered deduplication")
def test_bench_clustered_ten_million(benchmark: Any, tmp_path: Path) -> None:
    """With fewer rows before, for the exponent of growth: half of sqrt(n) clusters alone would make it 1.5. 12 GB of
    disk."""
    lines, seconds = [], {}
    for rows in (1_000_000, 3_000_000, 10_000_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        write_pool(folder / "x.npy", rows, 256)
        given = {"target": 0.0, "inside": False}
        found = benchmark.pedantic(run, (folder,), given, rounds=1) if rows == 10_000_000 else run(folder, **given)
        shutil.rmtree(folder)
        seconds[rows] = sum(cpu for cpu, _ in found["seconds"].values())
        parts = [f"{cpu:.3g} s" for cpu, _ in found["seconds"].values()]
        lines.append([f"{rows:,}", *parts, f"{seconds[rows]:.3g} s", f"{found['peak_bytes'] >> 20} MiB"])
        assert found["peak_bytes"] < 2_000_000_000
    power = math.log10(seconds[10_000_000] / seconds[1_000_000])
    publish(
        f"Deduplication by clusters, rows x 256 float16, floor {FLOOR}, two threads, cap {CAP_BYTES >> 20} MiB",
        table(["rows", *found["seconds"], "all", "peak"], lines),
        f"From 1 to 10 million rows it grows with the power {power:.2f} of the rows",
    )
    assert power < 1.5


@pytest.mark.gate
@pytest.mark.benchmark(group="pairwise part of a cluster")
@pytest.mark.parametrize("size", [1000, PUBLISHED_CLUSTER_ROWS])
def test_bench_pairwise_part(benchmark: Any, size: int) -> None:
    """One cluster, whose similarities SemDeDup takes as torch.mm, triu and max over float32 rows: the same answer."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)
    x = np.concatenate(list(clip_like_blocks(size, 512, FLOOR)))
    half = x.astype(np.float16)

    def ours() -> NDArray[Any]:
        left = LeftBlock(half, "float16", "cosine", "exact", 1, half[:2048], size)
        return BlockPair(left, None).max_earlier((np.arange(size), None), FLOOR, None)[1]

    def theirs() -> NDArray[Any]:
        rows = torch.from_numpy(x)
        best: NDArray[Any] = torch.triu(torch.mm(rows, rows.T), diagonal=1).max(dim=0).values.numpy()
        return best

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(7):
        for name, call in (("ours", ours), ("theirs", theirs)):
            times[name].append(cpu_seconds(call))
    benchmark.pedantic(ours, rounds=3, warmup_rounds=0)
    a, b = (float(np.median(times[name])) for name in ("ours", "theirs"))
    near = np.abs(theirs() - FLOOR) < 1e-3  # float16 rows, and float32 sums in another order
    np.testing.assert_array_equal((ours() >= FLOOR)[~near], (theirs() >= FLOOR)[~near])
    publish(
        f"Pairwise part of one cluster of {size:,} x 512, one thread",
        table(
            ["who", "cpu time", "times ours"],
            [["pycurate", f"{a:.3g} s", "1"], ["torch.mm, triu, max", f"{b:.3g} s", f"{b / a:.1f}"]],
        ),
    )
    if size == PUBLISHED_CLUSTER_ROWS:
        assert b >= 8 * a


def cpu_seconds(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun
