"""k-means: a plain rendition of Lloyd's loop gives the same bits, whatever computes it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate import assign, kmeans
from pycurate.errors import InputError
from pycurate.index.sampling import drawn_rows, sample_rows, seeded_keys, uniforms
from pycurate.kernels import Isa
from pycurate.reference import rowwise as reference


def clustered(n: int, d: int, clusters: int, seed: int = 0, spread: float = 0.5) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, d))
    return (centres[random.integers(0, clusters, n)] + spread * random.normal(size=(n, d))).astype(np.float32)


def nearest_centroids(points: NDArray[np.float32], centroids: NDArray[np.float32], metric: Any) -> Any:
    similarities = np.stack(
        [reference.pair_similarity(points, np.broadcast_to(c, points.shape), metric) for c in centroids], axis=1
    )
    return similarities.argmax(axis=1), similarities.max(axis=1)


def lloyd(points: NDArray[np.float32], centroids: NDArray[np.float32], metric: Any, updates: int) -> Any:
    """One row at a time, in float64, blocks of 4,096 rows added in order."""

    def scaled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return (rows / reference.norms(rows).astype(np.float64)[:, None]).astype(np.float32)

    centroids = scaled(centroids) if metric == "cosine" else centroids
    norms = reference.norms(points).astype(np.float64)
    for _ in range(updates):
        clusters = nearest_centroids(points, centroids, metric)[0]
        total = np.zeros(centroids.shape)
        for start in range(0, len(points), 4096):
            block = np.zeros(centroids.shape)
            for row in range(start, min(len(points), start + 4096)):
                value = points[row].astype(np.float64)
                block[clusters[row]] += value / norms[row] if metric == "cosine" else value
            total += block
        means = (total / np.bincount(clusters, minlength=len(centroids))[:, None]).astype(np.float32)
        centroids = scaled(means) if metric == "cosine" else means
    return centroids


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_centroids_are_those_of_the_plain_loop(isa: Isa, metric: Any, dtype: Any) -> None:
    x = clustered(5000, 19, 12).astype(dtype)  # more than one block of 4,096 rows
    made = kmeans(x, 7, metric=metric, iterations=3, tolerance=0, sample=len(x), seed=5)
    start = x[drawn_rows(len(x), len(x), 5)[:7]].astype(np.float32)
    expected = lloyd(x.astype(np.float32), start, metric, updates=3)
    assert made.centroids.tobytes() == expected.tobytes()
    clusters, similarities = nearest_centroids(x.astype(np.float32), expected, metric)
    assert made.sizes.tolist() == np.bincount(clusters, minlength=7).tolist()
    distances = 1 - similarities.astype(np.float64) if metric == "cosine" else -similarities.astype(np.float64)
    assert made.inertia[-1] == math.fsum(distances) / len(x)
    assert not made.converged
    assert len(made.inertia) == 4


def test_the_same_bits_for_any_number_of_threads() -> None:
    x = clustered(3000, 33, 9)
    first = kmeans(x, 9, iterations=6, threads=1)
    plain, similarities = nearest_centroids(x, first.centroids, "cosine")
    for threads in (1, 2, 3):
        assert kmeans(x, 9, iterations=6, threads=threads).centroids.tobytes() == first.centroids.tobytes()
        found = assign(x, first.centroids, threads=threads)
        assert found.clusters.tolist() == plain.tolist()
        assert found.similarities.tobytes() == similarities.tobytes()


@pytest.mark.parametrize("init", ["random", "k-means++", "k-means||"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_it_converges_and_never_gets_worse(init: Any, metric: Any) -> None:
    made = kmeans(clustered(2000, 16, 8, spread=0.1), 8, metric=metric, init=init, iterations=50, tolerance=0)
    assert made.converged
    assert (np.diff(made.inertia) <= 0).all()
    assert made.sizes.sum() == 2000


def test_k_means_plus_plus_finds_clusters_far_apart() -> None:
    x = clustered(4000, 8, 10, seed=3, spread=0.01)
    apart = kmeans(x, 10, metric="l2", init="k-means++", iterations=5)
    assert apart.inertia[-1] < 0.01  # 8 coordinates of variance 0.0001; a missed cluster would add more than 0.1


def distances_to(points: NDArray[np.float32], row: int, metric: Any) -> NDArray[np.float64]:
    near = reference.pair_similarity(np.broadcast_to(points[row], points.shape), points, metric).astype(np.float64)
    return 1 - near if metric == "cosine" else -near


def scalable_start(points: NDArray[np.float32], k: int, metric: Any, first: int, seed: int) -> list[int]:
    """Bahmani et al. (2012), algorithm 2, one row at a time: l = 2 k, five rounds, then k-means++ of weighted rows."""
    chosen = [first]
    distances = distances_to(points, first, metric)
    for number in range(5):
        cost = math.fsum(distances)
        draws = uniforms(np.arange(len(points), dtype=np.uint64), seed, 5 + (number << 32))
        new = [row for row in range(len(points)) if draws[row] * cost < 2 * k * distances[row]]
        for row in new:
            distances = np.minimum(distances, distances_to(points, row, metric))
        chosen += new
    to_all = np.stack([distances_to(points, row, metric) for row in chosen])
    weights = np.bincount(to_all.argmin(axis=0), minlength=len(chosen)).astype(float)
    draws = uniforms(np.arange(k, dtype=np.uint64), seed, 6)

    def drawn(masses: NDArray[np.float64], draw: float) -> int:
        total = 0.0
        for place, mass in enumerate(masses):
            total += mass
            if total > draw * np.cumsum(masses)[-1]:
                return place
        raise AssertionError

    places = [drawn(weights, draws[0])]
    for number in range(1, k):
        near = np.min([distances_to(points[chosen], place, metric) for place in places], axis=0)
        places.append(drawn(weights * near, draws[number]))
    return [chosen[place] for place in places]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("k", "seed"), [(1, 0), (6, 5), (9, 1234)])
def test_k_means_parallel_begins_as_the_plain_rendition(isa: Isa, metric: Any, dtype: Any, k: int, seed: int) -> None:
    x = clustered(700, 19, 12, seed).astype(dtype)
    x[300:320] = x[7]  # copies of a drawn row are at distance 0 and never drawn beside it
    made = [
        kmeans(x, k, metric=metric, init="k-means||", iterations=0, sample=len(x), seed=seed, threads=threads)
        for threads in (1, 2)
    ]
    points = x.astype(np.float32)
    first = int(drawn_rows(len(x), len(x), seed)[0])
    start = points[scalable_start(points, k, metric, first, seed)]
    if metric == "cosine":
        start = (start / reference.norms(start).astype(np.float64)[:, None]).astype(np.float32)
    assert [m.centroids.tobytes() for m in made] == [start.tobytes()] * 2


def test_k_means_parallel_finds_clusters_that_drawn_rows_miss() -> None:
    x = clustered(4000, 8, 40, seed=3, spread=0.01)
    found = {init: kmeans(x, 40, metric="l2", init=init, iterations=20, seed=2) for init in ("random", "k-means||")}
    assert found["k-means||"].inertia[-1] < 0.01 < found["random"].inertia[-1]


def test_k_means_parallel_of_few_distinct_rows_takes_others_too() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    made = kmeans(x, 5, init="k-means||", iterations=3)
    assert np.count_nonzero(made.sizes) == 3
    assert made.inertia[-1] == 0
    same = kmeans(np.ones((8, 4), np.float32), 3, init="k-means||", iterations=2)
    assert same.inertia[-1] == 0


def test_k_means_parallel_refuses_distances_beyond_float32() -> None:
    x = np.array([[1e19, 0], [-1e19, 0], [1e19, 1]], np.float32)
    with pytest.raises(InputError, match="beyond float32; scale the rows down"):
        kmeans(x, 2, metric="l2", init="k-means||")


def test_a_sample_is_stated_and_follows_from_the_seed() -> None:
    x = clustered(5000, 8, 4)
    made = kmeans(x, 4, sample=100, seed=1)
    assert made.sample_rows.tolist() == sample_rows(5000, 100, 1).tolist()
    assert kmeans(x[made.sample_rows], 4, seed=1).sizes.sum() == 100
    assert len(kmeans(x, 4, seed=1).sample_rows) == 4 * 256
    assert kmeans(x, 4, sample=100, seed=2).sample_rows.tolist() != made.sample_rows.tolist()


def test_rows_that_cannot_be_judged_are_named_and_in_no_cluster() -> None:
    x = clustered(500, 12, 3)
    x[[3, 77]] = 0
    x[9, 2], x[11, 0] = np.nan, np.inf
    made = kmeans(x, 3)
    assert made.unjudged.tolist() == [3, 9, 11, 77]
    assert np.intersect1d(made.sample_rows, made.unjudged).size == 0
    found = assign(x, made.centroids)
    assert found.unjudged.tolist() == [3, 9, 11, 77]
    assert found.clusters[[3, 9, 11, 77]].tolist() == [-1] * 4
    assert np.isnan(found.similarities[found.unjudged]).all()
    assert kmeans(x, 3, metric="l2").unjudged.tolist() == [9, 11]  # a distance from 0 is defined


def test_ties_go_to_the_lower_centroid() -> None:
    centroids = np.eye(4, dtype=np.float32)[[2, 1, 1, 0]]
    x = np.array([[0, 1, 0, 0], [1, 1, 0, 0]], np.float32)
    assert assign(x, centroids).clusters.tolist() == [1, 1]


def test_an_empty_cluster_takes_a_row_of_the_largest() -> None:
    # All rows but two have the same direction, and so have most of the drawn ones.
    x = np.tile(np.array([[1.0, 0.0]], np.float32), (400, 1))
    x[200:] = clustered(200, 2, 1, seed=2, spread=0.3)
    random = [kmeans(x, 24, iterations=12, seed=seed) for seed in (4, 4)]
    assert random[0].reseeded > 0
    assert random[0].centroids.tobytes() == random[1].centroids.tobytes()
    assert random[0].inertia[-1] < random[0].inertia[0]


def test_more_clusters_than_distinct_rows_leaves_clusters_empty() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    made = kmeans(x, 5, iterations=8)
    assert np.count_nonzero(made.sizes) == 3
    assert made.inertia[-1] == 0


def test_blocks_and_memory_maps_are_assigned_as_the_whole(tmp_path: Path) -> None:
    x = clustered(1000, 10, 5).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    made = kmeans(mapped, 5)
    whole = assign(mapped, made.centroids)
    parts = assign((x[i : i + 300] for i in range(0, 1000, 300)), made.centroids)
    assert parts.clusters.tolist() == whole.clusters.tolist()
    assert parts.similarities.tobytes() == whole.similarities.tobytes()
    assert whole.clusters.dtype == np.int32


def test_int8_rows_are_clustered_by_their_exact_values() -> None:
    x = np.clip(clustered(600, 12, 4) * 30, -127, 127).astype(np.int8)
    assert kmeans(x, 4).centroids.tobytes() == kmeans(x.astype(np.float32), 4).centroids.tobytes()


def test_draws_are_permutations_that_grow() -> None:
    assert sorted(drawn_rows(1000, 1000, 3).tolist()) == list(range(1000))
    assert drawn_rows(1000, 50, 3).tolist() == drawn_rows(1000, 60, 3)[:50].tolist()
    assert len(sample_rows(10, 20, 0)) == 10
    assert len(sample_rows(10, 0, 0)) == 0
    # The stream of splitmix64 from the state 0, as published with it.
    assert seeded_keys_of_state(0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def seeded_keys_of_state(state: int, count: int) -> list[int]:
    from pycurate.index.sampling import _GOLDEN, _mixed

    numbers = np.arange(count, dtype=np.uint64)
    return [int(key) for key in _mixed(np.array([state], np.uint64) + numbers * _GOLDEN)]


def test_keys_of_other_seeds_and_streams_differ() -> None:
    numbers = np.arange(100, dtype=np.uint64)
    keys = [seeded_keys(numbers, seed, stream) for seed in (0, 1, -1) for stream in (0, 1)]
    assert len(np.unique(np.concatenate(keys))) == 600


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"k": 0}, "k: expected a whole number of at least 1, got 0"),
        ({"k": 41}, "k: expected at most the 40 rows to train on that can be judged, got 41"),
        ({"k": 2, "metric": "inner_product"}, "metric: expected 'cosine' or 'l2', got 'inner_product'"),
        ({"k": 2, "init": "first"}, "init: expected 'random', 'k-means++' or 'k-means||', got 'first'"),
        ({"k": 2, "tolerance": 1.5}, "tolerance: expected a share of at least 0 and below 1, got 1.5"),
        ({"k": 2, "iterations": -1}, "iterations: expected a whole number of at least 0, got -1"),
        ({"k": 2, "sample": 0}, "sample: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        kmeans(clustered(40, 4, 2), **arguments)
    assert sentence in str(caught.value)


def test_bad_centroids_say_what_was_expected() -> None:
    x = clustered(10, 4, 2)
    with pytest.raises(InputError, match="expected rows of 3 elements as the centroids have, got 4"):
        assign(x, np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match="centroids: row 1 cannot be judged"):
        assign(x, np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32))
    with pytest.raises(InputError, match="expected at least one float32 row"):
        assign(x, np.eye(4, dtype=np.float16))


def test_distances_beyond_float32_are_an_error() -> None:
    x = np.array([[1e19, 0], [-1e19, 0], [1e19, 1]], np.float32)
    with pytest.raises(InputError, match="beyond float32; scale the rows down"):
        kmeans(x, 1, metric="l2")
