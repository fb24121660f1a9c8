from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pycurate.errors import InputError, MissingDependencyError, RecipeError
from pycurate.steps import Language
from pycurate.steps import detectors as known_detectors


def first_letter(caption: str) -> str:
    """Stands in for an identifier: the first letter, nothing for blank captions."""
    return caption.strip()[:1]


def test_an_own_detector_sees_one_line_and_its_codes_are_kept(curate, block) -> None:
    seen: list[str] = []

    def detect(caption: str) -> str:
        seen.append(caption)
        return first_letter(caption)

    rows = block(caption=["en text", "de\ntext", None, "  ", "ex"])
    made = curate([Language(languages=["e", "x"], detector=detect, version=1)], rows)
    assert made.keep["a"].tolist() == [True, False, False, False, True]
    assert made.reason["a"].tolist() == [None, "language", "language.unjudged", "language.unjudged", None]
    assert made.detail["a"][1] == b"d"
    assert seen == ["en text", "de text", "  ", "ex"]
    assert made.scores["a"]["language"].dtype == "S8"


def test_the_packaged_identifier_tells_languages_apart(curate, block) -> None:
    captions = [
        "a photograph of a brown dog in the green garden behind our house",
        "ein Foto von einem braunen Hund im grünen Garten hinter unserem Haus",
        "une photographie d'un chien brun dans le jardin vert derrière notre maison",
    ]
    made = curate([Language(languages=["en"])], block(caption=captions))
    assert made.keep["a"].tolist() == [True, False, False]
    assert made.detail["a"][1:].tolist() == [b"de", b"fr"]


class _Model:
    """Answers as fastText's Python package does: labels and probabilities of each text of a list."""

    def predict(self, texts: list[str], k: int = 1) -> Any:
        assert k == 1
        assert all("\n" not in text for text in texts)
        return [[f"__label__{text[:2]}"] if text else [] for text in texts], [[0.9]] * len(texts)


@pytest.fixture
def fasttext(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A stand-in for the fastText package and a model file for it."""
    package = types.ModuleType("fasttext")
    package.FastText = types.SimpleNamespace(eprint=print)  # type: ignore[attr-defined]
    package.load_model = lambda path: _Model()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fasttext", package)
    model = tmp_path / "lid.176.bin"
    model.write_bytes(b"model")
    known_detectors._fasttext.cache_clear()
    return str(model)


def test_fasttext_takes_the_top_label(curate, block, fasttext: str) -> None:
    made = curate([Language(languages=["en"], detector="fasttext", model=fasttext)], block(caption=["en\nx", "de", ""]))
    assert made.keep["a"].tolist() == [True, False, False]
    assert made.reason["a"].tolist() == [None, "language", "language.unjudged"]


def test_gcld3_reads_at_most_1000_bytes(curate, block, monkeypatch: pytest.MonkeyPatch) -> None:
    class Identifier:
        def __init__(self, min_num_bytes: int, max_num_bytes: int) -> None:
            assert (min_num_bytes, max_num_bytes) == (0, 1000)

        def FindLanguage(self, text: str) -> Any:
            return types.SimpleNamespace(language=text[:2])

    package = types.ModuleType("gcld3")
    package.NNetLanguageIdentifier = Identifier  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gcld3", package)
    known_detectors._gcld3.cache_clear()
    made = curate([Language(languages=["en"], detector="gcld3")], block(caption=["en x", "bg-Latn"]))
    known_detectors._gcld3.cache_clear()
    assert made.keep["a"].tolist() == [True, False]


def test_another_model_file_or_version_is_another_score(fasttext: str) -> None:
    step = Language(languages=["en"], detector="fasttext", model=fasttext)
    before = step.score_parameters()
    assert Language(languages=["de"], detector="fasttext", model=fasttext).score_parameters() == before
    Path(fasttext).write_bytes(b"other")
    assert step.score_parameters() != before
    one, two = (Language(languages=["en"], detector=first_letter, version=v).score_parameters() for v in (1, 2))
    assert one != two


def test_what_is_not_there_is_said_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = Language(languages=["en"], detector="fasttext", model=str(tmp_path / "none.bin"))
    with pytest.raises(MissingDependencyError, match=r"there is no file.*none\.bin.*lid\.176\.bin, published at"):
        missing.check_files()
    model = tmp_path / "model.bin"
    model.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(MissingDependencyError, match=r"pip install fasttext.*datacomp-basic-langid uses the packaged"):
        Language(languages=["en"], detector="fasttext", model=str(model)).check_files()
    monkeypatch.setitem(sys.modules, "gcld3", None)
    known_detectors._gcld3.cache_clear()
    with pytest.raises(MissingDependencyError, match="pip install gcld3"):
        Language(languages=["en"], detector="gcld3").check_files()
    with pytest.raises(MissingDependencyError, match="module 'no_such_module' cannot be imported"):
        Language(languages=["en"], detector="no_such_module:f", version=1).check_files()
    with pytest.raises(RecipeError, match="module 'json' has no function 'nothing'"):
        Language(languages=["en"], detector="json:nothing", version=1).check_files()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"languages": []}, "languages: expected|languages: Tuple should have at least 1 item"),
        ({"languages": [False]}, "languages.0: expected a valid string, got False .YAML reads no, yes"),
        ({"languages": ["en"], "detector": "fasttxt"}, "detector: expected one of py3langid, fasttext, gcld3 or"),
        ({"languages": ["en"], "detector": "fasttext"}, "detector fasttext needs model, the path"),
        ({"languages": ["en"], "detector": "m:f"}, "a detector of your own needs a version"),
        ({"languages": ["en"], "version": 2}, "version: py3langid has its own"),
        ({"languages": ["en"], "model": "x"}, "only detector fasttext reads a model file"),
    ],
)
def test_a_wrong_configuration_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Language(**values)


def test_a_code_that_does_not_fit_is_an_error_with_its_place(curate, block) -> None:
    step = Language(languages=["en"], detector=lambda caption: "a-very-long-code", version=1)
    with pytest.raises(InputError, match="shard a, block from row 0: language: expected a code of at most 8 bytes"):
        curate([step], block(caption=["x"]))
