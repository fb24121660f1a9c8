"""What is built and found with a device: the bits of the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index import build_index, recall_certificate
from pycurate.index.graph_build import Method, knn_graph
from pycurate.index.kinds import Kind
from pycurate.index.kmeans import assign, kmeans
from pycurate.index.kmeans_start import KMeansMetric, Start


def rows(n: int = 300, d: int = 16) -> NDArray[np.float32]:
    random = np.random.default_rng(3)
    x = (
        random.normal(size=(n, d)).astype(np.float32)
        + 2 * random.normal(size=(6, d)).astype(np.float32)[np.arange(n) % 6]
    )
    x[11] = x[5]
    x[7] = 0
    x[8, 1] = np.nan
    return x


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("init", ["random", "k-means++", "k-means||"])
def test_centroids_and_clusters(gpu_calls: list[str], metric: KMeansMetric, init: Start) -> None:
    x = rows()
    there, here = (kmeans(x, 9, metric=metric, init=init, iterations=6, device=device) for device in ("cuda", "cpu"))
    assert there.centroids.tobytes() == here.centroids.tobytes()
    assert there.inertia.tolist() == here.inertia.tolist()
    assert gpu_calls.count("top_k") >= len(there.inertia) + (init == "k-means||")
    asked = len(gpu_calls)
    found, right = (assign(x, here.centroids, metric, device=device) for device in ("cuda", "cpu"))
    assert len(gpu_calls) == asked + 1
    assert found.clusters.tolist() == right.clusters.tolist()
    assert found.similarities.tobytes() == right.similarities.tobytes()


@pytest.mark.parametrize("method", ["exact", "ivf", "hnsw"])
def test_a_graph_and_its_certificate(gpu_calls: list[str], method: Method) -> None:
    if method == "hnsw":
        pytest.importorskip("faiss")
    x, options = rows(), {"method": method, "nprobe": 3, "threads": 1}
    there, here = (knn_graph(x, 6, device=device, **options) for device in ("cuda", None))  # type: ignore[arg-type]
    assert gpu_calls
    assert there.indices.tobytes() == here.indices.tobytes()
    assert there.weights.tobytes() == here.weights.tobytes()
    assert there.certificate == here.certificate


def test_more_neighbours_than_a_gpu_looks_for(gpu_calls: list[str]) -> None:
    x = rows(200)
    assert knn_graph(x, 129, device="cuda").indices.tobytes() == knn_graph(x, 129).indices.tobytes()
    assert not gpu_calls
    knn_graph(x, 128, device="cuda")
    assert gpu_calls == ["top_k"]


@pytest.mark.parametrize(
    ("kind", "options"), [("flat", {}), ("flat", {"prefix": 8}), ("ivf_flat", {"nlist": 6}), ("hnsw", {})]
)
def test_an_index_and_what_it_finds(gpu_calls: list[str], tmp_path: Path, kind: Kind, options: dict[str, Any]) -> None:
    if kind != "flat":
        pytest.importorskip("faiss")
    x = rows()
    made = [build_index(x, tmp_path / at, kind=kind, threads=1, device=at, **options) for at in ("cuda", "cpu")]
    files = [{name: entry["bytes"] for name, entry in index.manifest["files"].items()} for index in made]
    assert files[0] == files[1]
    assert made[0].manifest.get("certificate") == made[1].manifest.get("certificate")
    assert bool(gpu_calls) == (kind != "flat" or "prefix" in options)
    gpu_calls.clear()
    found, right = (index.search(x[:40], 5, device=at) for index, at in zip(made, ("cuda", None), strict=True))
    assert found.indices.tobytes() == right.indices.tobytes()
    assert found.similarities.tobytes() == right.similarities.tobytes()
    assert found.note == right.note
    assert bool(gpu_calls) == (kind == "flat")  # of others FAISS proposes rows


def test_recall_is_measured_alike(gpu_calls: list[str]) -> None:
    x = rows()
    found = np.arange(300)[:, None] ^ 1
    there, here = (recall_certificate(found, x, k=1, sample=60, device=device) for device in ("cuda", "cpu"))
    assert there == here
    assert gpu_calls == ["top_k"]


def test_a_missing_gpu_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycurate.kernels import device as devices

    monkeypatch.setattr(devices, "cuda_support", lambda: devices.CudaSupport(False, 0, ()))
    with pytest.raises(InputError, match="device: a GPU was asked for, but this installation was built without"):
        build_index(rows(), tmp_path / "i", device="cuda")
    assert not (tmp_path / "i").exists()
    index = build_index(rows(), tmp_path / "i")
    with pytest.raises(InputError, match="device: a GPU was asked for"):
        index.search(rows()[:2], 3, device="cuda")
    with pytest.raises(InputError, match="device: a GPU was asked for"):
        knn_graph(rows(), 300, device="cuda")
    with pytest.raises(InputError, match=r"device: expected 'cpu', 'cuda', .* got 'gpu'"):
        kmeans(rows(), 3, device="gpu")
