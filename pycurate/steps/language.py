"""``language``: keep captions in given languages, as an identifier of the user's choice sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, get_args

import numpy as np
from pydantic import Field, field_serializer, model_validator

from pycurate.errors import InputError
from pycurate.ops.text.languages import LANGUAGE_BYTES, caption_languages
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import DecidingStep, codes_of
from pycurate.steps.callables import callable_name, is_importable, resolve_callable
from pycurate.steps.detectors import (
    FASTTEXT_MODEL_HINT,
    Detector,
    KnownDetector,
    load_detector,
    package_version,
)
from pycurate.steps.files import file_fingerprint
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict


class Language(DecidingStep):
    """Keep captions whose language is in a list.

    Makes the score column ``<name>``, ``S8``: the code found. A caption that is null, or that the identifier has no
    code for, is unjudged.

    Attributes
    ----------
    languages
        Codes to keep, as the identifier writes them (``en``, ``zh``).
    detector
        ``py3langid`` (packaged, the default), ``fasttext``, ``gcld3``, or a function of one's own from a caption to a
        code: ``"module:function"``, in Python also the function itself. Line breaks are replaced by spaces first, as
        the DataComp filters do.
    model
        Path of the model file; for ``fasttext`` only.
    detector_version
        Key ``version``: of one's own function, raised whenever it may give other codes.
    column
        The column of captions.
    """

    kind: ClassVar[str] = "language"
    python_bound: ClassVar[bool] = True

    languages: tuple[str, ...] = Field(min_length=1)
    detector: KnownDetector | Callable[[str], str] | str = "py3langid"
    model: str | None = None
    detector_version: int | None = Field(default=None, alias="version")
    column: str = "caption"

    @model_validator(mode="after")
    def _detector_is_whole(self) -> Self:
        known = self.known_detector
        if known == "fasttext" and self.model is None:
            raise ValueError(f"detector fasttext needs model, the path of a model file. {FASTTEXT_MODEL_HINT}")
        if known != "fasttext" and self.model is not None:
            raise ValueError(f"model: only detector fasttext reads a model file, and detector is {self.detector!r}")
        if known is None and isinstance(self.detector, str) and ":" not in self.detector:
            names = ", ".join(get_args(KnownDetector))
            raise ValueError(f"detector: expected one of {names} or 'module:function', got {self.detector!r}")
        if (known is None) != (self.detector_version is not None):
            raise ValueError(
                "version: a detector of your own needs a version, a whole number that you raise when its answers change"
                if known is None
                else f"version: {known} has its own; leave it out"
            )
        return self

    @field_serializer("detector")
    def _detector_text(self, detector: str | Callable[[str], str]) -> str:
        return callable_name(detector)

    @property
    def known_detector(self) -> KnownDetector | None:
        return next((known for known in get_args(KnownDetector) if known == self.detector), None)

    @property
    def stays_in_process(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return not is_importable(self.detector)

    def _load(self) -> Detector:
        if (known := self.known_detector) is not None:
            return load_detector(known, self.model)
        return resolve_callable(self.detector, "language: detector")

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.title,)

    def score_parameters(self) -> dict[str, Any]:
        known = self.known_detector
        model = None if self.model is None else file_fingerprint(self.model, "language: model", FASTTEXT_MODEL_HINT)
        return {
            "column": self.column,
            "detector": callable_name(self.detector),
            "model": model,
            "version": package_version(known) if known else self.detector_version,
        }

    def check_files(self) -> None:
        self._load()

    def score(self, block: Block) -> dict[str, ScoreArray]:
        try:
            return {self.title: caption_languages(block.columns[self.column], self._load())}
        except InputError as error:
            raise InputError(f"shard {block.shard}, block from row {block.start}: {error}") from error

    def decide_needs(self) -> Needs:
        return Needs(scores=(self.title,))

    def rules(self, artefact: Artefact) -> list[Rule]:
        return [
            Rule(self.title, f"language is {' or '.join(self.languages)}"),
            self.unjudged_rule("no caption, or no language found"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        found = columns[self.title]
        unjudged = found == b""
        wanted = np.isin(found, np.array([code.encode() for code in self.languages], f"S{LANGUAGE_BYTES}"))
        return Verdict(codes_of(~wanted, unjudged), np.full(len(found), np.nan), found)
