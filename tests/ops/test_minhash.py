from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import Isa
from pycurate.kernels.ngram import ShingleSets
from pycurate.ops.dedup.minhash import PRESETS, caption_shingles, missed_fraction, normalised_captions
from pycurate.ops.dedup.removal import component, greedy
from pycurate.ops.text.row_keys import normalise_caption
from pycurate.reference import ngram as reference

WORDS = [f"w{i}" for i in range(3000)]


def sentence(random: np.random.Generator, words: int) -> str:
    return " ".join(random.choice(WORDS, words))


def noisy_copies(n: int, seed: int = 0, words: int = 40) -> pa.Array:
    """One caption in n ways, each with another word in one place."""
    random = np.random.default_rng(seed)
    original = sentence(random, words).split()
    texts = []
    for i in range(n):
        changed = list(original)
        changed[random.integers(words)] = f"x{i}"
        texts.append(" ".join(changed))
    return pa.array(texts)


@pytest.mark.parametrize("similarity", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_estimates_are_unbiased(similarity: float) -> None:
    """500 pairs of sets of 50 to 60 hashes, 128 permutations of another seed each.

    The mean of the estimates is normal to high accuracy; it lies within 4 standard errors of the mean similarity, a
    fault of one in 16,000 by chance, and seeds are fixed. Their spread is that of independent draws, so that the
    permutations are as good as independent: the mean square of 500 errors has a standard error of 6 %, and 30 % is
    allowed.
    """
    random = np.random.default_rng(int(similarity * 100))
    pairs, permutations = 500, 128
    errors, variance = [], 0.0
    for seed in range(pairs):
        both = int(random.integers(50, 61))
        common = round(similarity * both)
        values = random.integers(0, 2**64, both, dtype=np.uint64)
        x, y = (
            values[: common + (both - common) // 2],
            np.concatenate([values[:common], values[common:][(both - common) // 2 :]]),
        )
        hashes = np.concatenate([np.sort(x), np.sort(y)])
        sets = ShingleSets(hashes, np.array([0, len(x), len(hashes)]), threads=1)
        signatures = sets.sign(np.arange(2), permutations, seed)
        exact = float(reference.jaccard(np.sort(x), np.sort(y)))
        errors.append(float(np.mean(signatures[0] == signatures[1])) - exact)
        variance += exact * (1 - exact) / permutations
    assert abs(np.mean(errors)) < 4 * np.sqrt(variance) / pairs
    assert np.sum(np.square(errors)) == pytest.approx(variance, rel=0.3)


def test_estimates_from_captions_are_unbiased() -> None:
    """The same from texts: consecutive numbers as words are what a weak hash would stumble over."""
    texts = pa.array([" ".join(str(k) for k in range(i, i + 30)) for i in range(0, 2000, 10)])
    sets = caption_shingles(texts, (1, 1))
    pairs = np.arange(len(texts) - 1)
    exact = sets.jaccard(pairs, pairs + 1)
    assert set(exact.tolist()) == {0.5}
    estimates = []
    for seed in range(20):
        signatures = pycurate.minhash_signatures(texts, n=1, permutations=64, seed=seed).signatures
        estimates.append((signatures[:-1] == signatures[1:]).mean())
    # 20 x 64 permutations of 199 pairs; neighbours share elements, which the factor 2 more than covers.
    assert abs(np.mean(estimates) - 0.5) < 4 * 2 * np.sqrt(0.25 / (20 * 64 * 199))


def test_normalisation_is_that_of_captions() -> None:
    texts = ["Straße  ROT", "STRASSE rot", "ﬁne", "FINE", " fine\t", "É\u0301", "Ω", "ａｂ", None, "日本　語"]
    normalised = normalised_captions(pa.array(texts))
    sets = caption_shingles(pa.array(texts), 1)
    plain = caption_shingles(
        pa.array([normalise_caption(t) if t is not None else "" for t in texts]), 1, normalise=False
    )
    np.testing.assert_array_equal(sets.hashes, plain.hashes)
    assert normalised[9].as_py() == "日本 語"
    assert sets.copy_of.tolist()[:5] == [-1, 0, -1, 2, 2]
    characters = caption_shingles(pa.array(["A  b", " a b ", "ａ\u2003b"]), 3, "characters")
    assert characters.copy_of.tolist() == [-1, 0, 0]
    raw = caption_shingles(pa.array(["A  b", "a b", "a b "]), 3, "characters", normalise=False)
    assert raw.copy_of.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_empty_captions_are_unjudged_and_short_ones_one_shingle(kind: pa.DataType) -> None:
    captions = pa.array(["red house", None, "", " \u3000 ", "RED house", "a b c d"], kind)
    found = pycurate.minhash_pairs(captions)
    assert found.unjudged.tolist() == [1, 2, 3]
    assert found.copy_of.tolist() == [-1, -1, -1, -1, 0, -1]
    signed = pycurate.minhash_signatures(captions, n=5, permutations=16)
    assert signed.shingles.tolist() == [1, 0, 0, 0, 1, 1]
    assert signed.unjudged.tolist() == [1, 2, 3]
    assert (signed.signatures[1] == 0xFFFFFFFF).all()
    assert signed.signatures.dtype == np.uint32
    assert pycurate.minhash_components(captions).tolist() == [0, 1, 2, 3, 0, 5]
    assert len(pycurate.minhash_pairs(pa.array([], kind)).rows) == 0
    assert pycurate.minhash_pairs(captions[4:], preset="minhash").copy_of.tolist() == [-1, -1]


def test_planted_near_copies_are_found() -> None:
    random = np.random.default_rng(5)
    texts = [sentence(random, 30) for _ in range(2000)]
    for i in range(0, 400, 2):
        words = texts[i].split()
        words[0] = "another"  # 2 of its 29 + 28 shingles change
        texts[i + 1] = " ".join(words)
    found = pycurate.minhash_pairs(pa.array(texts))
    np.testing.assert_array_equal(found.rows, np.arange(0, 400, 2))
    np.testing.assert_array_equal(found.cols, np.arange(1, 400, 2))
    np.testing.assert_array_equal(found.similarities, np.float32(55 / 59))
    assert found.missed_at_threshold == pytest.approx((1 - 0.7**4) ** 32)
    assert all(type(array) is np.ndarray for array in (found.rows, found.cols, found.copy_of))


@pytest.mark.parametrize("threads", [1, 2])
def test_pairs_do_not_depend_on_the_seed_once_bands_are_many(threads: int) -> None:
    captions = noisy_copies(60)
    first = pycurate.minhash_pairs(captions, 0.8, bands=64, rows=2, seed=1, threads=threads)
    second = pycurate.minhash_pairs(captions, 0.8, bands=128, rows=1, seed=2)
    sets = caption_shingles(captions, (2, 3))
    brute = reference.pairs_above(sets.hashes, sets.starts, 0.8)
    for found in (first, second):
        np.testing.assert_array_equal(found.rows, brute[0])
        np.testing.assert_array_equal(found.cols, brute[1])
        np.testing.assert_array_equal(found.similarities, brute[2])


def test_the_missed_fraction_is_as_stated() -> None:
    """Sets of 80 hashes at similarity 1/2, 8 bands of 4: missed with probability (1 - 1/16)**8 = 0.597."""
    random = np.random.default_rng(0)
    missed, pairs = 0, 800
    for seed in range(pairs):
        values = random.integers(0, 2**64, 80, dtype=np.uint64)
        x, y = np.sort(values[:60]), np.sort(np.concatenate([values[:40], values[60:]]))
        sets = ShingleSets(np.concatenate([x, y]), np.array([0, 60, 120]), threads=1)
        found = sets.pairs_above(0.5, 8, 4, seed, 10)
        assert found is not None
        missed += not len(found[0])
    expected = missed_fraction(0.5, 8, 4)
    assert expected == pytest.approx(0.59672, abs=1e-5)
    assert abs(missed / pairs - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs)


def test_a_clump_of_copies_and_of_near_copies_takes_no_memory_for_pairs() -> None:
    """100,000 copies are one set; 20,000 near-copies are 200 million pairs, which components do not hold."""
    copies = pycurate.minhash_pairs(pa.array(["the same caption again and again"] * 100_000))
    assert (copies.copy_of[1:] == 0).all()
    assert len(copies.rows) == 0
    near = noisy_copies(20_000)
    with pytest.raises(InputError, match="max_pairs: expected at most 1,000 pairs of captions"):
        pycurate.minhash_pairs(near, max_pairs=1000)
    assert (pycurate.minhash_components(near) == 0).all()


@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("removal", ["greedy", "component"])
def test_removal_is_that_of_the_pairs(isa: Isa, threshold: float, removal: str) -> None:
    random = np.random.default_rng(9)
    texts = [" ".join(map(str, random.integers(0, 6, random.integers(0, 6)))) for _ in range(700)]
    captions, rank = pa.array(texts), random.permutation(700)
    options = {"n": (1, 2), "bands": 40, "rows": 2}
    pairs = pycurate.minhash_pairs(captions, threshold, **options)
    given = (700, pairs.rows, pairs.cols, pairs.similarities, rank, threshold)
    found = pycurate.minhash_duplicates(captions, rank, threshold, removal=removal, **options)
    if removal == "greedy":
        expected = greedy(*given, copy_of=pairs.copy_of)
        np.testing.assert_array_equal(found.similarity, expected.similarity)
    else:
        expected = component(*given, copy_of=pairs.copy_of)
        removed = np.flatnonzero(found.duplicate_of >= 0)
        sets = caption_shingles(captions, (1, 2))
        np.testing.assert_array_equal(found.similarity[removed], sets.jaccard(removed, found.duplicate_of[removed]))
    np.testing.assert_array_equal(found.duplicate_of, expected.duplicate_of)
    assert 0 < found.kept.sum() < 700


def test_a_removed_caption_is_compared_with_kept_ones_only() -> None:
    """20,000 near-copies: 200 million pairs, of which greedy removal looks at 20,000."""
    captions = noisy_copies(20_000)
    found = pycurate.minhash_duplicates(captions, np.arange(20_000)[::-1].copy())
    assert np.flatnonzero(found.kept).tolist() == [19_999]
    assert (found.duplicate_of[:-1] == 19_999).all()
    with pytest.raises(ValueError, match="rank: expected each of 0 to 1 once"):
        pycurate.minhash_duplicates(captions[:2], np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="removal: expected 'greedy' or 'component', got 'published'"):
        pycurate.minhash_duplicates(captions[:2], np.arange(2), removal="published")  # type: ignore[arg-type]


def test_presets_are_those_of_the_field() -> None:
    rules = {name: (p.n, p.of, p.bands, p.rows, p.threshold) for name, p in PRESETS.items()}
    assert rules == {
        "minhash": (5, "words", 14, 8, 0.75),
        "minhash-256": (5, "words", 25, 10, 0.7),
        "minhash-captions": ((2, 3), "words", 32, 4, 0.7),
    }
    assert missed_fraction(0.75, 14, 8) == pytest.approx(0.23, abs=0.005)  # FineWeb says 77 % are found
    assert missed_fraction(0.85, 14, 8) == pytest.approx(0.012, abs=0.0005)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"preset": "minhash-128"}, ValueError, "preset: expected 'minhash-captions', 'minhash' or 'minhash-256'"),
        ({"threshold": 1.5}, ValueError, r"threshold: expected a Jaccard similarity in \[0, 1\], got 1.5"),
        ({"threshold": float("nan")}, ValueError, "threshold: expected a number, got NaN"),
        ({"bands": 0}, ValueError, "bands, rows: expected at least 1 each, got 0 and 4"),
        ({"n": (3, 2)}, ValueError, "n: expected 1 <= least <= largest"),
        ({"of": "bytes"}, ValueError, "of: expected 'words' or 'characters', got 'bytes'"),
        ({"max_pairs": -1}, ValueError, "max_pairs: expected at least 0, got -1"),
    ],
)
def test_bad_options_are_named(options: dict, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        pycurate.minhash_pairs(pa.array(["a"]), **options)


@pytest.mark.parametrize("captions", [["a"], pa.array([1]), pa.chunked_array([["a"]])])
def test_what_is_no_text_column_is_refused(captions) -> None:
    with pytest.raises(InputError, match="captions: expected an Arrow array of string"):
        pycurate.minhash_pairs(captions)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_extreme_thresholds(threshold: float) -> None:
    captions = pa.array(["a b c", "a b c", "a b d", "x y z"])
    found = pycurate.minhash_pairs(captions, threshold, bands=128, rows=1)
    pairs = list(zip(found.rows.tolist(), found.cols.tolist(), strict=True))
    assert pairs == ([(0, 2)] if threshold == 0 else [])


def test_real_web_captions(shared_data: Path) -> None:
    """Every pair that trying each finds among 2,000 captions; 12 rows repeat the caption of an earlier one."""
    captions = pq.read_table(shared_data / "laion_sample_10k" / "captions.parquet")["caption"].combine_chunks()
    found = pycurate.minhash_pairs(captions, 0.5)
    assert int((found.copy_of >= 0).sum()) >= 12
    part = captions[:2000]
    sets = caption_shingles(part, (2, 3))
    brute = reference.pairs_above(sets.hashes, sets.starts, 0.5)
    inside = {(r, c) for r, c in zip(found.rows.tolist(), found.cols.tolist(), strict=True) if c < 2000}
    expected = {
        (r, c)
        for r, c in zip(brute[0].tolist(), brute[1].tolist(), strict=True)
        if {r, c} <= set(sets.distinct.tolist())
    }
    assert inside == expected


def test_real_news(shared_data: Path) -> None:
    with (shared_data / "ag_news_test" / "test.csv").open(newline="") as file:
        captions = pa.array([" ".join(row[1:]) for row in csv.reader(file)])
    assert len(captions) == 7600
    found = pycurate.minhash_pairs(captions, 0.5)
    more = pycurate.minhash_pairs(captions, 0.5, bands=128, rows=1)
    assert set(zip(found.rows, found.cols, strict=True)) <= set(zip(more.rows, more.cols, strict=True))
    assert len(more.rows) - len(found.rows) <= 3 * len(more.rows) * found.missed_at_threshold + 1
    labels = pycurate.minhash_components(captions, 0.5)
    for i, j in itertools.islice(zip(found.rows, found.cols, strict=True), 50):
        assert labels[i] == labels[j]
