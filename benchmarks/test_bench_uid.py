"""128-bit uids, one thread: hex parsing, sorting, multiset algebra; against NumPy and the loops of public scripts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pycurate.kernels import uid as kernels
from pycurate.types import UID_DTYPE, UidArray

PARSE_ROWS, SORT_ROWS = 100_000, 1_000_000
Kernel = Callable[[Any], Any]


@cache
def random_uids(n: int, seed: int = 0) -> UidArray:
    return np.random.default_rng(seed).integers(0, 2**64, (n, 2), dtype=np.uint64).reshape(-1).view(UID_DTYPE)


@cache
def texts(n: int) -> list[str]:
    return [text.decode() for text in kernels.format_hex(random_uids(n))]


@cache
def sides(n: int) -> tuple[UidArray, UidArray]:
    """Two sorted arrays that share half of their uids."""
    a = random_uids(n)
    b = np.concatenate([a[::2], random_uids(n // 2, 1)])
    kernels.sort_uids(b)
    a = a.copy()
    kernels.sort_uids(a)
    return a, b


def arrow_parse(array: pa.Array) -> UidArray:
    _, offsets, data = array.buffers()
    return kernels.parse_hex_offsets(np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int32)[: len(array) + 1])


def loop_parse(uids: list[str]) -> UidArray:
    return np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], np.dtype("u8,u8"))


def fromhex_parse(uids: list[str]) -> UidArray:
    words = np.frombuffer(bytes.fromhex("".join(uids)), ">u8").astype(np.uint64)
    return words.view(UID_DTYPE)


def ours_sort(uids: UidArray) -> UidArray:
    uids = uids.copy()
    kernels.sort_uids(uids, threads=1)
    return uids


def structured_sort(uids: UidArray) -> UidArray:
    uids = uids.copy()
    uids.sort()
    return uids


def lexsort(uids: UidArray) -> UidArray:
    return uids[np.lexsort((uids["f1"], uids["f0"]))]


def big_endian_text_sort(uids: UidArray) -> UidArray:
    """Sorting the 16 bytes as text: what a user who knows that structured comparison is slow would try."""
    text = uids.view(np.uint64).byteswap().view("V16")
    return np.sort(text).view(np.uint64).byteswap().view(UID_DTYPE)


PARSERS: dict[str, tuple[Kernel, Callable[[list[str]], Any]]] = {
    "pycurate": (arrow_parse, pa.array),
    "python loop": (loop_parse, list),
    "bytes.fromhex": (fromhex_parse, list),
}
SORTS: dict[str, Kernel] = {
    "pycurate": ours_sort,
    "numpy structured": structured_sort,
    "numpy lexsort": lexsort,
    "numpy 16-byte": big_endian_text_sort,
}
ALGEBRA: dict[str, dict[str, Callable[[UidArray, UidArray], Any]]] = {
    "intersect": {
        "pycurate": kernels.intersect,
        "numpy": np.intersect1d,
        "python set": lambda a, b: np.array(sorted(set(a.tolist()) & set(b.tolist())), UID_DTYPE),
    },
    "union": {"pycurate": kernels.union, "numpy": np.union1d},
    "minus": {
        "pycurate": kernels.minus,
        "numpy": lambda a, b: a[~np.isin(a, b)],
    },
}


@pytest.mark.parametrize("peer", PARSERS)
@pytest.mark.benchmark(group="uid parse")
def test_bench_parse(benchmark: Any, peer: str) -> None:
    parse, prepare = PARSERS[peer]
    result = benchmark.pedantic(parse, (prepare(texts(PARSE_ROWS)),), rounds=5, warmup_rounds=1)
    benchmark.extra_info["million rows a second"] = round(PARSE_ROWS / benchmark.stats["median"] / 1e6, 2)
    np.testing.assert_array_equal(result, random_uids(PARSE_ROWS))


@pytest.mark.usefixtures("isa")
@pytest.mark.benchmark(group="uid hex by instruction set")
@pytest.mark.parametrize("way", ["parse", "format"])
def test_bench_hex_by_instruction_set(benchmark: Any, way: str) -> None:
    uids = random_uids(SORT_ROWS)
    kernel, argument = (kernels.format_hex, uids) if way == "format" else (kernels.parse_hex, kernels.format_hex(uids))
    benchmark.pedantic(kernel, (argument,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("peer", SORTS)
@pytest.mark.benchmark(group="uid sort")
def test_bench_sort(benchmark: Any, peer: str) -> None:
    result = benchmark.pedantic(SORTS[peer], (random_uids(SORT_ROWS),), rounds=3, warmup_rounds=1)
    benchmark.extra_info["million rows a second"] = round(SORT_ROWS / benchmark.stats["median"] / 1e6, 2)
    np.testing.assert_array_equal(result, sides(SORT_ROWS)[0])


@pytest.mark.parametrize(("operation", "peer"), [(op, peer) for op, peers in ALGEBRA.items() for peer in peers])
@pytest.mark.benchmark(group="uid algebra")
def test_bench_algebra(benchmark: Any, operation: str, peer: str) -> None:
    a, b = sides(SORT_ROWS // 4)
    result = benchmark.pedantic(ALGEBRA[operation][peer], (a, b), rounds=3, warmup_rounds=1)
    benchmark.extra_info["million rows a second"] = round((len(a) + len(b)) / benchmark.stats["median"] / 1e6, 2)
    np.testing.assert_array_equal(result, ALGEBRA[operation]["pycurate"](a, b))


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.benchmark(group="uid find")
def test_bench_find(benchmark: Any, order: str) -> None:
    table, queries = sides(SORT_ROWS)
    if order == "shuffled":
        queries = np.random.default_rng(2).permutation(queries)
    positions = benchmark.pedantic(kernels.find, (table, queries), rounds=3, warmup_rounds=1)
    assert np.count_nonzero(positions >= 0) == SORT_ROWS // 2


def median_ratio(slow: Callable[[], Any], fast: Callable[[], Any], rounds: int) -> float:
    """Median over rounds of time(slow) / time(fast): in turn, and in seconds of the processor, so that both see the
    same disturbance and other processes' turns do not count."""
    ratios = []
    for _ in range(rounds):
        start = time.process_time()
        slow()
        between = time.process_time()
        fast()
        ratios.append((between - start) / (time.process_time() - between))
    return float(np.median(ratios))


@pytest.mark.gate
def test_gate_parse_is_50_times_the_python_loop() -> None:
    uids = texts(PARSE_ROWS)
    array = pa.array(uids)
    ratio = median_ratio(lambda: loop_parse(uids), lambda: arrow_parse(array), 11)
    print(f"\nuid hex parse, {PARSE_ROWS:,} rows: {ratio:.0f} x the Python loop")
    assert ratio >= 50


@pytest.mark.gate
def test_gate_sort_is_15_times_the_structured_sort() -> None:
    uids = random_uids(SORT_ROWS)
    ratio = median_ratio(lambda: structured_sort(uids), lambda: ours_sort(uids), 7)
    print(f"\n128-bit sort, {SORT_ROWS:,} rows: {ratio:.1f} x numpy's structured sort")
    assert ratio >= 15
