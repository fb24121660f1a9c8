from __future__ import annotations

import re
import signal
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels import uid as kernels
from pycurate.reference import uid as reference
from pycurate.types import UID_DTYPE, UidArray

SIZES = [0, 1, 2, 3, 31, 32, 33, 1000, 4099]


def as_uids(words: NDArray[np.uint64]) -> UidArray:
    return np.ascontiguousarray(words, np.uint64).reshape(-1).view(UID_DTYPE)


def random_uids(n: int, seed: int = 0) -> UidArray:
    return as_uids(np.random.default_rng(seed).integers(0, 2**64, (n, 2), dtype=np.uint64))


def small_multiset(n: int, seed: int) -> UidArray:
    """n uids out of about n / 2 values, many of which share a word."""
    words = np.random.default_rng(seed).integers(0, max(2, int(n**0.5)), (n, 2), dtype=np.uint64)
    return as_uids(words << np.uint64(56))


KEYS: dict[str, Callable[[int], UidArray]] = {
    "random": random_uids,
    "sorted": lambda n: np.sort(random_uids(n)),
    "reversed": lambda n: np.sort(random_uids(n))[::-1].copy(),
    "repeats": lambda n: small_multiset(n, 1),
    "all equal": lambda n: np.array([(7, 9)] * n, UID_DTYPE),
    "one high word": lambda n: as_uids(np.stack([np.full(n, 2**63, np.uint64), random_uids(n)["f1"]], axis=1)),
    "only the lowest byte differs": lambda n: as_uids(
        np.stack([np.full(n, 5, np.uint64), random_uids(n)["f1"] & np.uint64(255)], axis=1)
    ),
    "high words of one bit": lambda n: as_uids(np.uint64(1) << (random_uids(n).view(np.uint64).reshape(-1, 2) % 64)),
    "one outlier": lambda n: as_uids(
        np.stack(
            [
                np.r_[np.zeros(n - 1 if n else 0), [2.0**63] * (n > 0)].astype(np.uint64),
                np.arange(n, dtype=np.uint64)[::-1],
            ],
            axis=1,
        )
    ),
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.usefixtures("isa")
def test_hex_goes_in_and_out_as_the_reference_says(n: int) -> None:
    uids = random_uids(n)
    texts = reference.format_hex(uids)
    hexes = kernels.format_hex(uids)
    assert hexes.dtype == np.dtype("S32")
    assert hexes.tolist() == [text.encode() for text in texts]
    expected = reference.parse_hex(texts)
    upper = np.array([text.upper() for text in texts], "S32")
    for text in (hexes, upper, hexes.view(np.uint8).reshape(n, 32)):
        parsed = kernels.parse_hex(text)
        assert parsed.dtype == UID_DTYPE
        np.testing.assert_array_equal(parsed, expected)
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(["skipped", *texts], kind).slice(1)
        _, offsets, data = array.buffers()
        width = np.int32 if kind == pa.string() else np.int64
        places = np.frombuffer(offsets, width)[1 : n + 2]
        np.testing.assert_array_equal(kernels.parse_hex_offsets(np.frombuffer(data, np.uint8), places), expected)


@pytest.mark.usefixtures("isa")
def test_every_byte_that_is_no_hex_digit_is_found_at_every_place() -> None:
    digits = set(b"0123456789abcdefABCDEF")
    for byte in range(256):
        for place in (0, 1, 15, 16, 31):
            text = np.full((3, 32), ord("7"), np.uint8)
            text[2, place] = byte
            if byte in digits:
                assert (
                    kernels.parse_hex(text)[2].tolist() == reference.parse_hex([text[2].tobytes().decode()])[0].tolist()
                )
            else:
                with pytest.raises(InputError, match="at row 2, got"):
                    kernels.parse_hex(text)


@pytest.mark.parametrize(
    "bad", ["abc", "", "0" * 33, "g" + "0" * 31, "0" * 31 + " ", "0x" + "0" * 30, "é" * 16, "1" * 90]
)
@pytest.mark.usefixtures("isa")
def test_text_that_is_no_uid_is_shown_with_its_row(bad: str) -> None:
    texts = ["0" * 32] * 17 + [bad] + ["f" * 32] * 3
    _, offsets, data = pa.array(texts).buffers()
    shown = repr(bad) if len(bad) <= 40 else repr(bad[:40]) + "…"
    with pytest.raises(InputError, match=re.escape(f"uid: expected 32 hex digits at row 17, got {shown}")):
        kernels.parse_hex_offsets(np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int32)[: len(texts) + 1])


