from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index import rows as index_rows
from pycurate.kernels.fused_similarity import nearest
from pycurate.ops.labels.pseudo_labels import class_means, zero_shot_labels
from pycurate.types import UID_DTYPE


def images(n: int, classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    texts = random.normal(size=(classes, 12))
    x = texts[random.integers(0, classes, n)] * 0.5 + random.normal(size=(n, 12))
    return x.astype(np.float32), texts.astype(np.float32)


def similarities(x: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float32]:
    found = nearest(x, len(texts), texts)
    result = np.full((len(x), len(texts)), np.nan, np.float32)
    rows = np.flatnonzero(found.indices[:, 0] >= 0)
    np.put_along_axis(result[rows], found.indices[rows], found.similarities[rows], axis=1)
    filled = result.copy()
    for row in rows:
        filled[row, found.indices[row]] = found.similarities[row]
    return filled


def spilled_by_hand(s: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """All pairs from the most similar down; a pair counts while its row is free and its class has room."""
    labels, held = np.full(len(s), -1), np.zeros(s.shape[1], int)
    for cell in np.argsort(-s, axis=None, kind="stable"):
        row, c = divmod(int(cell), s.shape[1])
        if not np.isnan(s[row, c]) and labels[row] < 0 and held[c] < k:
            labels[row] = c
            held[c] += 1
    return labels


@pytest.mark.parametrize("k", [None, 1, 7, 1000])
@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.usefixtures("isa")
def test_each_class_gets_its_best_rows(k: int | None, small_blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small_blocks:
        monkeypatch.setattr(index_rows, "BLOCK_BYTES", 12 * 4 * 17)
    x, texts = images(300, 6)
    x[4], x[9] = 0, np.nan
    s = similarities(x, texts)
    found = zero_shot_labels(x, texts, k, threads=2)
    judged = ~np.isnan(s[:, 0])
    best = np.where(judged, np.nan_to_num(s, nan=-2).argmax(axis=1), -1)
    expected = np.full(300, -1)
    for c in range(6):
        rows = np.flatnonzero(best == c)
        rows = rows[np.argsort(-s[rows, c], kind="stable")][:k]
        expected[rows] = c
    np.testing.assert_array_equal(found.labels, expected)
    chosen = found.labels >= 0
    np.testing.assert_array_equal(found.scores[chosen], s[chosen, found.labels[chosen]])
    assert np.isnan(found.scores[~chosen]).all()
    assert found.unjudged.tolist() == [4, 9]
    assert found.counts.sum() == chosen.sum()
    assert found.short.tolist() == [c for c in range(6) if k is not None and found.counts[c] < k]
    assert (np.diff(found.labels[found.selected]) >= 0).all()


@pytest.mark.parametrize("k", [1, 3, 20, 60, 400])
@pytest.mark.parametrize("uids", [False, True])
def test_spilling_is_the_stable_outcome_whatever_the_order(k: int, uids: bool) -> None:
    x, texts = images(300, 6, seed=1)
    x[7] = np.inf
    x[20:30] = x[3]
    keys = np.zeros(300, UID_DTYPE)
    keys["f0"] = np.arange(300)
    found = zero_shot_labels(x, texts, k, spill=True, uids=keys if uids else None)
    np.testing.assert_array_equal(found.labels, spilled_by_hand(similarities(x, texts), k))
    order = np.random.default_rng(0).permutation(300)
    moved = zero_shot_labels(x[order], texts, k, spill=True, uids=keys[order])
    np.testing.assert_array_equal(moved.labels, found.labels[order])
    assert found.unjudged.tolist() == [7]


def test_spilling_stops_at_a_minimum() -> None:
    x, texts = images(100, 3)
    s = similarities(x, texts)
    found = zero_shot_labels(x, texts, 50, spill=True, minimum=0.3)
    s[s < np.float32(0.3)] = np.nan
    np.testing.assert_array_equal(found.labels, spilled_by_hand(s, 50))


def test_ranking_by_probability_and_a_minimum() -> None:
    x, texts = images(200, 4)
    s = similarities(x, texts).astype(np.float64)
    p = np.exp(20 * s) / np.exp(20 * s).sum(axis=1, keepdims=True)
    found = zero_shot_labels(x, texts, 10, rank_by="probability", scale=20, minimum=0.9)
    for c in range(4):
        rows = np.flatnonzero((s.argmax(axis=1) == c) & (p[:, c] >= 0.9))
        expected = rows[np.argsort(-p[rows, c])][:10]
        assert set(np.flatnonzero(found.labels == c)) == set(expected)
        np.testing.assert_allclose(found.scores[expected], p[expected, c], rtol=1e-5)


def test_ties_go_to_the_lower_row_or_uid() -> None:
    x = np.ones((6, 3), np.float32)
    assert zero_shot_labels(x, x[:2], 2).labels.tolist() == [0, 0, -1, -1, -1, -1]
    uids = np.zeros(6, UID_DTYPE)
    uids["f1"] = [5, 4, 3, 2, 1, 0]
    assert zero_shot_labels(x, x[:2], 2, uids=uids).labels.tolist() == [-1, -1, -1, -1, 0, 0]
    assert zero_shot_labels(x, x[:2], 2, spill=True, uids=uids).labels.tolist() == [-1, -1, 1, 1, 0, 0]


def test_a_table_has_nulls_for_rows_without_a_label() -> None:
    x, texts = images(30, 3)
    found = zero_shot_labels(x, texts, 2)
    table = found.to_arrow()
    assert table["label"].to_pylist() == [None if label < 0 else label for label in found.labels.tolist()]
    assert table["score"].null_count == 24


def test_mixed_precision_and_a_memory_map(tmp_path: Path) -> None:
    x, texts = images(80, 4)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = zero_shot_labels(mapped, texts, 5)
    again = zero_shot_labels(x.astype(np.float16).astype(np.float32), texts, 5)
    np.testing.assert_array_equal(found.labels, again.labels)
    assert zero_shot_labels(x[:0], texts, 5).labels.shape == (0,)
    assert zero_shot_labels(x[:0], texts, 5, spill=True).short.tolist() == [0, 1, 2, 3]


def test_class_means_are_of_unit_rows() -> None:
    x, _ = images(50, 3)
    labels = np.arange(50) % 3
    labels[5] = -1
    x[8] = np.nan
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    means = np.stack([unit[(labels == c) & (np.arange(50) != 8)].mean(axis=0) for c in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(class_means(x, labels, 3), means, atol=1e-6)
    with pytest.raises(InputError, match="class 3 has no row that can be judged"):
        class_means(x, labels, 4)
    with pytest.raises(InputError, match="class 0 has rows whose mean is zero"):
        class_means(np.array([[1, 0], [-1, 0]], np.float32), np.zeros(2, np.int64), 1)


def test_bad_input_is_named() -> None:
    x, texts = images(20, 3)
    with pytest.raises(InputError, match="spill: needs k"):
        zero_shot_labels(x, texts, spill=True)
    with pytest.raises(InputError, match="spill: rows are ranked by similarity"):
        zero_shot_labels(x, texts, 3, spill=True, rank_by="probability")
    with pytest.raises(InputError, match="class_embeddings: expected 12 elements as x has, got 5"):
        zero_shot_labels(x, texts[:, :5].copy())
    with pytest.raises(InputError, match="class_embeddings: class 1 is zero or not finite"):
        zero_shot_labels(x, np.stack([texts[0], 0 * texts[0]]))
    with pytest.raises(InputError, match="class_embeddings: expected at least one class"):
        zero_shot_labels(x, texts[:0])
    with pytest.raises(InputError, match="k: expected a whole number of at least 1"):
        zero_shot_labels(x, texts, 0)
    with pytest.raises(InputError, match="scale: expected a number above 0"):
        zero_shot_labels(x, texts, 3, scale=0)
    with pytest.raises(ValueError, match="rank_by: expected 'similarity' or 'probability'"):
        zero_shot_labels(x, texts, 3, rank_by="score")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"uids: expected \(20,\) uids"):
        zero_shot_labels(x, texts, 3, uids=np.zeros(2, UID_DTYPE))
