from __future__ import annotations

from pathlib import Path

import pytest

from pycurate.errors import InputError, MissingDependencyError
from pycurate.steps import TextEntity

pytest.importorskip("nltk", reason="text_entity needs nltk (pip install 'pycurate[text]')")


@pytest.fixture
def wordnet(tiny_wordnet: tuple[Path, Path]) -> Path:
    return tiny_wordnet[0]


@pytest.fixture
def entities(tiny_wordnet: tuple[Path, Path]) -> Path:
    return tiny_wordnet[1]


def test_the_first_synset_over_all_parts_of_speech_decides(curate, block, wordnet: Path, entities: Path) -> None:
    captions = {
        "a dog": True,
        "two DOGS": True,  # lower-cased, base form
        "dog, barking": False,  # punctuation is part of the word
        "a cat": False,  # its second sense is listed, its first is not
        "frump": False,
        "she ran": True,  # no noun: the first verb synset has the offset of a listed noun
        "hot_dog": True,
        "hot dogs": True,  # through "dogs"
        "": False,
        "\u3000dog\u2003": True,
    }
    rows = block(caption=[*captions, None])
    made = curate([TextEntity(wordnet=str(wordnet), entities=str(entities))], rows)
    assert made.keep["a"].tolist() == [*captions.values(), False]
    assert made.reason["a"][-1] == "text_entity.unjudged"


def test_it_equals_the_public_rule_on_the_same_files(
    curate, block, wordnet: Path, entities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path, str(wordnet)])

    class Reader(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            return None

    reader = Reader(str(wordnet), omw_reader=())
    listed = [int(line[1:]) for line in entities.read_text().split()]

    def names_entity(text: str) -> bool:
        for word in text.split():
            synsets = reader.synsets(word)
            if synsets and synsets[0].offset() in listed:
                return True
        return False

    words = ["dog", "dogs", "cat", "cats", "frump", "run", "running", "ran", "runs", "hot_dog", "the", "DOG.", "mice"]
    captions = [f"{a} {b}" for a in words for b in words] + words
    made = curate([TextEntity(wordnet=str(wordnet), entities=str(entities))], block(caption=captions), block_rows=50)
    plain = [names_entity(caption) for caption in captions]
    for file in reader._data_file_map.values():
        file.close()
    assert 0 < sum(plain) < len(plain)
    assert made.keep["a"].tolist() == plain


def test_another_list_is_another_score(wordnet: Path, entities: Path) -> None:
    step = TextEntity(wordnet=str(wordnet), entities=str(entities))
    before = step.score_parameters()
    entities.write_text("n00001100\n")
    assert step.score_parameters() != before


def test_missing_and_malformed_files_are_named(wordnet: Path, entities: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"entities: there is no file or folder .*imagenet21k_wordnet_ids"):
        TextEntity(wordnet=str(wordnet), entities=str(tmp_path / "none")).check_files()
    with pytest.raises(MissingDependencyError, match=r"wordnet: there is no file or folder .*corpora/wordnet"):
        TextEntity(wordnet=str(tmp_path / "none"), entities=str(entities)).check_files()
    (wordnet / "index.noun").rename(wordnet / "hidden")
    with pytest.raises(MissingDependencyError, match=r"wordnet: .* lacks index\.noun"):
        TextEntity(wordnet=str(wordnet), entities=str(entities)).check_files()
    (wordnet / "hidden").rename(wordnet / "index.noun")
    entities.write_text("n00001000\nn02x\n")
    with pytest.raises(InputError, match=r"entities: line 2 of .*: expected n01440764, got 'n02x'"):
        TextEntity(wordnet=str(wordnet), entities=str(entities)).check_files()