@pytest.mark.parametrize("payload", [None, np.uint32, np.uint64])
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("n", SIZES)
def test_sort_equals_the_reference_and_is_stable(n: int, keys: str, payload: type | None) -> None:
    uids = KEYS[keys](n)
    order = reference.sort_order(uids)
    expected = uids[order]
    along = None if payload is None else np.arange(n).astype(payload)
    kernels.sort_uids(uids, along, threads=1)
    np.testing.assert_array_equal(uids, expected)
    if along is not None:
        np.testing.assert_array_equal(along, order)


@pytest.mark.parametrize("threads", [1, 2, 7, None])
@pytest.mark.parametrize("keys", ["random", "repeats", "one outlier", "high words of one bit"])
def test_sort_of_large_arrays_does_not_depend_on_threads(keys: str, threads: int | None) -> None:
    uids = KEYS[keys](1_200_001)
    order = reference.sort_order(uids)
    expected = uids[order]
    along = np.arange(len(uids), dtype=np.uint32)
    kernels.sort_uids(uids, along, threads)
    np.testing.assert_array_equal(uids, expected)
    np.testing.assert_array_equal(along, order)


def test_ctrl_c_stops_a_long_sort() -> None:
    """On one thread, which does every task itself: the busier the machine, the more often it asks within a sort. With
    more, the others may do all tasks of a busy main thread, and then the sort is done before it asks."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def is_stopped(rows: int) -> bool:
        uids = random_uids(rows)
        before = signal.signal(signal.SIGVTALRM, interrupt)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)  # of this process: it is spent in the sort
        try:
            with pytest.raises(KeyboardInterrupt):
                kernels.sort_uids(uids, threads=1)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        return not kernels.is_sorted(uids)

    assert any(is_stopped(rows) for rows in (4_000_000, 8_000_000, 16_000_000))  # what no machine sorts in 100 ms


@pytest.mark.parametrize("operation", ["intersect", "union", "minus", "without", "add"])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (100, 100), (33, 1000), (1000, 33), (1000, 1000)])
def test_algebra_equals_the_reference(operation: str, sizes: tuple[int, int]) -> None:
    a, b = (np.sort(small_multiset(n, seed)) for seed, n in enumerate(sizes))
    expected = reference.combine(operation, a, b)
    result = {
        "intersect": kernels.intersect,
        "union": kernels.union,
        "minus": kernels.minus,
        "without": lambda x, y: kernels.minus(x, y, all_copies=True),
        "add": kernels.add,
    }[operation](a, b)
    np.testing.assert_array_equal(result, expected)
    for rows in (1, 7, 4096):
        chunk = np.empty(rows, UID_DTYPE)
        parts = [part.copy() for part in kernels.merge_chunks(operation, a, b, chunk)]
        assert all(len(part) == rows for part in parts[:-1])
        np.testing.assert_array_equal(np.concatenate([np.empty(0, UID_DTYPE), *parts]), expected)


def test_algebra_in_many_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_STEP_ROWS", 13)
    a, b = (np.sort(small_multiset(n, seed)) for seed, n in enumerate((500, 800)))
    np.testing.assert_array_equal(kernels.intersect(a, b), reference.combine("intersect", a, b))
    np.testing.assert_array_equal(kernels.union(b, a), reference.combine("union", b, a))
    assert kernels.count_distinct(a) == len(np.unique(a))
    np.testing.assert_array_equal(kernels.find(a, b), reference.find(a, b))
    assert kernels.first_unsorted(a, unique=True) == 1 + np.flatnonzero(a[1:] == a[:-1])[0]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("m", [0, 1, 50])
def test_find_gives_the_first_position(n: int, m: int) -> None:
    table = np.sort(small_multiset(n, 1))
    queries = np.concatenate([random_uids(m), small_multiset(n, 2)[:m], table[:m], table[n - min(m, n) :]])
    np.random.default_rng(0).shuffle(queries)
    expected = reference.find(table, queries)
    before = queries.copy()
    np.testing.assert_array_equal(kernels.find(table, queries), expected)
    np.testing.assert_array_equal(queries, before)
    order = reference.sort_order(queries)
    np.testing.assert_array_equal(kernels.find(table, queries[order]), expected[order])


@pytest.mark.parametrize("n", SIZES)
def test_runs_and_order(n: int) -> None:
    uids = np.sort(small_multiset(n, 3))
    keys, counts = kernels.run_lengths(uids)
    expected_keys, expected_counts = reference.run_lengths(uids)
    np.testing.assert_array_equal(keys, expected_keys)
    np.testing.assert_array_equal(counts, expected_counts)
    assert kernels.count_distinct(uids) == len(expected_keys)
    assert kernels.is_sorted(uids)
    assert kernels.is_sorted_unique(uids) == (len(expected_keys) == n)
    assert kernels.is_sorted_unique(expected_keys)
    if n > 2 and uids[0] != uids[-1]:
        uids[-1] = uids[0]
        assert kernels.first_unsorted(uids) == n - 1


def test_order_is_by_both_words() -> None:
    assert not kernels.is_sorted(np.array([(1, 2), (1, 1)], UID_DTYPE))
    assert not kernels.is_sorted(np.array([(2, 0), (1, 1)], UID_DTYPE))
    assert kernels.is_sorted(np.array([(1, 2**64 - 1), (2, 0)], UID_DTYPE))


def test_wrong_arguments_are_named() -> None:
    uids = random_uids(4)
    with pytest.raises(InputError, match=r'uids: expected dtype "u8,u8" .*, got uint64'):
        kernels.sort_uids(uids["f0"].copy())
    with pytest.raises(InputError, match="b: expected a contiguous, aligned array; pass a copy"):
        kernels.union(np.sort(uids), uids[::2])
    with pytest.raises(InputError, match=r"a: expected a 1-D array \(n,\), got 2-D"):
        kernels.union(uids.reshape(2, 2), uids)
    with pytest.raises(InputError, match="b: expected uids in rising order, but row 2 is less than the row before it"):
        kernels.minus(np.sort(uids), np.array([(1, 1), (1, 2), (0, 9)], UID_DTYPE))
    with pytest.raises(ValueError, match=r"payload: expected shape \(4,\), got \(3,\)"):
        kernels.sort_uids(uids, np.arange(3, dtype=np.uint32))
    with pytest.raises(TypeError, match="payload: expected dtype uint32 or uint64, got int64"):
        kernels.sort_uids(uids, np.arange(4))  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"text: expected shape \(n,\) and dtype S32, got shape \(1,\) and dtype \|S33"
    ):
        kernels.parse_hex(np.array(["0" * 33], "S33"))
    with pytest.raises(ValueError, match=r"text: expected shape \(n, 32\)"):
        kernels.parse_hex(np.zeros((2, 31), np.uint8))
    with pytest.raises(TypeError, match="text: expected dtype uint8, got <U32"):
        kernels.parse_hex(np.array(["0" * 32]))
    with pytest.raises(InputError, match="text: expected a contiguous array"):
        kernels.parse_hex(np.array(["0" * 32] * 4, "S32")[::2])
    with pytest.raises(TypeError, match="offsets: expected dtype int32 or int64, got uint32"):
        kernels.parse_hex_offsets(np.zeros(32, np.uint8), np.array([0, 32], np.uint32))
    with pytest.raises(ValueError, match="offsets: point outside data"):
        kernels.parse_hex_offsets(np.full(32, 48, np.uint8), np.array([0, 32, 64], np.int32))
    uids.flags.writeable = False
    with pytest.raises(InputError, match="uids: expected a writeable array"):
        kernels.sort_uids(uids)
