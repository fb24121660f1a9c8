from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycurate.kernels import Isa
from pycurate.kernels.ngram import ShingleSets, band_keys, shingle_sets, sign_texts
from pycurate.reference import ngram as reference

SPACES = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()]
SHAPES = [((1, 1), "words"), ((5, 5), "words"), ((2, 3), "words"), ((3, 3), "characters"), ((1, 4), "characters")]


def buffers(texts: list[bytes], offset_type: type = np.int32) -> tuple[np.ndarray, np.ndarray]:
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)]).astype(offset_type)


def random_sets(seed: int, n: int, alphabet: int = 12, most: int = 9) -> ShingleSets:
    random = np.random.default_rng(seed)
    texts = [" ".join(map(str, random.integers(0, alphabet, random.integers(0, most)))).encode() for _ in range(n)]
    return shingle_sets(*buffers(texts), (1, 2), "words")


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("offset_type", [np.int32, np.int64])
@pytest.mark.parametrize(("n", "of"), SHAPES)
def test_sets_are_those_of_the_reference(n: tuple[int, int], of: str, offset_type: type, fold: bool) -> None:
    texts = [
        "",
        " ",
        "one",
        " Two WORDS ",
        "a\u200bb",
        "日本 語　三",
        "Naïve Café",
        "\x85\xa0x",
        "x" * 200,
        "y Z " * 60,
    ]
    texts += [f"a{space}{space}b{space}" for space in SPACES] + ["\0", "a\0", "@AZ[`az{"]
    texts += ["".join(map(chr, range(start, start + 64))) for start in range(0, 0x3100, 64)]
    encoded = [text.encode() for text in texts]
    sets = shingle_sets(*buffers(encoded, offset_type), n, of, fold=fold)
    hashes, starts = reference.shingle_sets(encoded, *n, of, fold)
    np.testing.assert_array_equal(sets.starts, starts)
    np.testing.assert_array_equal(sets.hashes, hashes)


@given(texts=st.lists(st.binary(max_size=40), max_size=4))
@settings(deadline=None)
@pytest.mark.parametrize(("n", "of"), [((2, 3), "characters"), ((1, 2), "words")])
def test_any_bytes(n: tuple[int, int], of: str, texts: list[bytes]) -> None:
    sets = shingle_sets(*buffers(texts), n, of)
    np.testing.assert_array_equal(sets.hashes, reference.shingle_sets(texts, *n, of, True)[0])


def test_a_text_of_fewer_tokens_is_one_shingle() -> None:
    sets = shingle_sets(*buffers([b"a b c", b"a b c d e", b"a b", b""]), (5, 5))
    assert sets.sizes.tolist() == [1, 1, 1, 0]
    assert len(np.unique(sets.hashes)) == 3


@pytest.mark.parametrize("permutations", [1, 3, 7, 8, 9, 31, 32, 33, 47, 128])
def test_signatures_are_those_of_the_reference(isa: Isa, permutations: int) -> None:
    texts = [b"", b"x", b"a photo of a red house by the river", b"A photo  of a red house", b"y " * 300]
    signatures, counts = sign_texts(*buffers(texts), (2, 3), permutations=permutations, seed=-3)
    a, b = reference.permutation_parameters(permutations, -3)
    hashes = [np.array(reference.shingle_hashes(t, 2, 3, "words", True), np.uint64) for t in texts]
    np.testing.assert_array_equal(signatures, [reference.min_hash(h, a, b) for h in hashes])
    assert counts.tolist() == [len(h) for h in hashes]
    sets = shingle_sets(*buffers(texts), (2, 3))
    np.testing.assert_array_equal(sets.sign(np.arange(5), permutations, -3), signatures)


@given(
    hashes=st.lists(st.integers(0, 2**64 - 1), max_size=20, unique=True),
    permutations=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_hashes(isa: Isa, hashes: list[int], permutations: int, seed: int) -> None:
    values = np.array(sorted(hashes), np.uint64)
    sets = ShingleSets(values, np.array([0, len(values)]), threads=1)
    a, b = reference.permutation_parameters(permutations, seed)
    np.testing.assert_array_equal(sets.sign(np.array([0]), permutations, seed)[0], reference.min_hash(values, a, b))


def test_nothing_and_a_slice_of_a_larger_buffer() -> None:
    data = np.frombuffer(b"skip me one two three", np.uint8)
    sets = shingle_sets(data, np.array([8, 11, 21]), (1, 1))
    np.testing.assert_array_equal(sets.hashes, shingle_sets(*buffers([b"one", b"two three"]), (1, 1)).hashes)
    assert sign_texts(data, np.array([5]), (1, 1), permutations=4, seed=0)[0].shape == (0, 4)
    empty = shingle_sets(np.empty(0, np.uint8), np.array([0, 0]), (1, 1))
    assert empty.starts.tolist() == [0, 0]
    assert empty.copy_of.tolist() == [-1]
    assert [len(part) for part in empty.pairs_above(0, 2, 2, 0, 10)] == [0, 0, 0]
    assert empty.components_above(0, 2, 2, 0).tolist() == [0]


def test_band_keys_are_those_of_the_reference() -> None:
    signatures = random_sets(0, 50).sign(np.arange(50), 12, 7)
    for bands, rows in [(1, 12), (4, 3), (12, 1)]:
        expected = [reference.band_keys(signature, bands, rows) for signature in signatures]
        np.testing.assert_array_equal(band_keys(signatures, bands, rows), np.array(expected, np.uint64))


def test_copies_are_equal_sets() -> None:
    sets = random_sets(1, 3000, alphabet=4, most=4)
    seen: dict[bytes, int] = {}
    expected = []
    for i, (begin, end) in enumerate(pairwise(sets.starts)):
        first = seen.setdefault(sets.hashes[begin:end].tobytes(), i)
        expected.append(first if first != i and end > begin else -1)
    assert sets.copy_of.tolist() == expected
    assert (sets.copy_of >= 0).any()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 1 / 3, 1.0])
