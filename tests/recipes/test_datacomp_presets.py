"""The DataComp presets against plain renditions of the public script's rules, end to end: the same uids."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pycurate import Recipe, run
from pycurate.steps import detectors
from pycurate.types import UID_DTYPE

ROWS = 300
SHARDS = 3
TEXTS = [
    "en dogs in the garden",
    "de ein Hund",
    "en dog",
    "en\u00a0a\u3000dog\u2003x",
    "en a",
    "en\na dog here",
    "",
    "a b c d",
    "en x y",
    "en the cat sat",
]


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Path:
    """Scores with ties and NaN, sizes at the edges of the rules, several languages."""
    generator = np.random.default_rng(3)
    total = ROWS * SHARDS
    b32, l14 = (generator.normal(0.28, 0.03, total).round(3).astype(np.float32) for _ in range(2))
    l14[generator.random(total) < 0.05] = np.nan
    sizes = np.array([0, 66, 67, 199, 200, 201, 400, 600, 601, 1200])
    return Path(
        pool_factory.datacomp(
            tmp_path / "pool",
            shards=SHARDS,
            rows=ROWS,
            clip_b32_similarity_score=b32,
            clip_l14_similarity_score=l14,
            text=generator.choice(TEXTS, total).tolist(),
            original_width=generator.choice(sizes, total),
            original_height=generator.choice(sizes, total),
        )
    )


def the_script(pool: Path, keep: Callable[[pd.DataFrame], Any]) -> np.ndarray:
    """Uids of the rows that ``keep`` says, shard by shard, sorted, as the script writes them."""
    kept: list[tuple[int, int]] = []
    for path in sorted(pool.glob("*.parquet")):
        frame = pd.read_parquet(path)
        kept += [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in frame.uid[keep(frame)]]
    uids = np.array(kept, UID_DTYPE)
    uids.sort()
    return uids


def ours(pool: Path, out: Path, preset: str, **parameters: Any) -> np.ndarray:
    # Threads, because the stand-ins for language packages exist in this process only.
    result = run(Recipe.load(preset, **parameters), pool, out, report=False, processes=False)
    return np.load(result.subset)


def first_word(text: str) -> str:
    """Stands in for a language identifier: the caption's first word when it is a code."""
    word = text.split(" ")[0][:2]
    return word if word in ("en", "de") else "und"


