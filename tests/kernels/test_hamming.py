from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate._core import hamming as core
from pycurate.errors import InputError
from pycurate.kernels.hamming import (
    codes_of,
    hamming_components,
    hamming_linkage,
    hamming_nearest_earlier,
    hamming_pairs,
)
from pycurate.kernels.hamming_blocks import linkage_edges, nearest_of_others
from pycurate.reference import hamming as reference

SIZES = [0, 1, 2, 3, 7, 8, 9, 33, 65, 150, 300]


def planted(n: int, words: int, seed: int = 0, flips: int = 8) -> NDArray[np.uint64]:
    """Random codes; a third are others with up to ``flips`` bits changed, some of them copies."""
    random = np.random.default_rng([n, words, seed])
    codes = random.integers(0, 2**64, (n, words), dtype=np.uint64)
    for row in range(max(1, n // 3), 2 * n // 3):
        codes[row] = codes[random.integers(0, row)]
        for bit in random.integers(0, 64 * words, random.integers(0, flips + 1)):
            codes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return codes


def collapsed(codes: NDArray[np.uint64], pairs: tuple[Any, Any, Any]) -> list[tuple[int, int, int]]:
    """The pairs of rows that copy none."""
    copy = reference.copies(codes) >= 0
    return [p for p in zip(*(side.tolist() for side in pairs), strict=True) if not copy[p[0]] and not copy[p[1]]]


def as_tuples(rows: Any, cols: Any, distances: Any) -> list[tuple[int, int, int]]:
    return list(zip(rows.tolist(), cols.tolist(), distances.tolist(), strict=True))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("words", [1, 2, 4, 5])
@pytest.mark.parametrize("n", SIZES)
def test_pairs_equal_the_reference_for_every_number_of_bands(n: int, words: int) -> None:
    codes = planted(n, words)
    for radius in (0, 1, 3, 4, 10, 30, 64 * words):
        expected = as_tuples(*reference.pairs_within(codes, radius))
        for bands in (0, -1, 1, 2, 3, radius + 1):
            if bands > min(radius + 1, 64 * words) or (bands == 1 and radius > 10):
                continue
            found = core.pairs_within(codes, None, radius, bands, 10**6, 1, None)
            assert found is not None
            assert as_tuples(*found) == expected, (radius, bands)
        pairs = hamming_pairs(codes, radius)
        assert as_tuples(pairs.rows, pairs.cols, pairs.distances) == collapsed(
            codes, reference.pairs_within(codes, radius)
        )
        np.testing.assert_array_equal(pairs.copy_of, reference.copies(codes))
        np.testing.assert_array_equal(hamming_components(codes, radius), reference.components_within(codes, radius))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (1, 1), (9, 300), (300, 17)])
def test_a_cross_join_equals_the_reference(n: int, m: int, words: int) -> None:
    x, y = planted(n, words, 1), planted(m, words, 2)
    y[: min(n, m) // 2] = x[: min(n, m) // 2]
    for radius in (0, 2, 7):
        expected = as_tuples(*reference.pairs_within(x, radius, y))
        for bands in (0, -1, 1, 2, radius + 1):
            if bands > radius + 1:
                continue
            found = core.pairs_within(x, y, radius, bands, 10**6, 2, None)
            assert found is not None
            assert as_tuples(*found) == expected, (radius, bands)
        pairs = hamming_pairs(x, radius, y)
        copies = reference.copies(x) >= 0, reference.copies(y) >= 0
        assert as_tuples(pairs.rows, pairs.cols, pairs.distances) == [
            p for p in expected if not copies[0][p[0]] and not copies[1][p[1]]
        ]
        assert pairs.copy_of_other is not None
        np.testing.assert_array_equal(pairs.copy_of_other, reference.copies(y))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("n", [0, 1, 2, 9, 65, 150])
def test_the_nearest_earlier_row_equals_the_reference(n: int, words: int) -> None:
    codes = planted(n, words, 3, flips=3)
    order = np.random.default_rng(n).permutation(n)
    for radius in (0, 2, 5, 40):
        found = hamming_nearest_earlier(codes, order, radius)
        indices, distances = reference.nearest_earlier(codes, order, radius)
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_array_equal(found.distances, distances)
        assert found.distances.dtype == np.int32


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("n", [0, 1, 2, 9, 150, 300])
def test_linkage_has_the_components_at_every_radius(n: int, words: int) -> None:
    codes = planted(n, words, 6)
    joined, distances = core.linkage_within(codes, None, 9, 0, 1, None)
    expected = reference.linkage_within(codes, 9)
    np.testing.assert_array_equal(joined, expected[0])
    np.testing.assert_array_equal(distances, expected[1])
    linkage = hamming_linkage(codes, 9, threads=2)
    assert (linkage.cols < linkage.rows).all()
    for radius in range(10):
        labels = np.arange(n)
        copies = np.flatnonzero(linkage.copy_of >= 0)
        labels[copies] = linkage.copy_of[copies]
        edges = linkage.distances <= radius
        for row, col in zip(linkage.rows[edges].tolist(), linkage.cols[edges].tolist(), strict=True):
            labels[labels == row] = labels[col]
        for _ in range(n):  # to the lowest of the lowest
            labels = labels[labels]
        np.testing.assert_array_equal(labels, reference.components_within(codes, radius))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (1, 1), (40, 70), (130, 65)])
