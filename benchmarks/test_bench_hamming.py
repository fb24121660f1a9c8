"""Joins of binary codes by Hamming distance, one thread, against a band join in NumPy and FAISS's brute force."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from peers.hamming_peers import faiss_flat_join, numpy_band_join, planted_codes

from pycurate._core import hamming as _hamming
from pycurate.kernels.hamming import hamming_components, hamming_pairs

MILLION = 1_000_000
BRUTE_FORCE = -1
RADIUS = 4


def ours(codes: NDArray[np.uint64], radius: int) -> NDArray[np.int64]:
    found = hamming_pairs(codes, radius, threads=1)
    return found.rows * len(codes) + found.cols


def seconds(function: Any, *arguments: Any) -> tuple[float, Any]:
    started = time.process_time()
    result = function(*arguments)
    return time.process_time() - started, result


@pytest.mark.gate
def test_gate_hamming_million() -> None:
    codes = planted_codes(MILLION)
    ratios = []
    for _ in range(3):
        mine, found = seconds(ours, codes, RADIUS)
        peer, expected = seconds(numpy_band_join, codes, RADIUS)
        ratios.append(peer / mine)
        print(f"\n1M 64-bit codes, radius {RADIUS}: {mine:.2f} s, NumPy bands {peer:.2f} s, {len(found):,} pairs")
    distinct = hamming_pairs(codes, RADIUS, threads=1).copy_of < 0
    expected = expected[distinct[expected // MILLION] & distinct[expected % MILLION]]
    np.testing.assert_array_equal(found, expected)
    print(f"{np.median(ratios):.1f} x NumPy's band join")
    assert np.median(ratios) >= 5


@pytest.mark.gate
def test_gate_hamming_forty_thousand() -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    codes = planted_codes(40_000)
    spent = {name: [] for name in ("pycurate", "numpy", "faiss")}
    for _ in range(5):
        for name, join in (("pycurate", ours), ("numpy", numpy_band_join), ("faiss", faiss_flat_join)):
            spent[name].append(seconds(join, codes, RADIUS)[0])
    median = {name: float(np.median(times)) for name, times in spent.items()}
    print("\n40,000 64-bit codes, radius 4: " + ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in median.items()))
    assert median["numpy"] >= median["pycurate"]
    assert median["faiss"] >= 20 * median["pycurate"]


@pytest.mark.benchmark(group="hamming join by bands")
@pytest.mark.parametrize("radius", [0, 2, 4, 8, 10])
@pytest.mark.parametrize("n", [1_000, 10_000, 100_000])
@pytest.mark.parametrize("bands", ["brute force", "planned"])
def test_bench_crossover(benchmark: Any, bands: str, n: int, radius: int) -> None:
    """Both ways on the same codes; ``planned`` is what a join takes by itself."""
    codes = planted_codes(n).reshape(-1, 1)
    if bands == "planned":
        benchmark.extra_info["bands"] = _hamming.plan(n, n, True, 1, radius)
        benchmark.pedantic(_hamming.components_within, (codes, radius, 0, 1, None), rounds=3)
    elif n <= 10_000:
        benchmark.pedantic(_hamming.components_within, (codes, radius, BRUTE_FORCE, 1, None), rounds=3)
    else:
        pytest.skip("n squared")


@pytest.mark.usefixtures("isa")
@pytest.mark.benchmark(group="hamming join by instruction set")
@pytest.mark.parametrize("words", [1, 4])
def test_bench_by_instruction_set(benchmark: Any, words: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**64, (100_000, words), dtype=np.uint64)
    benchmark.pedantic(hamming_components, (codes, 10), {"threads": 1}, rounds=3)
