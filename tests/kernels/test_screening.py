"""Principal prefixes and cluster order decide speed, never a result: forced here on problems too small to need them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate import _core
from pycurate.kernels import screening
from pycurate.kernels.device import cuda_kernels, cuda_support
from pycurate.testing import CUDA


@pytest.fixture(autouse=True)
def always_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    for costs in ("_CPU", "_CUDA"):
        always = getattr(screening, costs)._replace(least_work=0, seconds=-1e9)
        monkeypatch.setattr(screening, costs, always)


def embeddings(n: int, d: int, dtype: Any = np.float32, seed: int = 0) -> NDArray[Any]:
    """Rows with a decaying spectrum, an offset and clusters, in no order, with near-duplicates of a tenth of them."""
    random = np.random.default_rng(seed)
    spread = np.arange(1, d + 1) ** -0.6
    centres = random.standard_normal((12, d)) * spread
    x = 0.5 * spread + centres[random.integers(0, 12, n)] + 0.7 * random.standard_normal((n, d)) * spread
    x[: n // 10] = x[n // 2 : n // 2 + n // 10] + 0.05 * random.standard_normal((n // 10, d)) * spread
    x *= random.uniform(0.2, 5, (n, 1))
    return random.permutation(x).astype(dtype)


def both(question: Any, *arguments: Any, device: str = "cpu", **options: Any) -> tuple[Any, Any]:
    return question(*arguments, device=device, **options), question(*arguments, precision="float32", **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("n", "d"), [(700, 128), (385, 384), (97, 130), (1300, 515)])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_pairs_are_those_of_every_pair_scored(engine: str, n: int, d: int, dtype: Any, threshold: float) -> None:
    found, expected = both(pycurate.pairs_above, embeddings(n, d, dtype), threshold, device=engine)
    assert len(expected.rows) > 0
    for name in ("rows", "cols", "similarities"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_stages_really_run() -> None:
    x = embeddings(3000, 256)
    pycurate.pairs_above(x, 0.95, threads=1)
    work = _core.fused_similarity.last_work()
    stages = sum(name.startswith("screened_") for name in work)
    assert stages > len(screening._CPU.stages)  # principal prefixes, beginnings and the whole row
    assert work[f"screened_{stages - 1}"] < work["tiles"] / 2


def test_stages_really_run_on_a_gpu() -> None:
    if cuda_support().missing:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    pycurate.pairs_above(embeddings(20_000, 512, np.float16), 0.95, device=CUDA)
    work = cuda_kernels().last_work()
    assert sum(work[name] for name in ("stage_0", "stage_1")) > 0  # of principal coordinates
    assert work["scored_pairs"] < 1e6


@pytest.mark.parametrize(("n", "d"), [(901, 160), (1100, 520)])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_question_of_one_matrix(threads: int, n: int, d: int, engine: str) -> None:
    x = embeddings(n, d)
    order = np.random.default_rng(1).permutation(len(x))
    near, all_near = both(pycurate.nearest, x, 7, threads=threads, device=engine)
    assert np.array_equal(near.indices, all_near.indices)
    assert np.array_equal(near.similarities, all_near.similarities)
    assert np.array_equal(*both(pycurate.components_above, x, 0.93, threads=threads, device=engine))
    assert np.array_equal(*both(pycurate.count_above, x, 0.8, threads=threads, device=engine))
    earlier, all_earlier = both(pycurate.most_similar_earlier, x, order, 0.85, threads=threads, device=engine)
    assert np.array_equal(earlier.indices, all_earlier.indices)
    assert np.array_equal(earlier.similarities, all_earlier.similarities, equal_nan=True)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_two_matrices(metric: Any, engine: str) -> None:
    x, y = embeddings(530, 272, seed=1), embeddings(211, 272, seed=2)
    near, all_near = both(pycurate.nearest, x, 3, y, metric=metric, device=engine)
    assert np.array_equal(near.indices, all_near.indices)
    threshold = float(np.quantile(all_near.similarities[:, 0], 0.3))
    found, expected = both(pycurate.pairs_above, x, threshold, y, metric=metric, device=engine)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.cols, expected.cols)


def test_rows_that_hold_all_their_energy_in_one_direction(engine: str) -> None:
    x = np.repeat(np.linspace(1, 2, 300, dtype=np.float32)[:, None], 256, axis=1)
    x[::2, 0] += 1e-3
    found, expected = both(pycurate.pairs_above, x, 1.0, device=engine)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.cols, expected.cols)


def test_a_flat_spectrum_is_not_worth_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_CPU", screening._CPU._replace(seconds=0.05))
    x = np.random.default_rng(0).standard_normal((4000, 512)).astype(np.float32)
    assert screening.screening_of([(x, "float32", np.arange(len(x)))], 0.9, None, 1) is None


@pytest.mark.parametrize(("m", "n", "d"), [(0, 3, 5), (1, 1, 1), (9, 49, 33), (8, 96, 16), (3, 0, 7), (2, 3, 0)])
@pytest.mark.parametrize("threads", [1, 3])
def test_products_of_samples(isa: None, m: int, n: int, d: int, threads: int) -> None:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((rows, d)).astype(np.float32) for rows in (m, n))
    found = _core.fused_similarity.products(a, b, threads)
    assert found.shape == (m, n)
    np.testing.assert_allclose(found, a.astype(np.float64) @ b.T.astype(np.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("count", "d"), [(0, 4), (1, 1), (5, 5), (16, 100)])
def test_orthonormal_rows_span_what_the_rows_do(count: int, d: int) -> None:
    rows = np.random.default_rng(1).standard_normal((count, d)).astype(np.float32)
    basis = _core.fused_similarity.orthonormalise(rows).astype(np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(count), atol=1e-6)
    np.testing.assert_allclose(rows @ basis.T @ basis, rows, atol=1e-5)


@pytest.mark.parametrize("kind", ["zeros", "equal", "nearly equal", "axes"])
def test_rows_in_the_span_of_others_are_replaced(kind: str) -> None:
    rows = np.zeros((6, 8), np.float32)
    if kind in ("equal", "nearly equal"):
        rows[:] = np.arange(1, 9)
    if kind == "nearly equal":
        rows[3, 0] += np.float32(1e-6)
    if kind == "axes":
        rows[:, :3] = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    basis = _core.fused_similarity.orthonormalise(rows).astype(np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-6)