def test_pairs_are_those_of_trying_each(threshold: float, threads: int) -> None:
    """One value a band and 256 bands: a pair at 0.3 is missed with probability 0.7**256."""
    sets = random_sets(2, 400)
    sets = ShingleSets(sets.hashes, sets.starts, threads)
    rows, cols, similarities = reference.pairs_above(sets.hashes, sets.starts, threshold)
    distinct = np.isin(rows, sets.distinct) & np.isin(cols, sets.distinct)
    found = sets.pairs_above(threshold, 256, 1, 5, 10**6)
    assert found is not None
    np.testing.assert_array_equal(found[0], rows[distinct])
    np.testing.assert_array_equal(found[1], cols[distinct])
    np.testing.assert_array_equal(found[2], similarities[distinct])
    np.testing.assert_array_equal(sets.jaccard(rows, cols), similarities)
    assert sets.pairs_above(threshold, 256, 1, 5, len(found[0])) is not None
    if len(found[0]):
        assert sets.pairs_above(threshold, 256, 1, 5, len(found[0]) - 1) is None


@pytest.mark.parametrize("threshold", [0.4, 0.6, 1.0])
def test_components_are_those_of_the_pairs(threshold: float) -> None:
    sets = random_sets(3, 1500)
    found = sets.pairs_above(threshold, 64, 2, 5, 10**6)
    assert found is not None
    labels = np.arange(len(sets))
    edges = list(zip(found[0], found[1], strict=True))
    edges += [(first, copy) for copy, first in enumerate(sets.copy_of) if first >= 0]
    for _ in range(len(sets)):  # the plainest label propagation
        before = labels.copy()
        for i, j in edges:
            labels[i] = labels[j] = min(labels[i], labels[j])
        if np.array_equal(before, labels):
            break
    np.testing.assert_array_equal(sets.components_above(threshold, 64, 2, 5), labels)


BYTES = np.zeros(4, np.uint8)


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda: shingle_sets(np.zeros(4, np.int8), np.array([0, 4]), (1, 1)), TypeError, "data: expected dtype uint8"),
        (lambda: shingle_sets(BYTES, np.array([0.0]), (1, 1)), TypeError, "offsets: expected dtype int32 or int64"),
        (lambda: shingle_sets(BYTES, np.array([0, 2, 5]), (1, 1)), ValueError, "offsets: row 1 points outside data"),
        (lambda: shingle_sets(BYTES, np.array([0, 3, 2]), (1, 1)), ValueError, "offsets: row 1 points outside data"),
        (lambda: shingle_sets(BYTES, np.array([-1, 2]), (1, 1)), ValueError, "offsets: row 0 points outside data"),
        (lambda: shingle_sets(BYTES, np.array([0, 4, 0])[::2], (1, 1)), ValueError, "offsets: expected a contiguous"),
        (lambda: shingle_sets(BYTES, np.empty(0, np.int64), (1, 1)), ValueError, r"offsets: expected .* \(n \+ 1,\)"),
        (lambda: shingle_sets(BYTES, np.array([0, 4]), (0, 1)), ValueError, "n: expected 1 <= least <= largest"),
        (lambda: shingle_sets(BYTES, np.array([0, 4]), (3, 2)), ValueError, "n: expected 1 <= least <= largest"),
        (lambda: shingle_sets(BYTES, np.array([0, 4]), (1, 1), "bytes"), ValueError, "of: expected 'words' or"),
        (
            lambda: sign_texts(BYTES, np.array([0, 4]), (1, 1), permutations=0, seed=0),
            ValueError,
            "permutations: expected 1 to 65,536, got 0",
        ),
        (lambda: band_keys(np.zeros((2, 6), np.uint32), 2, 2), ValueError, "bands, rows: expected .* got 2 x 2 for 6"),
        (lambda: random_sets(0, 3).jaccard(np.array([3]), np.array([0])), ValueError, "rows: expected numbers of sets"),
        (lambda: ShingleSets(np.zeros(2, np.uint64), np.array([0, 3])).copy_of, ValueError, "starts: expected"),
    ],
)
def test_bad_arguments_are_named(call, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        call()