@pytest.fixture
def fasttext_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A model file for a stand-in of the fastText package that says ``first_word``."""

    class Model:
        def predict(self, texts: list[str], k: int) -> Any:
            assert not any("\n" in text for text in texts)
            return [[f"__label__{first_word(text)}"] for text in texts], [[1.0]] * len(texts)

    package = types.ModuleType("fasttext")
    package.FastText = types.SimpleNamespace(eprint=print)  # type: ignore[attr-defined]
    package.load_model = lambda path: Model()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fasttext", package)
    detectors._fasttext.cache_clear()
    model = tmp_path / "lid.bin"
    model.write_bytes(b"stand-in")
    return str(model)


def english(frame: pd.DataFrame) -> pd.Series:
    return frame.text.apply(lambda text: first_word(text.replace("\n", " "))) == "en"


def wordnet_reader(folder: Path) -> Any:
    """nltk's reader on a folder, without the map to other versions, which needs nltk's own downloads."""
    nltk = pytest.importorskip("nltk", reason="the text rule needs nltk")
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            return None

    nltk.data.path.append(str(folder.resolve()))
    return Reader(str(folder), omw_reader=())


def fraction_threshold(pool: Path, column: str, fraction: float) -> Any:
    values = pd.concat([pd.read_parquet(path, columns=[column]) for path in sorted(pool.glob("*.parquet"))])
    n = int(len(values) * fraction)
    return -np.sort(-values[column].values)[n]


@pytest.mark.parametrize("arch", ["b32", "l14"])
@pytest.mark.parametrize("percent", ["10", "30", "33.3", "90"])
def test_clip_fractions_are_n_plus_1_rows_and_ties(pool: Path, tmp_path: Path, arch: str, percent: str) -> None:
    column = f"clip_{arch}_similarity_score"
    threshold = fraction_threshold(pool, column, round(float(percent) / 100, 6))
    expected = the_script(pool, lambda frame: frame[column] >= threshold)
    assert len(expected) > int(SHARDS * ROWS * float(percent) / 100)
    np.testing.assert_array_equal(ours(pool, tmp_path / "out", f"datacomp-clip-{arch}-{percent}"), expected)


@pytest.mark.parametrize("percent", ["99", "100"])
def test_fractions_that_the_script_fails_on(pool: Path, tmp_path: Path, percent: str) -> None:
    column = "clip_l14_similarity_score"
    expected = the_script(pool, lambda frame: frame[column].notna())
    if percent == "99":  # row n + 1 has no score: the script compares with NaN and keeps nothing
        assert np.isnan(fraction_threshold(pool, column, 0.99))
        expected = expected[:0]
    else:
        with pytest.raises(IndexError):
            fraction_threshold(pool, column, 1.0)
    np.testing.assert_array_equal(ours(pool, tmp_path / "out", f"datacomp-clip-l14-{percent}"), expected)


@pytest.mark.parametrize("threshold", ["0.28", "0.243", "0.3"])
def test_clip_thresholds_are_inclusive_in_float32(pool: Path, tmp_path: Path, threshold: str) -> None:
    expected = the_script(pool, lambda frame: frame.clip_b32_similarity_score >= float(threshold))
    at_the_edge = the_script(pool, lambda frame: frame.clip_b32_similarity_score == np.float32(threshold))
    assert len(at_the_edge)
    made = ours(pool, tmp_path / "out", f"datacomp-clip-b32-{threshold}")
    np.testing.assert_array_equal(made, expected)


def test_none_keeps_every_uid(pool: Path, tmp_path: Path) -> None:
    expected = the_script(pool, lambda frame: np.ones(len(frame), np.bool_))
    np.testing.assert_array_equal(ours(pool, tmp_path / "out", "datacomp-none"), expected)


def test_basic(pool: Path, tmp_path: Path, fasttext_model: str) -> None:
    def keep(frame: pd.DataFrame) -> Any:
        words = frame.text.apply(lambda text: len(text.split()))
        chars = frame.text.apply(len)
        shorter = np.minimum(frame.original_width, frame.original_height)
        longer = np.maximum(frame.original_width, frame.original_height)
        aspect = longer / shorter
        return english(frame) & (words > 2) & (chars > 5) & (shorter >= 200) & (aspect <= 3.0)

    expected = the_script(pool, keep)
    assert 20 < len(expected) < SHARDS * ROWS / 3
    made = ours(pool, tmp_path / "out", "datacomp-basic", fasttext_model=fasttext_model)
    np.testing.assert_array_equal(made, expected)


def test_text(pool: Path, tmp_path: Path, fasttext_model: str, tiny_wordnet: tuple[Path, Path]) -> None:
    wordnet, entities = tiny_wordnet
    reader = wordnet_reader(wordnet)
    listed = {int(line[1:]) for line in entities.read_text().split()}

    def names_entity(text: str) -> bool:
        return any(found[0].offset() in listed for found in map(reader.synsets, text.split()) if found)

    expected = the_script(pool, lambda frame: english(frame) & frame.text.apply(names_entity))
    for file in reader._data_file_map.values():
        file.close()
    assert 100 < len(expected) < SHARDS * ROWS / 2
    files = {"fasttext_model": fasttext_model, "wordnet": str(wordnet), "entities": str(entities)}
    np.testing.assert_array_equal(ours(pool, tmp_path / "out", "datacomp-text", **files), expected)


def test_basic_with_the_packaged_identifier_is_another_recipe(pool: Path, tmp_path: Path) -> None:
    from py3langid import classify

    def keep(frame: pd.DataFrame) -> Any:
        found = frame.text.apply(lambda text: classify(text.replace("\n", " "))[0])
        words = frame.text.apply(lambda text: len(text.split()))
        shorter = np.minimum(frame.original_width, frame.original_height)
        longer = np.maximum(frame.original_width, frame.original_height)
        long_enough = (words > 2) & (frame.text.apply(len) > 5)
        return (found == "en") & long_enough & (shorter >= 200) & (longer / shorter <= 3.0)

    made = ours(pool, tmp_path / "out", "datacomp-basic-langid")
    np.testing.assert_array_equal(made, the_script(pool, keep))


def test_laion2b(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Identifier:
        def __init__(self, min_num_bytes: int, max_num_bytes: int) -> None:
            assert (min_num_bytes, max_num_bytes) == (0, 1000)

        def FindLanguage(self, text: str) -> Any:
            return types.SimpleNamespace(language=first_word(text))

    package = types.ModuleType("gcld3")
    package.NNetLanguageIdentifier = Identifier  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gcld3", package)
    detectors._gcld3.cache_clear()
    expected = the_script(pool, lambda frame: english(frame) & (frame.clip_b32_similarity_score >= 0.28))
    made = ours(pool, tmp_path / "out", "datacomp-laion2b")
    detectors._gcld3.cache_clear()
    np.testing.assert_array_equal(made, expected)


def _real_file(name: str) -> str:
    """A file that users bring, from the folder that PYCURATE_TEST_FILES names; skipped where it is absent."""
    folder = os.environ.get("PYCURATE_TEST_FILES")
    if folder is None:
        pytest.skip("PYCURATE_TEST_FILES names no folder with lid.176.bin, wordnet/ and imagenet21k_wordnet_ids.txt")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return str(path)


def test_basic_and_text_with_the_real_files(pool_factory: Any, tmp_path: Path) -> None:
    fasttext = pytest.importorskip("fasttext", reason="the fastText package is not installed")
    model, folder = _real_file("lid.176.bin"), _real_file("wordnet")
    entities = _real_file("imagenet21k_wordnet_ids.txt")
    captions = ["a dog in the garden", "ein Hund im Garten", "running fast and far", "un chien dans le jardin"] * 25
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=100, text=captions)
    loaded = fasttext.load_model(model)
    reader = wordnet_reader(Path(folder))
    ids = {int(line.strip()[1:]) for line in Path(entities).read_text().splitlines()}

    def keep(frame: pd.DataFrame) -> Any:
        found = frame.text.apply(lambda text: loaded.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")[0][1])

        def names_entity(text: str) -> bool:
            return any(s[0].offset() in ids for s in map(reader.synsets, text.split()) if s)

        return (found == "__label__en") & frame.text.apply(names_entity)

    made = ours(pool, tmp_path / "out", "datacomp-text", fasttext_model=model, wordnet=folder, entities=entities)
    np.testing.assert_array_equal(made, the_script(pool, keep))