def test_blocks_meet_as_one_array_does(n: int, m: int, words: int) -> None:
    codes = np.unique(planted(n + m, words, 5, flips=3), axis=0)
    codes = codes[np.random.default_rng(0).permutation(len(codes))]
    n = min(n, len(codes))
    others, block = np.ascontiguousarray(codes[:n]), np.ascontiguousarray(codes[n:])
    between = reference.distances(block, others)
    for radius in (0, 4, 30):
        for before in (None, np.arange(len(block)) % (n + 1)):
            found = nearest_of_others(block, others, radius, before)
            for row, (place, distance) in enumerate(zip(found.places, found.distances, strict=True)):
                allowed = between[row, : n if before is None else before[row]]
                near = np.flatnonzero(allowed <= radius)
                expected = near[np.argmin(allowed[near])] if len(near) else -1
                assert (place, distance) == (expected, allowed[expected] if len(near) else -1)
        rows, cols, at = linkage_edges(block, others, radius)
        assert len(rows) < max(1, len(codes))
        numbers = np.append(np.arange(n, len(codes)), np.arange(n))
        for level in range(radius + 1):
            both = np.full((len(codes), len(codes)), 64 * words + 1)
            both[n:, :n] = between
            found_labels = labels_of(len(codes), numbers[rows[at <= level]], numbers[cols[at <= level]])
            np.testing.assert_array_equal(found_labels, labels_of(len(codes), *np.nonzero(both <= level)))


