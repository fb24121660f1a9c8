"""Label propagation, one thread, processor time: SciPy's power iterations, scikit-learn's LabelSpreading, 5M rows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from embeddings import clip_like
from numpy.typing import NDArray
from propagation_graphs import some_labels, truth, write_graph

from pycurate import KnnGraph, KnnLabelSpreading, assign, kmeans, knn_graph, propagate_labels
from pycurate.engine.memory import resident_bytes

N, CLASSES = 100_000, 100
WORKER = Path(__file__).parent / "peers" / "propagation_worker.py"


def seconds(function: Any, *arguments: Any) -> tuple[float, Any]:
    started = time.process_time()
    result = function(*arguments)
    return time.process_time() - started, result


@pytest.fixture(scope="module")
def ready() -> tuple[KnnGraph, NDArray[np.int64]]:
    """100,000 nodes of CLIP-like rows, 50 neighbours each, both ways; and 100 classes, k-means clusters."""
    x = clip_like(N, 128)
    model = kmeans(x, CLASSES, seed=0)
    return knn_graph(x, 50).symmetrize(keep="sum"), assign(x, model.centroids).clusters.astype(np.int64)


def few_of(known: NDArray[np.int64]) -> NDArray[np.int64]:
    """One row in a hundred keeps its class, and one of each class."""
    kept = np.random.default_rng(0).random(len(known)) < 0.01
    kept[np.unique(known, return_index=True)[1]] = True
    return np.where(kept, known, -1)


def scipy_power(
    steps: Any, added: NDArray[Any], start: NDArray[Any], alpha: float, tol: float
) -> tuple[NDArray[Any], int]:
    """F = alpha S F + B until the sum of changes is ``tol`` of that of B; S and all else are ready."""
    limit = tol * float(added.sum(dtype=np.float64))
    state, sweeps = start, 0
    while True:
        after = steps @ state
        after *= alpha
        after += added
        sweeps += 1
        state -= after
        change = float(np.abs(state, out=state).sum(dtype=np.float64))
        state = after
        if change <= limit:
            return state, sweeps


@pytest.mark.gate
@pytest.mark.parametrize(("alpha", "rounds"), [(0.9, 3), (0.99, 1)])
def test_gate_power_iterations_of_scipy(ready: tuple[KnnGraph, NDArray[np.int64]], alpha: float, rounds: int) -> None:
    """From the symmetric graph to labels and confidence, against sweeps alone on a matrix that is normalised."""
    graph, known = ready
    labels, tol = few_of(known), 1e-3
    plain = graph.weights, graph.indices.astype(np.int32), graph.indptr.astype(np.int32)
    both = scipy.sparse.csr_array(plain, (N, N))
    scale = scipy.sparse.diags_array((1 / np.sqrt(both.sum(axis=1))).astype(np.float32))
    steps = (scale @ both @ scale).tocsr()
    start = np.zeros((N, CLASSES), np.float32)
    start[np.flatnonzero(labels >= 0), labels[labels >= 0]] = 1
    added = (1 - np.float32(alpha)) * start
    settings: dict[str, Any] = {"symmetrize": False, "alpha": alpha, "tol": tol, "threads": 1, "solver": "cg"}
    ratios = []
    for _ in range(rounds):
        mine, found = seconds(lambda: propagate_labels(graph, labels, **settings))
        peer, (state, sweeps) = seconds(scipy_power, steps, added, start.copy(), alpha, tol)
        ratios.append(peer / mine)
        print(
            f"\nalpha {alpha}: {mine:.2f} s in {found.sweeps} sweeps, SciPy {peer:.2f} s in {sweeps}: "
            f"{peer / mine:.1f} x"
        )
    values = found.mass.astype(np.float64)[:, None] * found.distributions
    residual = np.abs(alpha * (steps @ values) + added - values).sum() / added.sum()
    print(f"residual {residual:.2g}; labels that agree {np.mean(found.labels == state.argmax(axis=1)):.4f}")
    assert residual <= 1.2 * tol  # of values that were clipped at 0 and rounded
    assert np.median(ratios) >= 5


@pytest.mark.gate
@pytest.mark.parametrize("dimension", [128, 512, 768])
def test_gate_label_spreading_end_to_end(dimension: int) -> None:
    """50,000 rows and 100 classes from features to distributions, which are the same."""
    from sklearn.semi_supervised import LabelSpreading
    from threadpoolctl import threadpool_limits

    n = 50_000
    random = np.random.default_rng(0)
    known = random.integers(0, CLASSES, n)
    x = (random.normal(size=(CLASSES, dimension))[known] + 1.5 * random.normal(size=(n, dimension))).astype(np.float32)
    labels = np.where(random.random(n) < 0.02, known, -1)
    settings: dict[str, Any] = {"n_neighbors": 10, "alpha": 0.2, "max_iter": 30, "tol": 1e-3}
    runs = [seconds(KnnLabelSpreading(threads=1, **settings).fit, x, labels) for _ in range(3)]
    mine, ours = sorted(runs, key=lambda run: run[0])[1]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer, theirs = seconds(LabelSpreading(kernel="knn", n_jobs=1, **settings).fit, x, labels)
    apart = np.abs(ours.label_distributions_ - theirs.label_distributions_).max(axis=1)
    print(
        f"\n50,000 x {dimension}: {mine:.2f} s, LabelSpreading {peer:.2f} s: {peer / mine:.1f} x; {ours.n_iter_} sweeps"
    )
    assert (apart > 1e-6).mean() < 1e-3  # two distances that float32 cannot tell apart
    assert peer / mine >= 20


@pytest.mark.gate
def test_gate_five_million_nodes(tmp_path: Path) -> None:
    """k = 16, the 4 largest labels of 100 a row, in a folder with a cap of 1.5 GiB."""
    n, cap = 5_000_000, 1536 << 20
    write_graph(tmp_path / "graph", n, 16)
    np.save(tmp_path / "labels.npy", some_labels(n, 100, 0.01))
    np.save(tmp_path / "truth.npy", truth(n, 100))
    given = {
        "graph": str(tmp_path / "graph"),
        "labels": str(tmp_path / "labels.npy"),
        "truth": str(tmp_path / "truth.npy"),
        "out": str(tmp_path / "out"),
        "memory_bytes": cap,
        "threads": 1,
        "settings": {"top": 4, "sweeps": 10},
    }
    peak = 0
    with subprocess.Popen([sys.executable, WORKER, json.dumps(given)], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(0.05)
        assert process.returncode == 0
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
    print(
        f"\n5M nodes: {report['sweep']:.2f} s a sweep, {report['before_first']:.0f} s before the second; resident "
        f"{report['resident_bytes'] / 2**30:.2f} GiB, {peak / 2**30:.2f} less clean file pages"
    )
    assert report["resident_bytes"] < 3 << 30
    assert peak < cap


@pytest.mark.usefixtures("isa")
@pytest.mark.benchmark(group="propagation by instruction set")
@pytest.mark.parametrize("settings", [{}, {"solver": "cg"}, {"top": 4}], ids=["chebyshev", "cg", "top"])
def test_bench_by_instruction_set(
    benchmark: Any, ready: tuple[KnnGraph, NDArray[np.int64]], settings: dict[str, Any]
) -> None:
    graph, known = ready
    given = {"symmetrize": False, "sweeps": 5, "threads": 1, **settings}
    given.setdefault("solver", "power" if "top" in settings else "chebyshev")
    benchmark.pedantic(propagate_labels, (graph, few_of(known)), given, rounds=3)


@pytest.mark.benchmark(group="propagation on a graph of rows")
@pytest.mark.parametrize("classes", [10, 1000])
def test_bench_classes(benchmark: Any, classes: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(20_000, 64)).astype(np.float32) + 2
    labels = np.where(random.random(len(x)) < 0.1, random.integers(0, classes, len(x)), -1)
    graph = knn_graph(x, 16)
    benchmark.pedantic(propagate_labels, (graph, labels), {"threads": 1, "classes": classes, "sweeps": 10}, rounds=3)
