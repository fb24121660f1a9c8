"""``threshold``: keep the rows whose score lies within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from pycurate.ops.selection.bounds import Side
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import Bound, DecidingStep, bound_rules, judge, numeric, reasons, with_reasons
from pycurate.types import Rule, ScoreArray, UidArray, Verdict


class Threshold(DecidingStep):
    """Keep rows with ``minimum <= score <= maximum``, compared in the score's own precision.

    Attributes
    ----------
    score_name
        Key ``score``: a score column of an earlier step, or a numeric column of the pool.
    minimum, maximum
        The bounds; at least one. For float32 scores they are rounded to float32 first, as the DataComp script's
        comparison does.
    inclusive
        True (default): a score equal to a bound is kept.
    """

    kind: ClassVar[str] = "threshold"

    score_name: str = Field(alias="score")
    minimum: float | None = None
    maximum: float | None = None
    inclusive: bool = True

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("expected minimum, maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}: no row could pass")
        return self

    @property
    def bounds(self) -> list[Bound]:
        limits: tuple[tuple[Side, float | None], ...] = (("minimum", self.minimum), ("maximum", self.maximum))
        return [Bound(self.score_name, side, x, self.inclusive) for side, x in limits if x is not None]

    def references(self) -> tuple[str, ...]:
        return (self.score_name,)

    def decide_needs(self) -> Needs:
        return with_reasons(self.needs_of(self.score_name), self.score_name, self._earlier)

    def rules(self, artefact: Artefact) -> list[Rule]:
        bounds = self.bounds
        names = [self.title] if len(bounds) == 1 else [f"{self.title}.{bound.side}" for bound in bounds]
        return [*bound_rules(names, bounds), self.unjudged_rule(f"{self.score_name} is missing")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        numeric(self.score_name, columns[self.score_name])
        verdict = judge(self.bounds, columns)
        return replace(verdict, detail=reasons(self.score_name, columns, verdict.code == len(self.bounds) + 1))
