"""Row-wise similarity of float16 pairs larger than the last-level cache, one thread, against the best a user has."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.kernels.rowwise import Heads, convert, pair_similarity, row_statistics, rowwise_scores

Rows = NDArray[Any]
Kernel = Callable[[Rows, Rows], Any]
MATRIX_BYTES = 100_000_000
DIMENSIONS = [512, 768]  # CLIP ViT-B/32 and ViT-L/14


@cache
def pairs(d: int, dtype: str = "float16") -> tuple[Rows, Rows]:
    """Two aligned matrices, correlated as image and text are."""
    rng = np.random.default_rng(d)
    n = MATRIX_BYTES // (d * np.dtype(dtype).itemsize)
    a, noise = rng.standard_normal((2, n, d), dtype=np.float32)
    b = a * 0.3 + noise
    return a.astype(dtype), b.astype(dtype)


@cache
def two_heads(d: int) -> Heads:
    return Heads(np.random.default_rng(1).standard_normal((2, d), dtype=np.float32), np.zeros(2, np.float32))


def half(heads: Heads, k: int) -> Heads:
    return Heads(heads.weights[k : k + 1], heads.bias[k : k + 1])


def numpy_cosine(a: Rows, b: Rows) -> Rows:
    a, b = a.astype(np.float32), b.astype(np.float32)
    return np.einsum("nd,nd->n", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def numpy_dot(a: Rows, b: Rows) -> Rows:
    return np.einsum("nd,nd->n", a.astype(np.float32), b.astype(np.float32))


def torch_cosine(a: Rows, b: Rows) -> Rows:
    import torch

    torch.set_num_threads(1)
    x, y = torch.from_numpy(a).float(), torch.from_numpy(b).float()
    return torch.nn.functional.cosine_similarity(x, y).numpy()


def simsimd_cosine(a: Rows, b: Rows) -> Rows:
    import simsimd

    return 1 - np.asarray(simsimd.cosine(a, b))


def simsimd_dot(a: Rows, b: Rows) -> Rows:
    import simsimd

    return np.asarray(simsimd.dot(a, b))


def numkong_cosine(a: Rows, b: Rows) -> Rows:
    import numkong

    return 1 - np.asarray(numkong.angular(a, b, "f16"))


def numkong_dot(a: Rows, b: Rows) -> Rows:
    import numkong

    return np.asarray(numkong.dot(a, b, "f16"))


def ours_cosine(a: Rows, b: Rows) -> Rows:
    return pair_similarity(a, b, threads=1)


def ours_dot(a: Rows, b: Rows) -> Rows:
    return pair_similarity(a, b, "inner_product", threads=1)


def read_twice(a: Rows, b: Rows) -> None:
    """A plain pass over the same bytes: the fastest NumPy reduction of 64-bit words, which does no more than read."""
    a.view(np.uint64).max(), b.view(np.uint64).max()


COSINES: dict[str, Kernel] = {
    "pycurate": ours_cosine,
    "numkong": numkong_cosine,
    "simsimd": simsimd_cosine,
    "numpy": numpy_cosine,
    "torch": torch_cosine,
}
DOTS: dict[str, Kernel] = {
    "pycurate": ours_dot,
    "numkong": numkong_dot,
    "simsimd": simsimd_dot,
    "numpy": numpy_dot,
}


def fused(d: int) -> dict[str, Kernel]:
    heads = two_heads(d)
    return {
        "norms": lambda a, b: rowwise_scores(a, b, threads=1),
        "norms and two heads of a": lambda a, b: rowwise_scores(a, b, heads_a=heads, threads=1),
        "norms and a head of each": lambda a, b: rowwise_scores(
            a, b, heads_a=half(heads, 0), heads_b=half(heads, 1), threads=1
        ),
        "norms and two heads of each": lambda a, b: rowwise_scores(a, b, heads_a=heads, heads_b=heads, threads=1),
    }


def run(benchmark: Any, kernel: Kernel, a: Rows, b: Rows) -> Any:
    result = benchmark.pedantic(kernel, (a, b), rounds=5, warmup_rounds=1)
    benchmark.extra_info["GB/s"] = round((a.nbytes + b.nbytes) / benchmark.stats["median"] / 1e9, 2)
    return result


def need(peer: str) -> None:
    if peer in ("numkong", "simsimd", "torch") and importlib.util.find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("peer", COSINES)
@pytest.mark.benchmark(group="rowwise cosine float16")
def test_bench_cosine(benchmark: Any, peer: str, d: int) -> None:
    need(peer)
    a, b = pairs(d)
    result = run(benchmark, COSINES[peer], a, b)
    benchmark.extra_info["largest difference"] = float(np.abs(result - ours_cosine(a, b)).max())
    assert benchmark.extra_info["largest difference"] < 1e-3  # numkong's reciprocal root is approximate


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("peer", DOTS)
@pytest.mark.benchmark(group="rowwise dot float16")
def test_bench_dot(benchmark: Any, peer: str, d: int) -> None:
    need(peer)
    a, b = pairs(d)
    result = run(benchmark, DOTS[peer], a, b)
    np.testing.assert_allclose(result, ours_dot(a, b), rtol=0, atol=1e-3)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("what", fused(512))
@pytest.mark.benchmark(group="rowwise cosine float16, fused")
def test_bench_fused(benchmark: Any, what: str, d: int) -> None:
    run(benchmark, fused(d)[what], *pairs(d))


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.benchmark(group="rowwise read")
def test_bench_read(benchmark: Any, d: int) -> None:
    run(benchmark, read_twice, *pairs(d))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.benchmark(group="rowwise cosine by type and instruction set")
def test_bench_types(benchmark: Any, dtype: str) -> None:
    run(benchmark, ours_cosine, *pairs(512, dtype))


@pytest.mark.benchmark(group="rowwise statistics")
def test_bench_row_statistics(benchmark: Any) -> None:
    a, _ = pairs(512)
    run(benchmark, lambda x, _: row_statistics(x, threads=1), a, a[:0])


@pytest.mark.parametrize("way", ["pycurate", "numpy"])
@pytest.mark.benchmark(group="rowwise float16 to float32")
def test_bench_convert(benchmark: Any, way: str) -> None:
    a, _ = pairs(512)
    ways: dict[str, Kernel] = {
        "pycurate": lambda x, _: convert(x, "float32", threads=1),
        "numpy": lambda x, _: x.astype(np.float32),
    }
    run(benchmark, ways[way], a, a[:0])


def median_ratios(a: Rows, b: Rows, kernels: dict[str, Kernel], base: Kernel, rounds: int = 25) -> dict[str, float]:
    """Per kernel the median over rounds of its time / the time of ``base``: all in turn in each round, so that they see
    the same disturbance, and in seconds of the processor, which waiting for memory is part of and other processes'
    turns are not."""
    ratios: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(rounds):
        seconds = {}
        for name, kernel in {"": base, **kernels}.items():
            start = time.process_time()
            kernel(a, b)
            seconds[name] = time.process_time() - start
        for name in kernels:
            ratios[name].append(seconds[name] / seconds[""])
    return {name: float(np.median(values)) for name, values in ratios.items()}


@pytest.mark.gate
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("peer", ["numkong", "simsimd"])
def test_gate_no_slower_than_peers(peer: str, d: int) -> None:
    need(peer)
    a, b = pairs(d)
    dot, cosine = (median_ratios(a, b, {peer: k[peer]}, k["pycurate"])[peer] for k in (DOTS, COSINES))
    print(f"\nfloat16, d = {d}: {dot:.2f} x {peer} (dot), {cosine:.2f} x (cosine)")
    assert min(dot, cosine) >= 0.95


@pytest.mark.gate
@pytest.mark.parametrize("d", DIMENSIONS)
def test_gate_reads_at_memory_speed(d: int) -> None:
    a, b = pairs(d)
    dot, cosine = (median_ratios(a, b, {"read": read_twice}, kernel)["read"] for kernel in (ours_dot, ours_cosine))
    print(f"\nfloat16, d = {d}: {dot:.2f} x the read bandwidth (dot), {cosine:.2f} x (cosine)")
    assert min(dot, cosine) >= 0.85


def in_blocks(kernel: Kernel) -> Kernel:
    """``kernel`` over 4,096 rows at a time, whose results fit memory that the process already has. Those of a whole
    matrix are new pages, and their first touch (up to 13 us each in a virtual machine) would be timed instead."""

    def run_blocks(a: Rows, b: Rows) -> None:
        for start in range(0, len(a), 4096):
            kernel(a[start : start + 4096], b[start : start + 4096])

    return run_blocks


@pytest.mark.gate
@pytest.mark.parametrize("d", DIMENSIONS)
def test_gate_norms_and_heads_ride_along(d: int) -> None:
    a, b = pairs(d)
    kernels = {what: in_blocks(kernel) for what, kernel in fused(d).items()}
    ratios = median_ratios(a, b, kernels, in_blocks(ours_cosine))
    print(f"\nfloat16, d = {d}: " + ", ".join(f"{what} {ratio:.2f} x cosine" for what, ratio in ratios.items()))
    assert ratios["norms and two heads of a"] <= 1.25
    assert ratios["norms and a head of each"] <= 1.25
