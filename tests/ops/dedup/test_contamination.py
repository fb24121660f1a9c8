from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pycurate.ops.dedup import contamination
from pycurate.ops.dedup.contamination import (
    CaptionGrams,
    ItemHashes,
    Near,
    SortedKeys,
    caption_grams,
    caption_keys,
    near_by_embedding,
    near_by_grams,
    near_by_hash,
    near_by_key,
    widened,
)
from pycurate.ops.text.row_keys import normalise_caption
from pycurate.reference.rowwise import pair_similarity


def texts_of(random: np.random.Generator, rows: int, most: int = 9) -> list[str | None]:
    texts: list[str | None] = [
        " ".join(f"W{k}" for k in random.integers(0, 3, random.integers(0, most))) for _ in range(rows)
    ]
    texts[rows // 2] = None
    return texts


def plainly(near: np.ndarray) -> Near:
    """What is near from (rows, items) values, NaN where it is not."""
    hit = ~np.isnan(near)
    filled = np.where(hit, near, -np.inf)
    rows, touched = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
    items = filled[rows].argmax(axis=1)
    return Near(rows, items, filled[rows, items], touched, hit.sum(axis=0)[touched], filled.max(axis=0)[touched])


def assert_equal(found: Near, expected: Near) -> None:
    for name, a, b in zip(Near._fields, found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("most_pairs", [1 << 22, 3])
@pytest.mark.parametrize("n", [3, 5])
def test_grams_in_common_are_counted(monkeypatch: pytest.MonkeyPatch, n: int, most_pairs: int) -> None:
    monkeypatch.setattr(contamination, "_MOST_PAIRS", most_pairs)
    random = np.random.default_rng(n)
    rows, items = texts_of(random, 150), texts_of(random, 40)

    def grams(text: str | None) -> set[tuple[str, ...]]:
        words = normalise_caption(text or "").split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    near = np.array([[len(grams(row) & grams(item)) or np.nan for item in items] for row in rows], float)
    seen: set[str] = set()
    for i, item in enumerate(items):  # of equal captions the first
        if (key := normalise_caption(item or "")) in seen:
            near[:, i] = np.nan
        seen.add(key)
    captions = pa.array(items)
    made = caption_grams(captions, caption_keys(captions), n)
    assert_equal(near_by_grams(pa.array(rows), made), plainly(near))
    assert len(near_by_grams(pa.array(["a b"]), CaptionGrams(n, made.hashes[:0], made.items[:0])).rows) == 0


def test_equal_keys_are_near() -> None:
    rows, items = ["A  dog", "cat", None, "", "bird"], ["bird", "a dog", "A dog", "", None]
    found = near_by_key(caption_keys(pa.array(rows)), SortedKeys.of(caption_keys(pa.array(items))))
    assert found.rows.tolist() == [0, 4]
    assert found.items.tolist() == [1, 0]
    assert found.values.tolist() == [1, 1]
    assert dict(zip(found.touched.tolist(), found.counts.tolist(), strict=True)) == {0: 1, 1: 1}
    nothing = near_by_key(caption_keys(pa.array(rows)), SortedKeys.of(caption_keys(pa.array([None], pa.string()))))
    assert len(nothing.rows) == len(nothing.touched) == 0


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("most_pairs", [1 << 22, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_embeddings_are_compared_exactly(monkeypatch: pytest.MonkeyPatch, dtype: type, most_pairs: int) -> None:
    monkeypatch.setattr(contamination, "_MOST_PAIRS", most_pairs)
    random = np.random.default_rng(3)
    centres = random.normal(size=(6, 24))
    x = (centres[random.integers(0, 6, 90)] + 0.4 * random.normal(size=(90, 24))).astype(dtype)
    y = (centres[random.integers(0, 6, 30)] + 0.4 * random.normal(size=(30, 24))).astype(dtype)
    x[40], x[41], x[80], y[9], y[29] = x[3], x[3], x[12], y[2], y[2]
    x[7], y[5] = 0, np.nan
    near = pair_similarity(np.repeat(x, 30, axis=0), np.tile(y, (90, 1)), "cosine").reshape(90, 30).astype(float)
    near[~(near >= np.float32(0.8))] = np.nan
    near[:, [9, 29]] = np.nan  # of equal rows of y the first
    assert np.isfinite(near).sum() > 5
    found, unjudged = near_by_embedding(x, y, 0.8)
    assert_equal(found, plainly(near))
    assert unjudged.tolist() == [7]


def test_widening_changes_no_similarity() -> None:
    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    bits = (x.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    np.testing.assert_array_equal(widened(bits, "bfloat16").view(np.uint32) >> np.uint32(16), bits)
    np.testing.assert_array_equal(widened(x.astype(np.float16), "float16"), x.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("most_pairs", [1 << 22, 5])
@pytest.mark.parametrize("radius", [0, 6])
def test_hashes_are_compared_exactly(monkeypatch: pytest.MonkeyPatch, radius: int, most_pairs: int) -> None:
    monkeypatch.setattr(contamination, "_MOST_PAIRS", most_pairs)
    random = np.random.default_rng(4)
    centres = random.integers(0, 2**63, 5, dtype=np.uint64)
    flips = np.uint64(1) << random.integers(0, 64, (120, 3)).astype(np.uint64)
    codes = centres[random.integers(0, 5, 120)] ^ np.bitwise_xor.reduce(flips, axis=1)
    codes[[10, 11, 95, 96]] = codes[3]
    rows, items = codes[:80, None].copy(), codes[80:, None].copy()
    hashed, known = random.random(80) < 0.9, np.flatnonzero(random.random(40) < 0.9)
    distance = np.array([[(int(row) ^ int(item)).bit_count() for item in items[:, 0]] for row in rows[:, 0]])
    near = np.where((distance <= radius) & hashed[:, None], 1 - distance / 64, np.nan)
    near[:, np.setdiff1d(np.arange(40), known)] = np.nan
    for i, item in enumerate(items[:, 0]):  # of equal items the first
        if item in items[known[known < i], 0]:
            near[:, i] = np.nan
    found = near_by_hash(rows, hashed, ItemHashes(np.ascontiguousarray(items[known]), known), radius)
    assert_equal(found, plainly(near))
    assert len(found.rows)
