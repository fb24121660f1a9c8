from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.io import subset as module
from pycurate.io.subset import Subset, SubsetDiff, SubsetOperation, diff, subset_algebra
from pycurate.types import UID_DTYPE, UidArray

COUNTERS: dict[SubsetOperation, Callable[[Counter[int], Counter[int]], Counter[int]]] = {
    "and": operator.and_,
    "or": operator.or_,
    "minus": operator.sub,
    "without": lambda a, b: Counter({uid: count for uid, count in a.items() if uid not in b}),
    "plus": operator.add,
}
OPERATORS: dict[SubsetOperation, Callable[[Subset, Subset], Subset]] = {
    "and": operator.and_,
    "or": operator.or_,
    "minus": operator.sub,
    "without": Subset.without,
    "plus": operator.add,
}


def uids_of(numbers: list[int]) -> UidArray:
    return np.array([(number >> 64, number & (2**64 - 1)) for number in numbers], UID_DTYPE)


def multiset(seed: int, rows: int = 200) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(high) << 64 | int(low) for high, low in rng.integers(0, 9, (rows, 2))]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)


@pytest.mark.parametrize("operation", COUNTERS)
@pytest.mark.parametrize("rows", [(200, 150), (0, 20), (20, 0), (0, 0)])
@pytest.mark.usefixtures("small_chunks")
def test_algebra_counts_copies_in_memory_and_on_disk(
    operation: SubsetOperation, rows: tuple[int, int], tmp_path: Path
) -> None:
    a, b = (multiset(seed, n) for seed, n in enumerate(rows))
    expected = sorted(COUNTERS[operation](Counter(a), Counter(b)).elements())
    left, right = Subset.from_uids(uids_of(a)), Subset.from_uids(uids_of(b))
    result = OPERATORS[operation](left, right)
    assert result == Subset(uids_of(expected))
    assert len(result) == len(expected)
    left.save(tmp_path / "a.npy")
    right.save(tmp_path / "b.npy")
    assert subset_algebra(operation, tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "out.npy") == len(expected)
    saved = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(saved, uids_of(expected))
    assert OPERATORS[operation](Subset.load(tmp_path / "a.npy"), Subset.load(tmp_path / "b.npy")) == result
    both = len(left & right)
    assert diff(left, right) == SubsetDiff(len(a) - both, len(b) - both, both)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy", "out.npy"]


def test_a_saved_subset_is_byte_for_byte_what_numpy_saves(tmp_path: Path) -> None:
    uids = np.sort(uids_of(multiset(1)))
    Subset(uids).save(tmp_path / "ours.npy")
    np.save(tmp_path / "numpy.npy", uids)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert np.load(tmp_path / "ours.npy", mmap_mode="r").dtype == np.dtype("u8,u8")
    uids.tofile(tmp_path / "bare.npy")
    assert Subset.load(tmp_path / "bare.npy") == Subset.load(tmp_path / "ours.npy") == Subset(uids)
    Subset(uids[:0]).save(tmp_path / "empty.npy")
    assert len(Subset.load(tmp_path / "empty.npy")) == 0


def test_hex_membership_and_facts() -> None:
    texts = ["F" * 32, "0" * 32, "00000000000000010000000000000002", "0" * 32]
    subset = Subset.from_hex(iter(texts))
    assert subset.uids.tolist() == [(0, 0), (0, 0), (1, 2), (2**64 - 1, 2**64 - 1)]
    assert (len(subset), subset.distinct) == (4, 3)
    assert "0" * 32 in subset
    assert (1, 2) in subset
    assert subset.uids[2] in subset
    assert (1, 3) not in subset
    assert subset.info() == {"rows": 4, "distinct": 3, "copies": 1, "first": "0" * 32, "last": "f" * 32}
    assert Subset.from_hex([]).info() == {"rows": 0, "distinct": 0, "copies": 0, "first": "", "last": ""}
    assert subset != Subset.from_hex(texts[:3])
    assert subset != texts
    assert repr(subset) == "Subset(4 rows of uids)"


@pytest.mark.parametrize("place", [0, 20])
@pytest.mark.parametrize("bad", ["abc", "g" * 32, "0" * 33])
@pytest.mark.usefixtures("small_chunks")
def test_a_wrong_text_is_named_by_its_place(place: int, bad: str) -> None:
    texts = ["0" * 32] * place + [bad, "1" * 32]
    with pytest.raises(InputError, match=rf"uid: expected 32 hex digits at row {place}, got '{bad}'"):
        Subset.from_hex(texts)


def test_from_uids_leaves_the_callers_array_alone() -> None:
    uids = uids_of([3, 1, 2])
    assert Subset.from_uids(uids) == Subset(uids_of([1, 2, 3]))
    np.testing.assert_array_equal(uids, uids_of([3, 1, 2]))
    ordered = uids_of([1, 2])
    assert Subset.from_uids(ordered).uids is ordered


@pytest.mark.usefixtures("small_chunks")
def test_an_unsorted_file_is_refused_before_it_decides_anything(tmp_path: Path) -> None:
    numbers = list(range(30))
    numbers[17] = 2
    np.save(tmp_path / "a.npy", uids_of(numbers))
    np.save(tmp_path / "b.npy", uids_of(list(range(40))))
    message = r"subset: .*a\.npy is not sorted.*row 17 is less than the row before it"
    for use in (lambda s: s.uids, lambda s: (0, 1) in s, lambda s: s.distinct, lambda s: s.save(tmp_path / "c.npy")):
        with pytest.raises(InputError, match=message):
            use(Subset.load(tmp_path / "a.npy"))
    for first, second in (("a.npy", "b.npy"), ("b.npy", "a.npy")):
        with pytest.raises(InputError, match=message):
            subset_algebra("or", tmp_path / first, tmp_path / second, tmp_path / "c.npy")
    assert not (tmp_path / "c.npy").exists()


def test_what_is_no_subset_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            Subset.load(path)

    refused(r"subset: cannot read .*x\.npy: No such file")
    np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)
    refused(r'expected .*x\.npy to hold dtype "u8,u8", got object; pickled objects are never loaded')
    np.save(path, np.zeros(4, np.uint64))
    refused(r'to hold dtype "u8,u8", got uint64')
    np.save(path, np.zeros((2, 2), UID_DTYPE))
    refused(r"to hold an array of shape \(n,\), got \(2, 2\)")
    np.save(path, np.zeros(4, UID_DTYPE))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(r"is truncated or has something appended: its header says 4 uids, which is 192 bytes, and it has 191")
    path.write_bytes(whole[:40])
    refused("has a broken .npy header")
    path.write_bytes(b"uid\n" + b"0" * 32)
    refused("is neither an .npy file nor a bare array of 16-byte uids: it has 36 bytes")
    with pytest.raises(InputError, match="operation: expected one of and, or, minus, without, plus, got 'xor'"):
        subset_algebra("xor", path, path, path)  # type: ignore[arg-type]