def labels_of(n: int, rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) the lowest row of each component, in plain loops."""
    labels = np.arange(n)
    for row, col in zip(rows.tolist(), cols.tolist(), strict=True):
        low, high = sorted((labels[row], labels[col]))
        labels[labels == high] = low
    return labels


@pytest.mark.parametrize("radius", [3, 12])
def test_threads_change_nothing(radius: int) -> None:
    codes = planted(30_000, 1, 4)
    order = np.random.default_rng(0).permutation(len(codes))
    one, four = (hamming_pairs(codes, radius, threads=threads) for threads in (1, 4))
    for name in ("rows", "cols", "distances", "copy_of"):
        np.testing.assert_array_equal(getattr(one, name), getattr(four, name))
    np.testing.assert_array_equal(*(hamming_components(codes, radius, threads=threads) for threads in (1, 4)))
    nearest = [hamming_nearest_earlier(codes, order, radius, threads=threads) for threads in (1, 4)]
    np.testing.assert_array_equal(nearest[0].indices, nearest[1].indices)
    np.testing.assert_array_equal(nearest[0].distances, nearest[1].distances)


def test_the_plan_is_the_pigeonhole_principle() -> None:
    for n in (100, 10_000, 1_000_000):
        for words in (1, 4):
            for radius in (0, 1, 4, 10, 20):
                bands = core.plan(n, n, True, words, radius)
                if bands == [(0, 0, 0)]:
                    continue
                assert sum(own + 1 for _, _, own in bands) == radius + 1
                ends = [first + bits for first, bits, _ in bands]
                assert all(end <= first for end, (first, _, _) in zip(ends, bands[1:], strict=False))
                assert ends[-1] <= 64 * words
    assert core.plan(50, 50, True, 1, 4) == [(0, 0, 0)]
    assert len(core.plan(1_000_000, 1_000_000, True, 1, 4)) > 1


def test_a_hundred_thousand_copies_are_one_row() -> None:
    codes = np.full(100_000, 7, np.uint64)
    codes[-1] = 6
    started = time.process_time()
    pairs = hamming_pairs(codes, 64)
    assert as_tuples(pairs.rows, pairs.cols, pairs.distances) == [(0, 99_999, 1)]
    assert (pairs.copy_of[1:-1] == 0).all()
    assert not hamming_components(codes, 1).any()
    found = hamming_nearest_earlier(codes, np.arange(len(codes))[::-1], 1)
    assert found.indices[0] == 99_998
    assert found.indices[99_998] == 99_999
    assert found.distances[[0, 99_998, 99_999]].tolist() == [0, 1, -1]
    assert time.process_time() - started < 5


def test_a_clump_of_noisy_copies_holds_no_pairs() -> None:
    random = np.random.default_rng(0)
    codes = np.full(20_000, random.integers(0, 2**64, dtype=np.uint64))
    for _ in range(3):
        codes ^= np.uint64(1) << random.integers(0, 64, len(codes)).astype(np.uint64)
    codes[-1] = ~codes[-1]
    labels = hamming_components(codes, 6)
    assert not labels[:-1].any()
    assert labels[-1] == len(codes) - 1
    with pytest.raises(InputError, match="max_pairs: expected at most 100,000 pairs within 6 bits, but there are more"):
        hamming_pairs(codes, 6, max_pairs=100_000)


def test_codes_come_as_words_or_bytes() -> None:
    words = planted(200, 4, 5)
    as_bytes = words.view(np.uint8).reshape(200, 32)
    expected, found = hamming_pairs(words, 20), hamming_pairs(as_bytes, 20)
    assert np.shares_memory(codes_of("codes", as_bytes), words)
    assert as_tuples(found.rows, found.cols, found.distances) == as_tuples(
        expected.rows, expected.cols, expected.distances
    )
    one = np.ascontiguousarray(words[:, 0])
    assert len(hamming_pairs(one, 3).rows) == len(hamming_pairs(one.reshape(-1, 1), 3).rows)


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (([1, 2], 1), TypeError, "codes: expected a NumPy array, got list"),
        ((np.zeros(4, np.int64), 1), TypeError, r"codes: expected \(n,\) or \(n, w\) uint64, .* got 1-D dtype int64"),
        ((np.zeros(8, np.uint8), 1), TypeError, "codes: expected .* got 1-D dtype uint8"),
        ((np.zeros((4, 7), np.uint8), 1), ValueError, "codes: expected codes of a multiple of 64 bits, got 56 bits"),
        ((np.zeros((4, 0), np.uint64), 1), ValueError, "codes: expected codes of a multiple of 64 bits, got 0 bits"),
        ((np.zeros(8, np.uint64)[::2], 1), ValueError, r"codes: expected C order, got strides \(16,\)"),
        ((np.zeros(4, np.uint64), 65), ValueError, "radius: expected 0 to 64, the bits of a code, got 65"),
        ((np.zeros(4, np.uint64), -1), ValueError, "radius: expected 0 to 64, the bits of a code, got -1"),
        ((np.zeros(4, np.uint64), 1, np.zeros((3, 4), np.uint64)), ValueError, "other: expected codes of 64 bits"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        hamming_pairs(*arguments)


def test_other_wrong_arguments_are_named() -> None:
    codes = np.zeros(4, np.uint64)
    with pytest.raises(ValueError, match="max_pairs: expected at least 0, got -1"):
        hamming_pairs(codes, 1, max_pairs=-1)
    with pytest.raises(ValueError, match="threads: expected None or at least 1, got 0"):
        hamming_components(codes, 1, threads=0)
    with pytest.raises(ValueError, match="order: expected every row once"):
        hamming_nearest_earlier(codes, np.zeros(4, np.int64), 1)
    with pytest.raises(TypeError):
        hamming_pairs(codes, 1.5)  # type: ignore[arg-type]


def test_the_top_package_has_them() -> None:
    assert pycurate.hamming_pairs is hamming_pairs
    assert pycurate.hamming_components is hamming_components
    assert pycurate.hamming_linkage is hamming_linkage
    assert pycurate.hamming_nearest_earlier is hamming_nearest_earlier


def slow_codes() -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 2**64, 400_000, dtype=np.uint64)


def test_progress_is_told_and_its_error_ends_the_call() -> None:
    seen: list[float] = []
    hamming_components(slow_codes()[:200_000], 11, threads=1, progress=seen.append)
    assert seen == sorted(seen)
    assert all(0 <= share <= 1 for share in seen)

    def fail(share: float) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        hamming_components(slow_codes(), 20, threads=1, progress=fail)


def test_ctrl_c_ends_the_call_within_a_second() -> None:
    codes = slow_codes()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    started = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        hamming_components(codes, 26, threads=2)
    assert time.monotonic() - started < 3
