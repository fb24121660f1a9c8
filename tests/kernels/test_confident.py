from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.kernels import confident as kernels
from pycurate.kernels import device as devices
from pycurate.kernels.device import cuda_support
from pycurate.reference import confident as reference

ROWS = [0, 1, 3, 70]
CLASSES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 100]
DTYPES = ["float16", "float32", "float64"]


def probabilities(n: int, k: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    """Rows that sum to 1, some with equal largest entries, zeros of both signs, subnormals and values beyond [0, 1]."""
    random = np.random.default_rng((seed, n, k))
    p = random.dirichlet(np.full(k, 0.3), n)
    kind = random.integers(0, 6, n)
    p[kind == 1] = p[kind == 1].round(1)
    p[kind == 2] *= np.where(random.random((int((kind == 2).sum()), k)) < 0.5, -0.0, 1.0)
    p[kind == 3] = 1 / k
    p[kind == 4] += random.choice([1e-5, -1e-5, 1e-310, 1e-40], (int((kind == 4).sum()), k))
    return p.astype(dtype)


def labels_of(n: int, k: int) -> NDArray[np.int64]:
    return np.random.default_rng((7, n, k)).integers(-1, k, n)


def assert_same_bits(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.view(f"u{found.itemsize}"), expected.view(f"u{expected.itemsize}"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize("n", ROWS)
def test_summary_and_self_equal_the_reference(processor: str, n: int, k: int, dtype: str) -> None:
    p, labels = probabilities(n, k, dtype), labels_of(n, k)
    # Bounds that some probabilities equal and some miss by what a narrower float cannot hold.
    bounds = np.random.default_rng(k).choice(p.ravel().astype(np.float64), k) if n else np.full(k, 0.5)
    bounds += np.random.default_rng(k + 1).choice([0.0, 1e-12, -1e-12], k)
    for threads in (1, 3):
        found = kernels.summarise_rows(p, labels, bounds, threads, processor)
        expected = reference.summarise_rows(p, labels, bounds)
        for name in expected._fields:
            assert_same_bits(getattr(found, name), getattr(expected, name))
    assert_same_bits(kernels.self_probabilities(p, labels, 2, processor), reference.self_probabilities(p, labels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", CLASSES)
def test_entropies_are_near_the_reference_and_the_same_on_every_engine(processor: str, k: int, dtype: str) -> None:
    p = probabilities(50, k, dtype)
    found = kernels.entropies(p, 2, processor)
    np.testing.assert_allclose(found, reference.entropies(p), rtol=1e-14, atol=1e-15)
    from pycurate.kernels import Isa, active_isa, set_active_isa

    before = active_isa()
    set_active_isa(Isa.scalar)
    assert_same_bits(found, kernels.entropies(p, 1))
    set_active_isa(before)


def test_the_logarithm_over_its_range(processor: str) -> None:
    random = np.random.default_rng(0)
    p = np.concatenate([2.0 ** random.uniform(-990, 1, 20_000), [2.0**-1000, 1.0, 1 - 2**-53, 0.5, math.sqrt(0.5)]])
    np.testing.assert_allclose(kernels.entropies(p[:, None], 1, processor), -p * np.log(p), rtol=5e-16, atol=1e-320)
    nothing = np.array([[0.0], [-0.0], [-1.0], [2.0**-1001], [np.nan]])
    assert kernels.entropies(nothing, 1, processor).tolist() == [0.0] * 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("k", [1, 5, 16, 37])
def test_a_row_that_is_not_finite_shows_in_its_sum(processor: str, k: int, bad: float) -> None:
    p = probabilities(9, k, "float32")
    p[4, k // 2] = bad
    sums = kernels.summarise_rows(p, np.zeros(9, np.int64), np.full(k, 0.5), device=processor).sums
    assert np.flatnonzero(~np.isfinite(sums)).tolist() == [4]


def test_rows_any_stride_apart(processor: str) -> None:
    p = probabilities(40, 33, "float32")
    labels, bounds = labels_of(20, 20), np.full(20, 0.1)
    view = p[::2, 5:25]
    expected = reference.summarise_rows(view, labels, bounds)
    found = kernels.summarise_rows(view, labels, bounds, device=processor)
    for name in expected._fields:
        assert_same_bits(getattr(found, name), getattr(expected, name))
    backwards = p[::-1, :20]
    assert_same_bits(kernels.entropies(backwards, device=processor), kernels.entropies(backwards))
    assert_same_bits(kernels.self_probabilities(backwards, np.zeros(40, np.int64)), p[::-1, 0].astype(np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 17, 100])
def test_tensors_on_a_gpu_are_read_where_they_lie(k: int, dtype: str) -> None:
    if cuda_support().missing:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'pycurate[torch]'")
    if not torch.cuda.is_available():
        pytest.skip("no GPU: PyTorch sees none")
    p, labels, bounds = probabilities(300, k, dtype), labels_of(300, k), np.full(k, 0.3)
    for given, there in ((p, torch.from_numpy(p).cuda()), (p[::3], torch.from_numpy(p).cuda()[::3])):
        of_rows = labels[: len(given)]
        found, expected = kernels.summarise_rows(there, of_rows, bounds), kernels.summarise_rows(given, of_rows, bounds)
        for name in expected._fields:
            assert_same_bits(getattr(found, name), getattr(expected, name))
        own = kernels.self_probabilities(there, of_rows)
        assert_same_bits(own, kernels.self_probabilities(given, of_rows))
        assert_same_bits(kernels.entropies(there), kernels.entropies(given))
        assert_same_bits(kernels.on_host(there), np.ascontiguousarray(given))
    with pytest.raises(ValueError, match="adjacent elements"):
        kernels.entropies(torch.from_numpy(probabilities(4, 3, dtype)).cuda().T)
    with pytest.raises(TypeError, match="float16, float32 or float64 on the device"):
        kernels.entropies(torch.zeros((4, 3), dtype=torch.int32, device="cuda"))


def test_auto_leaves_what_lies_in_the_memory_of_the_cpu_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise AssertionError("a GPU was asked for")

    monkeypatch.setattr(devices, "device_of", refused)
    p = probabilities(5, 3, "float32")
    assert_same_bits(kernels.entropies(p, device="auto"), kernels.entropies(p, device="auto"))


def test_class_sums_do_not_depend_on_cuts_and_are_exact() -> None:
    random = np.random.default_rng(0)
    p = random.random(30_000) * 10.0 ** random.integers(-8, 1, 30_000)
    labels = random.integers(-1, 3, 30_000)
    whole = kernels.ClassSums(3)
    whole.add(p, labels)
    cut = kernels.ClassSums(3)
    for begin in range(0, 30_000, 777):
        cut.add(p[begin : begin + 777], labels[begin : begin + 777])
    assert_same_bits(whole.sums, cut.sums)
    sums, rests, counts = np.zeros(3), np.zeros(3), np.zeros(3, np.int64)
    reference.add_class_sums(p, labels, sums, rests, counts)
    assert_same_bits(whole.sums, sums + rests)
    assert whole.counts.tolist() == counts.tolist() == np.bincount(labels[labels >= 0]).tolist()
    np.testing.assert_array_max_ulp(whole.sums, [math.fsum(p[labels == k]) for k in range(3)], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [5000, 700, 13, 3])
def test_candidates_by_margin(dtype: str, step: int) -> None:
    random = np.random.default_rng(3)
    p = random.dirichlet(np.ones(5), 5000).round(2).astype(dtype)  # many equal margins
    labels = random.integers(-1, 5, 5000)
    pairs = {(0, 1): 1, (0, 3): 40, (2, 2): 300, (3, 0): 5000, (4, 0): 33, (4, 1): 7, (4, 4): 1}
    offsets = np.searchsorted([given for given, _ in pairs], np.arange(6)).astype(np.int64)
    columns, wanted = np.array([j for _, j in pairs], np.int32), np.array(list(pairs.values()), np.int64)
    found = []
    for threads in (1, 3):
        candidates = kernels.MarginCandidates(offsets, columns, wanted)
        for begin in range(0, 5000, step):
            candidates.add(p[begin : begin + step], labels[begin : begin + step], begin, threads)
        found.append(candidates.rows())
    expected = [reference.largest_margins(p, labels, k, j, count) for (k, j), count in pairs.items()]
    for rows in found:
        assert len(rows) == sum(map(len, expected))
        ends = np.cumsum([len(part) for part in expected])[:-1]
        for part, right in zip(np.split(rows, ends), expected, strict=True):
            assert sorted(part.tolist()) == sorted(right.tolist())


def test_what_cannot_be_read_is_named() -> None:
    p, labels = probabilities(4, 3, "float32"), np.zeros(4, np.int64)
    with pytest.raises(TypeError, match="pred_probs: expected dtype float16, float32 or float64, got int64"):
        kernels.self_probabilities(p.astype(np.int64), labels)
    with pytest.raises(ValueError, match="adjacent elements in each row"):
        kernels.self_probabilities(np.asfortranarray(p), labels)
    with pytest.raises(ValueError, match=r"labels: expected shape \(4,\)"):
        kernels.self_probabilities(p, labels[:3])
    with pytest.raises(ValueError, match="labels: expected less than 3, got 3 in row 2"):
        kernels.self_probabilities(p, np.array([0, 1, 3, 0]))
    with pytest.raises(ValueError, match=r"pred_probs: expected shape \(n, k\)"):
        kernels.entropies(np.ones(3))
    with pytest.raises(ValueError, match="columns, wanted"):
        kernels.MarginCandidates(np.array([0, 1]), np.array([1], np.int32), np.array([1]))
    with pytest.raises(ValueError, match="offsets"):
        kernels.MarginCandidates(np.array([0, 2, 1]), np.array([1], np.int32), np.array([1]))
