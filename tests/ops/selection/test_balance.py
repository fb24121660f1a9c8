from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycurate.errors import InputError
from pycurate.ops.selection.balance import class_caps, hierarchical_water_filling, water_filling
from pycurate.ops.selection.class_codes import ClassCodes
from pycurate.ops.selection.uid_draws import uid_keys
from pycurate.reference import balance as reference
from pycurate.types import UID_DTYPE

sizes_and_floors = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), min_size=1, max_size=12)


def uids_of(numbers: Any) -> np.ndarray:
    made = np.zeros(len(numbers), UID_DTYPE)
    made["f1"] = numbers
    return made


@settings(deadline=None, max_examples=200)
@given(sizes_and_floors, st.integers(1, 300))
def test_water_filling_is_its_definition(pairs: list[tuple[int, int]], total: int) -> None:
    sizes, floors = [s for s, _ in pairs], [f for _, f in pairs]
    if sum(map(min, sizes, floors)) > total:
        with pytest.raises(InputError, match="total: expected at least the"):
            water_filling(sizes, total, floors=floors)
        return
    found = water_filling(sizes, total, floors=floors)
    quotas, cap = reference.water_filling(sizes, total, floors)
    assert found.quotas.tolist() == quotas
    assert found.cap == cap
    assert found.quotas.sum() == min(total, sum(sizes))
    assert found.spare == found.quotas.sum() - sum(min(s, max(f, cap)) for s, f in zip(sizes, floors, strict=True))


def test_water_filling_is_exact_beyond_doubles() -> None:
    sizes = np.array([2**60, 2**60 + 3, 5])
    found = water_filling(sizes, 2**60 + 8)
    assert found.cap == 2**59 + 1
    assert found.quotas.tolist() == [2**59 + 1, 2**59 + 2, 5]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([3, 4], 0), "total: expected a whole number of at least 1, got 0"),
        (([3, 4], 2.5), "total: expected a whole number of at least 1, got 2.5"),
        (([3, -4], 2), "counts: expected numbers of at least 0, got -4"),
        (([3.0, 4.0], 2), "counts: expected whole numbers, got float64"),
        (([[3]], 2), r"counts: expected shape \(C,\), one number a class, got \(1, 1\)"),
    ],
)
def test_bad_budgets_are_named(arguments: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        water_filling(*arguments)


def test_a_hierarchy_shares_out_level_by_level() -> None:
    counts = [10, 2, 30, 7, 1]
    parents = [[0, 0, 1, 1, 2], [0, 0, 1]]
    quotas = hierarchical_water_filling(counts, parents, 20)
    # 49 rows above 0, 1 above 1: 19 and 1; 19 among clusters of 12 and 37: 9 and 10; 9 of (10, 2): 7 and 2; 10: 5, 5
    assert quotas.tolist() == [7, 2, 5, 5, 1]
    assert hierarchical_water_filling(counts, [], 20).tolist() == water_filling(counts, 20).quotas.tolist()
    assert hierarchical_water_filling(counts, parents, 999).tolist() == counts
    with pytest.raises(InputError, match=r"parents\[1\]: expected 3 classes as the level below, got 2"):
        hierarchical_water_filling(counts, [parents[0], [0, 0]], 20)


@pytest.mark.parametrize("by", ["hash", "float", "integer", "unsigned"])
def test_caps_are_their_definition_whatever_the_order(by: str) -> None:
    random = np.random.default_rng(0)
    n = 500
    labels = random.integers(-1, 6, n) * 7
    labels[labels < 0] = -1
    uids = uids_of(random.permutation(n))
    scores: Any = None
    if by == "hash":
        keys: list[Any] = uid_keys(uids, 3).tolist()
    else:
        scores = random.integers(0, 20, n).astype({"float": np.float32, "integer": np.int64, "unsigned": np.uint64}[by])
        if by == "float":
            scores[random.random(n) < 0.1] = np.nan
        keys = [None if value != value else -value for value in scores.tolist()]
    caps = {0: 10, 7: 0, 21: 200, 35: 3}
    full = {int(c): int((labels == c).sum()) for c in np.unique(labels[labels >= 0])}
    expected = np.array(reference.class_caps(labels.tolist(), full | caps, keys, uids["f1"].tolist()))
    found = class_caps(labels, caps, scores=scores, uids=uids, seed=3)
    np.testing.assert_array_equal(found.keep, expected)
    assert found.kept.tolist() == [int((expected & (labels == c)).sum()) for c in found.names]
    assert found.unlabelled == (labels < 0).sum()
    assert found.unscored == (0 if by != "float" else int((np.isnan(scores) & (labels >= 0)).sum()))
    order = random.permutation(n)
    again = class_caps(labels[order], caps, scores=None if scores is None else scores[order], uids=uids[order], seed=3)
    np.testing.assert_array_equal(again.keep, found.keep[order])


def test_a_larger_cap_keeps_what_a_smaller_one_kept_and_seeds_differ() -> None:
    labels = np.arange(3000) % 3
    small, large = class_caps(labels, 100), class_caps(labels, 300)
    assert not (small.keep & ~large.keep).any()
    assert class_caps(labels, 100, seed=1).keep.tolist() != small.keep.tolist()
    thirds = [small.keep[start : start + 1000].sum() for start in (0, 1000, 2000)]
    assert min(thirds) > 70  # a draw, not the first rows


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", None, "", "b"],
        np.array(["b", "a", None, "", "b"], object),
        np.array(["b", "a", "", "", "b"]),
        pa.array(["b", "a", None, "", "b"]),
        pa.chunked_array([["b", "a"], [None, "", "b"]]),
        pa.array(["b", "a", None, "", "b"]).dictionary_encode(),
    ],
    ids=["list", "objects", "text", "arrow", "chunks", "dictionary"],
)
def test_text_is_a_label_too(labels: Any) -> None:
    classes = ClassCodes.of(labels)
    assert classes.names.tolist() == ["a", "b"]
    assert classes.codes.tolist() == [1, 0, -1, -1, 1]
    assert classes.counts.tolist() == [1, 2]
    found = class_caps(labels, {"b": 1})
    assert (found.kept.tolist(), found.unlabelled) == ([1, 1], 2)


