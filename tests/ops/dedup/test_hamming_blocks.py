from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.ops.dedup.hamming_blocks import BlockedCodes, block_duplicates
from pycurate.ops.dedup.perceptual import perceptual_duplicates
from pycurate.ops.dedup.sweeps import add_links, follow_links
from pycurate.reference import hamming as reference

REMOVALS = ["component", "greedy", "published"]


def clumps(n: int, words: int, seed: int) -> NDArray[np.uint64]:
    """Distinct codes, half of them near another one: chains, clumps and strangers."""
    random = np.random.default_rng([n, words, seed])
    codes = random.integers(0, 2**64, (n, words), dtype=np.uint64)
    for row in range(max(1, n // 2), n):
        codes[row] = codes[random.integers(row)]
        for bit in random.integers(0, 64 * words, random.integers(1, 8)):
            codes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    codes = np.unique(codes, axis=0)
    return np.ascontiguousarray(codes[random.permutation(len(codes))])


def by_blocks(codes: Any, radius: int, removal: Any, block_rows: int, max_pairs: int = 10**6) -> tuple[Any, Any]:
    duplicate_of, distances = np.full(len(codes), -7, np.int64), np.full(len(codes), -7, np.int32)
    block_duplicates(BlockedCodes(codes, radius, block_rows, max_pairs), removal, duplicate_of, distances)
    return duplicate_of, np.where(duplicate_of < 0, -1, distances)


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("radius", [0, 3, 10, 40])
def test_blocks_give_what_one_join_gives(removal: Any, words: int, radius: int) -> None:
    for n in (0, 1, 2, 33, 300):
        codes = clumps(n, words, radius)
        expected = perceptual_duplicates(codes, radius, np.arange(len(codes)), removal)
        bits = 64 * words
        for block_rows, max_pairs in ((1, 5), (7, 0), (50, 20), (1000, 10**6)):
            if block_rows == 1 and n > 50:
                continue
            duplicate_of, distances = by_blocks(codes, radius, removal, block_rows, max_pairs)
            np.testing.assert_array_equal(duplicate_of, expected.duplicate_of, err_msg=f"{n} {block_rows}")
            similarity = np.where(duplicate_of < 0, np.nan, 1 - distances / bits).astype(np.float32)
            np.testing.assert_array_equal(similarity, expected.similarity, err_msg=f"{n} {block_rows}")


def test_a_clump_in_many_blocks_holds_no_pairs() -> None:
    """3,000 codes all within 6 bits of each other."""
    random = np.random.default_rng(0)
    codes = np.zeros((3000, 1), np.uint64)
    for row in range(3000):
        for bit in random.integers(0, 64, 3):
            codes[row] |= np.uint64(1) << np.uint64(bit)
    codes = np.ascontiguousarray(np.unique(codes)[:, None])
    for removal in REMOVALS:
        duplicate_of, _ = by_blocks(codes, 12, removal, 500, max_pairs=100)
        assert (duplicate_of[1:] >= 0).all()
        assert duplicate_of[0] == -1


@pytest.mark.parametrize("seed", range(20))
def test_links_in_any_order_are_single_linkage(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 60))
    codes = clumps(n, 1, seed)
    n, radius = len(codes), 12
    rows, cols, between = reference.pairs_within(codes, radius)
    order = random.permutation(len(rows))
    swapped = random.random(len(rows)) < 0.5
    a, b = np.where(swapped, rows, cols)[order], np.where(swapped, cols, rows)[order]
    parents, levels = np.full(n, -1, np.int64), np.zeros(n, np.int32)
    for part in np.array_split(np.arange(len(a)), 3):
        add_links(parents, levels, a[part], b[part], between[order][part].astype(np.int32))
    follow_links(parents, levels)
    lowest = reference.components_within(codes, radius)
    np.testing.assert_array_equal(np.where(parents < 0, np.arange(n), parents), lowest)
    for row in np.flatnonzero(parents >= 0):
        level = int(levels[row])
        assert reference.components_within(codes, level)[row] == reference.components_within(codes, level)[lowest[row]]
        if level:
            below = reference.components_within(codes, level - 1)
            assert below[row] != below[lowest[row]]
