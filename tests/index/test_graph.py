"""Neighbour graphs: built exactly or approximately, symmetric, on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate import KnnGraph, knn_graph, nearest
from pycurate.errors import InputError, WorkspaceError
from pycurate.reference import rowwise as reference


def rows(n: int = 700, d: int = 16, seed: int = 0, dtype: Any = np.float32) -> Any:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, d))
    return (centres[random.integers(0, 12, n)] + 0.6 * random.normal(size=(n, d))).astype(dtype)


def edges_of(graph: KnnGraph) -> dict[tuple[int, int], float]:
    return {
        (row, int(col)): float(weight)
        for row in range(len(graph))
        for col, weight in zip(*graph.neighbors(row), strict=True)
    }


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exact_graph_is_nearest_in_compressed_rows(metric: Any, dtype: Any) -> None:
    x = rows(dtype=dtype)
    graph, found = knn_graph(x, 6, metric=metric), nearest(x, 6, metric=metric)
    assert graph.indices.reshape(-1, 6).tolist() == found.indices.tolist()
    assert graph.weights.tobytes() == found.similarities.tobytes()
    assert graph.indptr.tolist() == list(range(0, 6 * 700 + 1, 6))
    assert (graph.indptr.dtype, graph.indices.dtype, graph.note) == (np.uint64, np.uint32, "exact")


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_approximate_graphs_are_canonical_and_carry_their_recall(method: Any, metric: Any, dtype: Any) -> None:
    x = (rows(2000) * (20 if dtype == np.int8 else 1)).astype(dtype)
    graph = knn_graph(x, 5, method=method, metric=metric, nprobe=10, sample=300)
    source = np.repeat(np.arange(2000), np.diff(graph.indptr).astype(np.int64))
    values = x if dtype != np.float16 else x.astype(np.float32)
    scores = reference.pair_similarity(values[source], values[graph.indices], metric)
    assert graph.weights.tobytes() == scores.tobytes()
    assert (source != graph.indices).all()
    order = np.lexsort((graph.indices, -graph.weights, source))
    assert order.tolist() == list(range(graph.edges))
    assert graph.certificate is not None
    assert graph.certificate.rows == 300
    assert graph.certificate.recall > (0.5 if metric == "inner_product" else 0.9)
    assert "recall@5" in graph.note
    truth = edges_of(knn_graph(x, 5, metric=metric))
    found = edges_of(graph)
    assert len(truth.keys() & found.keys()) > (0.5 if metric == "inner_product" else 0.9) * len(truth)


def test_ivf_with_every_group_is_exact_and_any_seed_agrees() -> None:
    x = rows(500)
    exact = edges_of(knn_graph(x, 4))
    for seed in (0, 1):
        graph = knn_graph(x, 4, method="ivf", nlist=9, nprobe=9, seed=seed)
        assert edges_of(graph) == exact
        assert graph.certificate is not None
        assert graph.certificate.missed == 0


def test_ivf_looks_into_more_groups_where_few_rows_are_near() -> None:
    x = rows(60)
    graph = knn_graph(x, 20, method="ivf", nlist=30, nprobe=1)
    assert np.diff(graph.indptr).tolist() == [20] * 60


def test_rows_that_cannot_be_judged_have_no_edges_and_are_named() -> None:
    x = rows(300)
    x[[5, 6]] = 0
    x[7] = np.nan
    for method in ("exact", "ivf", "hnsw"):
        graph = knn_graph(x, 3, method=method)  # type: ignore[arg-type]
        assert graph.unjudged.tolist() == [5, 6, 7]
        assert np.diff(graph.indptr)[[5, 6, 7]].tolist() == [0, 0, 0]
        assert np.intersect1d(graph.indices, [5, 6, 7]).size == 0


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("method", ["exact", "ivf", "hnsw"])
def test_few_rows_have_few_neighbours(n: int, method: Any) -> None:
    graph = knn_graph(rows(n), 5, method=method)
    assert len(graph) == n
    assert graph.edges == n * max(n - 1, 0)
    assert graph.symmetrize().edges == graph.edges


@pytest.mark.parametrize("keep", ["union", "mutual"])
@pytest.mark.parametrize("edges_in_memory", [1, 37, 1 << 24])
def test_symmetric_graph_has_both_directions(tmp_path: Path, keep: Any, edges_in_memory: int) -> None:
    graph = knn_graph(rows(150), 4, weights="float16")
    edges = edges_of(graph)
    back = {(col, row): weight for (row, col), weight in edges.items()}
    expected = {**edges, **back} if keep == "union" else {edge: edges[edge] for edge in edges.keys() & back.keys()}
    for out in (None, tmp_path / "graph"):
        made = graph.symmetrize(out, keep=keep, edges_in_memory=edges_in_memory)
        assert edges_of(made) == expected
        assert made.order == "row"
        assert all((np.diff(made.neighbors(row)[0].astype(np.int64)) > 0).all() for row in range(150))
    assert sorted(path.suffix for path in (tmp_path / "graph").iterdir()) == [".json"] * 2 + [".npy"] * 4


@pytest.mark.parametrize("edges_in_memory", [1, 37, 1 << 24])
def test_the_sum_of_both_directions(tmp_path: Path, edges_in_memory: int) -> None:
    graph = knn_graph(rows(150), 4)
    edges = edges_of(graph)
    expected: dict[tuple[int, int], np.float32] = {}
    for (row, col), weight in edges.items():
        for edge in ((row, col), (col, row)):
            expected[edge] = expected.get(edge, np.float32(0)) + np.float32(weight)
    for out in (None, tmp_path / "graph"):
        assert edges_of(graph.symmetrize(out, keep="sum", edges_in_memory=edges_in_memory)) == expected


def test_a_hub_with_more_edges_than_fit_at_once_is_one_range() -> None:
    x = np.zeros((200, 3), np.float32)
    x[:, 0], x[1:, 1] = 1, np.linspace(-0.5, 0.5, 199)
    graph = knn_graph(x, 3)
    assert edges_of(graph.symmetrize(edges_in_memory=2)) == edges_of(graph.symmetrize())


def test_a_saved_graph_is_mapped_and_the_same(tmp_path: Path) -> None:
    x = rows(300)
    made = knn_graph(x, 4, method="ivf", nprobe=3, out=tmp_path / "graph")
    opened = KnnGraph.open(tmp_path / "graph")
    assert isinstance(opened.indices, np.memmap)
    assert edges_of(opened) == edges_of(made) == edges_of(knn_graph(x, 4, method="ivf", nprobe=3))
    assert opened.certificate == made.certificate
    assert (opened.metric, opened.method, opened.order) == ("cosine", "ivf", "similarity")
    small = knn_graph(x, 2, weights="float16", out=tmp_path / "graph")  # in the place of the first
    assert small.weights.dtype == np.float16
    assert len(list((tmp_path / "graph").glob("weights.*"))) == 1


def test_float16_weights_are_the_rounded_similarities() -> None:
    x = rows(100)
    assert (knn_graph(x, 3, weights="float16").weights == knn_graph(x, 3).weights.astype(np.float16)).all()
    with pytest.raises(InputError, match="does not fit float16; use weights='float32'"):
        knn_graph(x * 1000, 3, metric="inner_product", weights="float16")


def test_a_damaged_folder_says_which_file(tmp_path: Path) -> None:
    knn_graph(rows(50), 3, out=tmp_path)
    [weights] = tmp_path.glob("weights.*.npy")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    with pytest.raises(WorkspaceError, match=r"weights\..*should have 856 bytes, it has 852; copy the folder again or"):
        KnnGraph.open(tmp_path)
    weights.unlink()
    with pytest.raises(WorkspaceError, match="it is missing"):
        KnnGraph.open(tmp_path)
    (tmp_path / "graph.json").write_text('{"format": 1')
    with pytest.raises(WorkspaceError, match=r"graph\.json cannot be read"):
        KnnGraph.open(tmp_path)
    (tmp_path / "graph.json").write_text(json.dumps({"format": 99, "files": {}}))
    with pytest.raises(WorkspaceError, match="has format 99, expected 1"):
        KnnGraph.open(tmp_path)
    with pytest.raises(InputError, match=r"has no graph\.json; expected one that has"):
        KnnGraph.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": 0}, "k: expected a whole number of at least 1, got 0"),
        ({"method": "annoy"}, "method: expected one of exact, ivf, hnsw, got 'annoy'"),
        ({"metric": "angle"}, "metric: expected one of cosine, inner_product, l2, got 'angle'"),
        ({"weights": "int8"}, "weights: expected 'float32' or 'float16', got 'int8'"),
        ({"nprobe": 0, "method": "ivf"}, "nprobe: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_say_what_was_expected(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        knn_graph(rows(20), **{"k": 3, **change})


def test_a_graph_that_does_not_hold_together_is_refused() -> None:
    graph = knn_graph(rows(20), 3)
    with pytest.raises(InputError, match="indptr: expected"):
        KnnGraph(graph.indptr[:-1], graph.indices, graph.weights)
    with pytest.raises(InputError, match="indices, weights: expected uint32 or uint64"):
        KnnGraph(graph.indptr, graph.indices.astype(np.int32), graph.weights)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="row: expected 0 to 19, got 20"):
        graph.neighbors(20)
    with pytest.raises(InputError, match="keep: expected 'union', 'mutual' or 'sum', got 'max'"):
        graph.symmetrize(keep="max")  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", ["union", "mutual"])
def test_wide_row_numbers_are_put_in_the_same_order(keep: Any) -> None:
    narrow = knn_graph(np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32), 4)
    wide = KnnGraph(narrow.indptr, narrow.indices.astype(np.uint64), narrow.weights)
    expected, found = narrow.symmetrize(keep=keep), wide.symmetrize(keep=keep)
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.weights, expected.weights)
