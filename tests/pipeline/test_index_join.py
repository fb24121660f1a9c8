"""Near-duplicates among the candidates of an index: canonical, collapsed, and certified like those of clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.clustered import indexed_join
from pycurate.errors import InputError
from pycurate.kernels import fused_similarity as in_memory
from pycurate.kernels.spanning_forest import spanning_forest_above

THRESHOLD = 0.9


def make_rows(n: int = 600, d: int = 16) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    x = random.standard_normal((n, d), dtype=np.float32)
    x[n // 2 :] = x[: n // 2] + 0.1 * random.standard_normal((n // 2, d), dtype=np.float32)
    x[[7, 40, 41, 300]] = x[3]
    x[[5, 90]] = np.nan
    x[17] = 0
    return x


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
@pytest.mark.parametrize("element", ["float32", "float16"])
def test_with_effort_enough_it_is_brute_force(method: Any, element: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    x = make_rows().astype(element)
    found = indexed_join([x[:100], x[100:]], tmp_path, method=method, nprobe=100, ef=600, threads=1)
    order = np.random.default_rng(1).permutation(len(x))
    truth = in_memory.pairs_above(x, THRESHOLD)
    pairs = found.pairs_above(THRESHOLD)
    assert len(truth.rows) > 200
    for name in ("rows", "cols", "similarities", "copy_of", "unjudged"):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(truth, name))
    expected = in_memory.most_similar_earlier(x, order, THRESHOLD)
    best = found.most_similar_earlier(order, THRESHOLD)
    np.testing.assert_array_equal(best.indices, expected.indices)
    np.testing.assert_array_equal(best.similarities, expected.similarities)
    np.testing.assert_array_equal(found.components_above(THRESHOLD), in_memory.components_above(x, THRESHOLD))
    forest, heaviest = found.spanning_forest_above(THRESHOLD), spanning_forest_above(x, THRESHOLD)
    for name in ("rows", "cols", "similarities", "copy_of", "unjudged"):
        np.testing.assert_array_equal(getattr(forest, name), getattr(heaviest, name))
    certificate = found.certificate(THRESHOLD)
    assert (certificate.verdict, certificate.lost, certificate.missed_pairs) == ("holds", 0, 0)
    assert certificate.method == f"{method} index, 32 candidates"
    again = indexed_join([x[:100], x[100:]], tmp_path, method=method, nprobe=100, ef=600, threads=1)
    np.testing.assert_array_equal(again.pairs_above(THRESHOLD).rows, truth.rows)


def test_what_few_probes_lose_is_owned_up_to(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((3000, 12)).astype(np.float32)
    x[1500:] = x[:1500] + 0.3 * random.standard_normal((1500, 12), dtype=np.float32)
    found = indexed_join(x, tmp_path, nprobe=1)
    certificate = found.certificate(THRESHOLD, target=0.99, most_similarities=10**12)
    truth, pairs = in_memory.pairs_above(x, THRESHOLD), found.pairs_above(THRESHOLD)
    assert set(zip(pairs.rows, pairs.cols, strict=True)) < set(zip(truth.rows, truth.cols, strict=True))
    assert certificate.verdict == "fails"
    if certificate.rows == certificate.population:
        assert certificate.missed_pairs == 2 * (len(truth.rows) - len(pairs.rows))
    assert certificate.lost > 0


def test_a_row_keeps_the_nearest_of_more_duplicates_than_candidates(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal(16) + 0.05 * random.standard_normal((200, 16))).astype(np.float32)
    found = indexed_join(x, tmp_path, k=5, nprobe=100)
    assert 400 < len(found.pairs_above(THRESHOLD).rows) <= 1000
    certificate = found.certificate(THRESHOLD)
    assert certificate.lost == 0
    assert certificate.missed_pairs > 0.9 * certificate.pairs


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows(n: int, tmp_path: Path) -> None:
    x = np.ones((n, 3), np.float32) + np.eye(3, dtype=np.float32)[:n]
    found = indexed_join(x, tmp_path)
    np.testing.assert_array_equal(found.pairs_above(0.5).rows, in_memory.pairs_above(x, 0.5).rows)
    np.testing.assert_array_equal(found.components_above(0.5), in_memory.components_above(x, 0.5))
    best = found.most_similar_earlier(np.arange(n), 0.5)
    np.testing.assert_array_equal(best.indices, in_memory.most_similar_earlier(x, np.arange(n), 0.5).indices)


def test_refusals(tmp_path: Path) -> None:
    x = make_rows()
    with pytest.raises(ValueError, match="method: expected 'ivf' or 'hnsw', got 'lsh'"):
        indexed_join(x, tmp_path, method="lsh")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="k: expected a whole number of at least 1, got 0"):
        indexed_join(x, tmp_path, k=0)
    with pytest.raises(InputError, match="max_pairs: expected at most 3 pairs at or above"):
        indexed_join(x, tmp_path).pairs_above(THRESHOLD, max_pairs=3)