@pytest.mark.parametrize("labels", [pa.array([3, None, 1]), pa.chunked_array([[3, None], [1]]), [3, -1, 1]])
def test_whole_numbers_of_arrow(labels: Any) -> None:
    classes = ClassCodes.of(labels)
    assert (classes.names.tolist(), classes.codes.tolist()) == ([1, 3], [1, -1, 0])


def test_nothing_is_no_error() -> None:
    assert class_caps(np.empty(0, np.int64), 3).keep.tolist() == []
    assert class_caps(np.array([-1, -1]), 3).keep.tolist() == [False, False]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"caps": 0}, "caps: expected a whole number of at least 1, got 0; a cap of 0 keeps nothing"),
        ({"caps": -2}, "caps: expected a whole number of at least 1, got -2"),
        ({"caps": {2: -1}}, r"caps\[2\]: expected a whole number of at least 0, got -1"),
        ({"caps": {9: 1}}, "caps: class 9 has no row; the 2 that have begin 0, 2"),
        ({"caps": [1, 2, 3]}, "caps: expected one for each of the 2 classes with rows, got 3"),
        ({"labels": [0.5, 1, 2]}, "labels: expected whole numbers or text, got float64"),
        ({"labels": np.zeros((3, 2), int)}, r"labels: expected shape \(n,\), one label a row, got \(3, 2\)"),
        ({"labels": ["a", 3, None]}, "labels: expected whole numbers or text, got 3"),
        ({"scores": np.ones(2)}, r"scores: expected \(3,\) numbers, got \(2,\) of float64"),
        ({"scores": np.array(["a", "b", "c"])}, r"scores: expected \(3,\) numbers"),
        ({"uids": np.arange(3)}, "uids: expected an array of dtype 'u8,u8'"),
        ({"uids": np.zeros(2, UID_DTYPE)}, r"uids: expected shape \(3,\), one for each row, got \(2,\)"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        class_caps(**{"labels": np.array([0, 2, 2]), "caps": 1, **change})
