"""The score of the top 30 % of 10M rows, exactly, one thread: against a partition and the public script's full sort."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.ops.selection.radix_select import RadixSelect, TopCut

ROWS, KEPT = 10_000_000, 3_000_000


@cache
def scores(dtype: str) -> NDArray[Any]:
    """Like CLIP scores: around 0.22, nearly all in two octaves."""
    values = np.random.default_rng(0).normal(0.22, 0.06, ROWS)
    return np.clip(values, -1, 1).astype(dtype)


def radix_select(values: NDArray[Any], shards: int = 1) -> TopCut:
    """Ties as DataComp counts them, so that all give the same number."""
    select = RadixSelect(KEPT, "datacomp", values.dtype)
    parts = np.array_split(values, shards)
    while not select.done:
        select.advance(sum((select.count(part) for part in parts), np.zeros(65536, np.int64)))
    return select.cut


def threshold(values: NDArray[Any]) -> float:
    found = radix_select(values).threshold
    assert found is not None
    return found


def partition(values: NDArray[Any]) -> float:
    return float(np.partition(values, ROWS - 1 - KEPT)[ROWS - 1 - KEPT])


def full_sort(values: NDArray[Any]) -> float:
    return float(-np.sort(-values)[KEPT])


WAYS: dict[str, Callable[[NDArray[Any]], float]] = {
    "pycurate": threshold,
    "np.partition": partition,
    "-np.sort(-v)[n]": full_sort,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group="top fraction of 10M rows")
def test_bench_top_fraction(benchmark: Any, way: str, dtype: str) -> None:
    values = scores(dtype)
    result = benchmark.pedantic(WAYS[way], (values,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["GB/s"] = round(values.nbytes / benchmark.stats["median"] / 1e9, 2)
    assert result == full_sort(values)


@pytest.mark.parametrize("shards", [1, 20, 1000])
@pytest.mark.benchmark(group="top fraction of 10M rows, by shards")
def test_bench_top_fraction_of_shards(benchmark: Any, shards: int) -> None:
    cut = benchmark.pedantic(radix_select, (scores("float32"), shards), rounds=3, warmup_rounds=1)
    assert cut == radix_select(scores("float32"))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.benchmark(group="top fraction of 10M rows, by instruction set")
def test_bench_top_fraction_by_instruction_set(benchmark: Any, dtype: str) -> None:
    benchmark.pedantic(threshold, (scores(dtype),), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="top fraction: rows kept")
def test_bench_keep(benchmark: Any) -> None:
    values, cut = scores("float32"), radix_select(scores("float32"))
    kept = benchmark.pedantic(cut.keep, (values,), rounds=3, warmup_rounds=1)
    assert kept.sum() >= KEPT


@pytest.mark.gate
def test_gate_top_fraction() -> None:
    values, seconds = scores("float32"), dict[str, list[float]]((way, []) for way in WAYS)
    for _ in range(11):  # in turn, in seconds of the processor: all see the same disturbance
        for way, kernel in WAYS.items():
            start = time.process_time()
            kernel(values)
            seconds[way].append(time.process_time() - start)
    ours = np.array(seconds["pycurate"])
    against = {way: float(np.median(np.array(times) / ours)) for way, times in seconds.items() if way != "pycurate"}
    print("\ntop 30 % of 10M float32: " + ", ".join(f"{ratio:.2f} x {way}" for way, ratio in against.items()))
    assert against["np.partition"] >= 1
    assert against["-np.sort(-v)[n]"] >= 3
