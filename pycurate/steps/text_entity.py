"""``text_entity``: keep captions with a word that names something in a list of WordNet synsets."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from pycurate.errors import InputError, MissingDependencyError
from pycurate.ops.text.entities import UNKNOWN, contains_entity
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import DecidingStep, codes_of
from pycurate.steps.files import existing_path, file_fingerprint, read_lines
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict

WORDNET_HINT = "It is a folder with WordNet 3.0's index.* and data.* files, such as nltk's corpora/wordnet."
ENTITIES_HINT = (
    "The DataComp rule uses imagenet21k_wordnet_ids.txt, one id such as n01440764 a line, named in baselines/utils.py "
    "of https://github.com/mlfoundations/datacomp."
)
CACHED_WORDS = 1 << 18  # about 40 MB; web captions repeat their words

_ID = re.compile(r"[a-z](\d+)")


class TextEntity(DecidingStep):
    """Keep captions in which any whitespace-separated word has its first WordNet synset in a list.

    The rule is the code's of DataComp's text-based baseline, which differs from its description as a noun rule: the
    first of ``synsets(word)`` is taken over all parts of speech, nouns before verbs, adjectives and adverbs, and only
    its offset is compared. A word without noun senses passes when its first verb sense has the offset of a listed
    noun. WordNet reduces inflected words to their base form; punctuation is not stripped.

    Makes the score column ``<name>``, uint8: 1 where an entity is named, 0 where none is, 2 where there is no caption.

    Attributes
    ----------
    wordnet
        Folder of WordNet's database files, read with nltk.
    entities
        File with one synset id a line: a letter and the offset.
    column
        The column of captions.
    """

    kind: ClassVar[str] = "text_entity"
    python_bound: ClassVar[bool] = True

    wordnet: str
    entities: str
    column: str = "caption"

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.title,)

    def score_parameters(self) -> dict[str, Any]:
        folder = existing_path(self.wordnet, "text_entity: wordnet", WORDNET_HINT)
        files = sorted([*folder.glob("index.*"), *folder.glob("data.*"), *folder.glob("*.exc")])
        return {
            "column": self.column,
            "wordnet": {path.name: file_fingerprint(str(path), "text_entity: wordnet") for path in files},
            "entities": file_fingerprint(self.entities, "text_entity: entities", ENTITIES_HINT),
        }

    def check_files(self) -> None:
        _entity_test(self.wordnet, self.entities)

    def score(self, block: Block) -> dict[str, ScoreArray]:
        return {self.title: contains_entity(block.columns[self.column], _entity_test(self.wordnet, self.entities))}

    def decide_needs(self) -> Needs:
        return Needs(scores=(self.title,))

    def rules(self, artefact: Artefact) -> list[Rule]:
        return [Rule(self.title, "a word names a listed entity"), self.unjudged_rule("no caption")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        found = columns[self.title]
        return Verdict(codes_of(found == 0, found == UNKNOWN), np.full(len(found), np.nan))


def _entity_test(wordnet: str, entities: str) -> Callable[[str], bool]:
    """Says of a word whether it is an entity."""
    return _cached_test(wordnet, _read_offsets(entities))


@cache
def _cached_test(wordnet: str, offsets: frozenset[int]) -> Callable[[str], bool]:
    """Answers are kept, since reading a synset parses a line of a file."""
    reader = _wordnet_reader(wordnet)
    reading = threading.Lock()
    known: dict[str, bool] = {}

    def is_entity(word: str) -> bool:
        answer = known.get(word)
        if answer is None:
            with reading:  # one open file and its position are shared
                synsets = reader.synsets(word)
            answer = bool(synsets) and synsets[0].offset() in offsets
            if len(known) < CACHED_WORDS:
                known[word] = answer
        return answer

    return is_entity


def _read_offsets(entities: str) -> frozenset[int]:
    return _offsets(read_lines(entities, "text_entity: entities", ENTITIES_HINT), entities)


@cache
def _offsets(lines: tuple[str, ...], entities: str) -> frozenset[int]:
    offsets = set()
    for number, line in enumerate(lines, start=1):
        match = _ID.fullmatch(line)
        if match is None:
            raise InputError(f"text_entity: entities: line {number} of {entities}: expected n01440764, got {line!r}")
        offsets.add(int(match[1]))
    return frozenset(offsets)


def _wordnet_reader(wordnet: str) -> Any:
    folder = existing_path(wordnet, "text_entity: wordnet", WORDNET_HINT)
    try:
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError as error:
        raise MissingDependencyError("text_entity needs nltk: pip install 'pycurate[text]'") from error

    class Reader(WordNetCorpusReader):  # type: ignore[misc]  # nltk has no types
        """English only: the map to other WordNet versions would need nltk's own download folder."""

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    # nltk reads only folders on this list. The recipe names this one, so it is added by nltk's own means, and only it.
    authorised = str(folder.resolve())
    if authorised not in nltk.data.path:
        nltk.data.path.append(authorised)
    lacking = [name for name in Reader._FILES if not (folder / name).is_file()]
    if lacking:
        raise MissingDependencyError(
            f"text_entity: wordnet: {wordnet!r} lacks {', '.join(sorted(lacking))}. {WORDNET_HINT}"
        )
    return Reader(str(folder), omw_reader=())
