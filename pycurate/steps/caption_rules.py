"""``caption_rules``: lengths of captions, their script, words they must not contain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from pycurate.ops.text import caption_measures as measures
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import Bound, DecidingStep, bound_rules, judge
from pycurate.steps.files import file_fingerprint, read_lines
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict


class CaptionRules(DecidingStep):
    """Keep captions of a decent length; all bounds are inclusive, at least one rule is needed.

    The measures are stored, so bounds change without reading the pool again: ``<name>.words``, ``<name>.chars``,
    ``<name>.script``, ``<name>.listed``, float32. A row without a caption is unjudged.

    Attributes
    ----------
    column
        The column of captions; the pool's caption column by default.
    min_words, max_words
        Words as Python's ``str.split`` cuts them, at any Unicode whitespace.
    min_chars, max_chars
        Unicode code points.
    script, min_script_chars
        At least so many characters (default 1) of a Unicode script, such as ``Han`` or ``Cyrillic``.
    word_list
        A UTF-8 file with one entry a line; captions that contain any, whatever the letter case, are dropped.
    """

    kind: ClassVar[str] = "caption_rules"

    column: str = "caption"
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=0)
    min_chars: int | None = Field(default=None, ge=0)
    max_chars: int | None = Field(default=None, ge=0)
    script: str | None = None
    min_script_chars: int = Field(default=1, ge=1)
    word_list: str | None = None

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if not self.named_bounds:
            raise ValueError("expected at least one of: min_words, max_words, min_chars, max_chars, script, word_list")
        if self.script is not None and not measures.is_script(self.script):
            raise ValueError(f"script: expected a Unicode script, such as Han or Latin, got {self.script!r}")
        return self

    @property
    def named_bounds(self) -> dict[str, Bound]:
        """Each bound by the part of its rule's name."""
        words, chars, script, listed = (f"{self.title}.{m}" for m in ("words", "chars", "script", "listed"))
        limits = {
            "min_words": (Bound(words, "minimum", self.min_words or 0, measure="words"), self.min_words),
            "max_words": (Bound(words, "maximum", self.max_words or 0, measure="words"), self.max_words),
            "min_chars": (Bound(chars, "minimum", self.min_chars or 0, measure="characters"), self.min_chars),
            "max_chars": (Bound(chars, "maximum", self.max_chars or 0, measure="characters"), self.max_chars),
            "script": (
                Bound(script, "minimum", self.min_script_chars, measure=f"{self.script} characters"),
                self.script,
            ),
            "word_list": (Bound(listed, "maximum", 0, measure="contains a listed word"), self.word_list),
        }
        return {name: bound for name, (bound, asked) in limits.items() if asked is not None}

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(bound.column for bound in self.named_bounds.values()))

    def score_parameters(self) -> dict[str, Any]:
        words = None if self.word_list is None else file_fingerprint(self.word_list, f"{self.kind}: word_list")
        return {"column": self.column, "script": self.script, "word_list": words}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        captions = block.columns[self.column]
        makers = {
            "words": lambda: measures.caption_words(captions),
            "chars": lambda: measures.caption_chars(captions),
            "script": lambda: measures.script_chars(captions, str(self.script)),
            "listed": lambda: measures.listed_words(captions, read_lines(str(self.word_list), "word_list")),
        }
        return {column: makers[column.rpartition(".")[2]]() for column in self.produces()}

    def check_files(self) -> None:
        if self.word_list is not None:
            read_lines(self.word_list, f"{self.kind}: word_list")

    def decide_needs(self) -> Needs:
        return Needs(scores=self.produces())

    def rules(self, artefact: Artefact) -> list[Rule]:
        bounds = self.named_bounds
        names = [f"{self.title}.{part}" for part in bounds]
        return [*bound_rules(names, list(bounds.values())), self.unjudged_rule("no caption")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        return judge(list(self.named_bounds.values()), columns)
