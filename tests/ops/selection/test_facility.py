from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import knn_graph
from pycurate.kernels.fused_similarity import nearest
from pycurate.ops.selection import facility, graph_candidates
from pycurate.ops.selection.facility import facility_location
from pycurate.reference import selection as reference


def rows(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def naive(graph: KnnGraph, k: int, weights: Any = None, **options: Any) -> tuple[list[int], list[float], Any, Any]:
    n = len(graph)
    similarities = np.maximum(graph.weights.astype(np.float32), 0)
    columns = reference.sparse_columns(n, graph.indptr, graph.indices, similarities, np.ones(n, np.float32))
    return reference.naive_greedy(n, columns, k, weights, **options)


@pytest.fixture
def graph() -> KnnGraph:
    return knn_graph(rows(300), 8).symmetrize()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": np.linspace(0, 2, 300)},
        {"selected": np.array([9, 5])},
        {"candidates": np.arange(0, 300, 3)},
        {"candidates": np.arange(300) % 2 == 0, "selected": np.array([1, 2]), "weights": np.arange(300) % 4},
    ],
)
def test_it_is_the_naive_greedy_algorithm(graph: KnnGraph, options: dict[str, Any], threads: int) -> None:
    found = facility_location(graph, 40, negative="zero", threads=threads, **options)
    plain = dict(options)
    if plain.get("candidates") is not None:
        mask = np.zeros(300, np.bool_)
        mask[plain["candidates"]] = True
        plain["candidates"] = np.flatnonzero(mask)
    if "weights" in plain:
        plain["weights"] = plain["weights"].astype(np.float64)
    picks, gains, covered, representative = naive(graph, 40, **plain)
    assert found.rows.tolist() == picks
    assert found.gains.tolist() == gains
    np.testing.assert_array_equal(found.similarities, covered)
    np.testing.assert_array_equal(found.representative, representative)
    weights = plain.get("weights", np.ones(300))
    assert found.objective == pytest.approx(float((weights * covered.astype(np.float64)).sum()), rel=1e-12)
    assert found.sizes.tolist() == [int((representative == row).sum()) for row in picks]
    assert found.proposed == len(set(plain.get("candidates", range(300))) - set(plain.get("selected", ())))


