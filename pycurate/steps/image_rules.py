"""``image_rules``: size, shape and weight of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from pycurate.ops.scores.image_shape import aspect_ratio, shortest_side
from pycurate.ops.selection.bounds import Side
from pycurate.pipeline.scan import numeric_column
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import Bound, DecidingStep, bound_rules, judge
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict


class ImageRules(DecidingStep):
    """Keep images that are large enough and not too long; at least one rule is needed.

    The measures are stored as ``<name>.min_side`` (pixels), ``<name>.aspect`` and ``<name>.bytes``, float64. A row
    that breaks no bound but lacks a size is unjudged; an image with a side of 0 is outside any ``max_aspect``.

    Attributes
    ----------
    width, height
        Columns of the original size in pixels.
    min_side
        Least shorter side, pixels.
    max_aspect
        Largest ratio of the longer to the shorter side.
    min_bytes, bytes_column
        Least size of the encoded image, and the column that has it.
    inclusive
        True (default): a value equal to a bound is kept.
    """

    kind: ClassVar[str] = "image_rules"

    width: str = "original_width"
    height: str = "original_height"
    min_side: float | None = Field(default=None, ge=0)
    max_aspect: float | None = Field(default=None, ge=1)
    min_bytes: int | None = Field(default=None, ge=0)
    bytes_column: str = "image_bytes"
    inclusive: bool = True

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if not self.named_bounds:
            raise ValueError("expected at least one of: min_side, max_aspect, min_bytes")
        return self

    @property
    def named_bounds(self) -> dict[str, Bound]:
        """Each bound by the part of its rule's name."""
        bounds: dict[str, Bound] = {}
        if self.min_side is not None:
            bounds["min_side"] = self._bound("min_side", "minimum", self.min_side, "shorter side")
        if self.max_aspect is not None:
            bounds["max_aspect"] = self._bound("aspect", "maximum", self.max_aspect, "aspect ratio")
        if self.min_bytes is not None:
            bounds["min_bytes"] = self._bound("bytes", "minimum", self.min_bytes, "bytes")
        return bounds

    def _bound(self, column: str, side: Side, limit: float, measure: str) -> Bound:
        return Bound(f"{self.title}.{column}", side, limit, self.inclusive, measure)

    def score_needs(self) -> Needs:
        sizes = () if self.min_side is None and self.max_aspect is None else (self.width, self.height)
        weights = () if self.min_bytes is None else (self.bytes_column,)
        return Needs(columns=(*sizes, *weights))

    def produces(self) -> tuple[str, ...]:
        return tuple(bound.column for bound in self.named_bounds.values())

    def score_parameters(self) -> dict[str, Any]:
        return {"columns": self.score_needs().columns}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        def column(name: str) -> ScoreArray:
            return numeric_column(block, name).astype(np.float64)

        made: dict[str, ScoreArray] = {}
        if self.min_side is not None:
            made[f"{self.title}.min_side"] = shortest_side(column(self.width), column(self.height))
        if self.max_aspect is not None:
            made[f"{self.title}.aspect"] = aspect_ratio(column(self.width), column(self.height))
        if self.min_bytes is not None:
            made[f"{self.title}.bytes"] = column(self.bytes_column)
        return made

    def decide_needs(self) -> Needs:
        return Needs(scores=self.produces())

    def rules(self, artefact: Artefact) -> list[Rule]:
        bounds = self.named_bounds
        names = [f"{self.title}.{part}" for part in bounds]
        return [*bound_rules(names, list(bounds.values())), self.unjudged_rule("no size")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        return judge(list(self.named_bounds.values()), columns)