@pytest.mark.parametrize("edges", [1, 37, 10_000])
def test_blocks_do_not_matter(graph: KnnGraph, edges: int, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = np.arange(300) % 7
    whole = [facility_location(graph, 30, negative="zero", partition=p, bound_steps=3) for p in (None, partition)]
    monkeypatch.setattr(graph_candidates, "EDGES_AT_ONCE", edges)
    for expected, parts in zip(whole, (None, partition), strict=True):
        found = facility_location(graph, 30, negative="zero", partition=parts, bound_steps=3)
        assert found.rows.tolist() == expected.rows.tolist()
        assert (found.objective, found.upper_bound) == (expected.objective, expected.upper_bound)


def test_a_directed_graph_in_half_precision_on_disk(tmp_path: Path) -> None:
    made = knn_graph(rows(120), 5, weights="float16", out=tmp_path / "graph")
    assert made.order == "similarity"
    found = facility_location(made, 20, negative="zero")
    assert found.rows.tolist() == naive(made, 20)[0]


def test_rows_become_their_exact_graph() -> None:
    x = np.abs(rows(200))
    found = facility_location(x, 15, neighbors=6)
    assert found.rows.tolist() == facility_location(knn_graph(x, 6).symmetrize(), 15).rows.tolist()


@pytest.mark.usefixtures("isa")
def test_a_matrix_leaves_nothing_out() -> None:
    x = np.abs(rows(90, 5))
    similarities = np.ascontiguousarray((x @ x.T).astype(np.float32))
    weights = np.linspace(0.5, 1, 90)
    found = facility_location(similarities, 12, metric="precomputed", weights=weights, selected=np.array([3]))
    columns = [(np.arange(90), row) for row in similarities]
    picks, gains, _, representative = reference.naive_greedy(90, columns, 12, weights, dense=True, selected=[3])
    assert (found.rows.tolist(), found.gains.tolist()) == (picks, gains)
    assert found.representative.tolist() == representative.tolist()


def test_the_bound_holds_for_every_choice_and_tightens_with_steps() -> None:
    for seed in range(5):
        x = np.abs(rows(11, 3, seed))
        similarities = np.ascontiguousarray((x @ x.T).astype(np.float32))
        weights = np.random.default_rng(seed).random(11)
        best = max(
            float((weights * similarities[list(chosen)].max(axis=0).astype(np.float64)).sum())
            for chosen in itertools.combinations(range(11), 3)
        )
        bounds = []
        for steps in (0, 1, 5, 100):
            found = facility_location(similarities, 3, metric="precomputed", weights=weights, bound_steps=steps)
            assert found.objective <= best * (1 + 1e-12)
            assert best <= found.upper_bound * (1 + 1e-12)
            assert found.objective >= (1 - 1 / np.e) * best
            bounds.append(found.upper_bound)
        assert bounds == sorted(bounds, reverse=True)
        assert bounds[-1] <= 1.05 * best


def test_the_reference_bound_is_the_one_of_a_single_step(graph: KnnGraph) -> None:
    found = facility_location(graph, 25, negative="zero", bound_steps=1)
    columns = reference.sparse_columns(
        300, graph.indptr, graph.indices, np.maximum(graph.weights, 0), np.ones(300, np.float32)
    )
    gains = np.array([reference.sparse_gain(reference.gain_terms(s, found.similarities[r], None)) for r, s in columns])
    online = reference.upper_bound(found.objective, gains, 25)
    assert found.upper_bound == min(online, found.objective / (1 - (1 - 1 / 25) ** 25))
    assert online < found.objective / (1 - 1 / np.e)


def test_parts_propose_and_the_certificate_covers_all_candidates(graph: KnnGraph) -> None:
    whole = facility_location(graph, 40, negative="zero", bound_steps=50)
    partition = np.arange(300) // 60
    ratios = []
    for oversample in (1.0, 2.0, float("inf")):
        found = facility_location(graph, 40, negative="zero", partition=partition, oversample=oversample)
        shares = [facility.k_share(40, 60, 300, oversample)] * 5
        assert found.proposed == sum(shares)
        assert len(set(found.rows.tolist())) == 40
        assert found.upper_bound >= whole.objective
        ratios.append(found.objective / whole.objective)
    assert ratios[0] > 0.8  # rows of the parts have nothing in common
    assert ratios == sorted(ratios)


def test_one_part_of_everything_is_no_partition(graph: KnnGraph) -> None:
    whole = facility_location(graph, 40, negative="zero", selected=np.array([7, 3]))
    parts = facility_location(graph, 40, negative="zero", partition=np.zeros(300, int), selected=np.array([7, 3]))
    assert parts.rows.tolist() == whole.rows.tolist()
    assert parts.objective == whole.objective


def test_numbers_of_the_parts_do_not_matter(graph: KnnGraph) -> None:
    partition = np.arange(300) % 6
    found = facility_location(graph, 20, negative="zero", partition=partition)
    renamed = facility_location(graph, 20, negative="zero", partition=np.array([9, -1, 400, 3, 7, 0])[partition])
    assert renamed.rows.tolist() == found.rows.tolist()


def test_unjudged_rows_are_neither_chosen_nor_counted() -> None:
    x = np.abs(rows(40))
    x[[3, 17]] = 0
    x[5, 0] = np.nan
    found = facility_location(x, 37, neighbors=4)
    assert found.unjudged.tolist() == [3, 5, 17]
    assert not {3, 5, 17} & set(found.rows.tolist())
    assert found.objective == 37  # every other row represents itself
    assert found.representative[[3, 5, 17]].tolist() == [-1, -1, -1]
    assert found.ratio == 1
    with pytest.raises(InputError, match="k: expected at most the 37 candidates that are left of 40 rows, got 38"):
        facility_location(x, 38, neighbors=4)


def test_copies_are_chosen_once_and_then_last() -> None:
    x = np.abs(rows(30))
    x[10:20] = x[10]
    found = facility_location(x, 30, neighbors=29)
    assert found.rows[:21].tolist().count(10) == 1
    assert sorted(found.rows[21:].tolist()) == list(range(11, 20))
    assert found.gains[21:].tolist() == [0] * 9


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": 0}, "k: expected a whole number of at least 1, got 0"),
        ({"k": 41}, "k: expected at most the 40 candidates that are left of 40 rows, got 41; lower k"),
        ({"candidates": [1, 2]}, "k: expected at most the 2 candidates"),
        ({"candidates": [40]}, "candidates: expected rows from 0 to 39, got 40"),
        ({"candidates": np.ones(3, bool)}, r"candidates: expected a mask of shape \(40,\), got \(3,\)"),
        ({"candidates": [0.5]}, "candidates: expected row numbers or a mask of bool, got 1-D float64"),
        ({"selected": [2, 2]}, "selected: expected every row once, but 1 are repeated"),
        ({"weights": np.ones(3)}, r"weights: expected shape \(40,\), one for each row, got \(3,\)"),
        ({"weights": -np.ones(40)}, "weights: expected finite numbers of at least 0, got -1.0 for row 0"),
        ({"weights": np.full(40, np.nan)}, "weights: expected finite numbers of at least 0, got nan for row 0"),
        ({"self_similarity": -1.0}, "self_similarity: expected finite numbers of at least 0"),
        ({"self_similarity": np.ones(3)}, r"self_similarity: expected a number or shape \(40,\), got \(3,\)"),
        ({"partition": np.zeros(3, int)}, "partition: expected a whole number for each of the 40 rows"),
        ({"partition": np.zeros(40)}, "partition: expected a whole number for each of the 40 rows"),
        ({"oversample": 0}, "oversample: expected a number above 0, got 0"),
        (
            {"k": 20, "partition": np.arange(40) // 2, "oversample": 0.1, "candidates": np.arange(0, 40, 2)[:20]},
            None,
        ),
        ({"bound_steps": -1}, "bound_steps: expected a whole number of at least 0"),
        ({"metric": "l2"}, "metric: expected 'cosine', 'inner_product' or 'precomputed', got 'l2'"),
        ({"negative": "clip"}, "negative: expected 'error' or 'zero', got 'clip'"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], sentence: str | None) -> None:
    graph = knn_graph(np.abs(rows(40)), 4).symmetrize()
    arguments: dict[str, Any] = {"k": 5, **change}
    if sentence is None:
        assert len(facility_location(graph, **arguments).rows) == 20
        return
    with pytest.raises(ValueError, match=sentence):
        facility_location(graph, **arguments)


def test_too_few_proposals_say_what_to_raise() -> None:
    graph = knn_graph(np.abs(rows(40)), 4).symmetrize()
    with pytest.raises(InputError, match="oversample: expected so much that the parts propose at least k = 20 rows"):
        facility_location(graph, 20, partition=np.zeros(40, int), oversample=0.5)


def test_graphs_that_cannot_be_added_up_are_refused() -> None:
    good = knn_graph(np.abs(rows(20)), 3)
    weights = good.weights.copy()
    weights[7] = -0.5
    negative = KnnGraph(good.indptr, good.indices, weights)
    with pytest.raises(InputError, match=r"graph: expected weights of at least 0, got -0\.5: facility location adds"):
        facility_location(negative, 3)
    assert len(facility_location(negative, 3, negative="zero").rows) == 3
    weights[7] = np.nan
    with pytest.raises(InputError, match="graph: expected finite weights, got nan"):
        facility_location(KnnGraph(good.indptr, good.indices, weights), 3, negative="zero")
    beyond = good.indices.copy()
    beyond[0] = 20
    with pytest.raises(InputError, match="graph: expected indices below its 20 rows, got 20"):
        facility_location(KnnGraph(good.indptr, beyond, good.weights), 3)
    with pytest.raises(
        InputError, match="self_similarity: expected a number or one for each row, as the graph's metric"
    ):
        facility_location(knn_graph(np.abs(rows(20)), 3, metric="inner_product"), 3)
    with pytest.raises(InputError, match=r"graph_or_rows: expected a matrix \(candidates, rows\) of float32"):
        facility_location(np.ones((3, 3)), 2, metric="precomputed")
    with pytest.raises(InputError, match="partition: expected None with metric='precomputed'"):
        facility_location(np.ones((3, 3), np.float32), 2, metric="precomputed", partition=np.zeros(3, int))


def test_real_captions_need_few_of_the_gains(shared_data: Path) -> None:
    x = np.load(shared_data / "laion_sample_10k" / "minilm_emb_fp16.npy")
    found = facility_location(x, 1000, negative="zero", bound_steps=30)
    assert found.evaluations < 0.01 * 1000 * len(x)
    assert found.ratio > 0.93
    drawn = np.random.default_rng(0).permutation(len(x))[:1000]
    graph = knn_graph(x, 16).symmetrize()
    random = facility_location(graph, 1, selected=drawn, negative="zero")
    assert found.objective > 1.1 * random.objective


def test_photographs_that_represent_all_tell_more_of_their_classes_than_drawn_ones(shared_data: Path) -> None:
    x = np.load(shared_data / "ucm_captions" / "feat_mobilenet1024_fp16.npy").astype(np.float32)
    classes = np.arange(len(x)) // 100

    def accuracy(rows: np.ndarray) -> float:
        """Of every row's class, given that of the most similar of these rows."""
        return float((classes[rows][nearest(x, 1, x[rows]).indices[:, 0]] == classes).mean())

    found = facility_location(x, 42, negative="zero").rows
    drawn = [np.random.default_rng(seed).permutation(len(x))[:42] for seed in range(10)]
    assert accuracy(found) > 0.7
    assert accuracy(found) > max(map(accuracy, drawn)) + 0.05
    assert len(set(classes[found].tolist())) >= 20
