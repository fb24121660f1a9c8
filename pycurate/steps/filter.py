"""``filter``: a boolean SQL expression over the columns of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from pycurate.arrow import arrow_texts, arrow_values
from pycurate.ops.selection import filter_expression as sql
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import DecidingStep, codes_of
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict


class Filter(DecidingStep):
    """Keep the rows for which an expression is true, for example ``original_width >= 200 and text not like '%jpg'``.

    DuckDB SQL without access to files or other rows: no sub-query, aggregate, window function or function that changes
    between calls. NaN counts as NULL; where the expression is NULL the row is unjudged.

    Attributes
    ----------
    expression
        Over columns of the pool and score columns of earlier steps; a score column whose name has a dot is written
        in double quotes.
    """

    kind: ClassVar[str] = "filter"
    shorthand: ClassVar[str] = "expression"

    expression: str

    @field_validator("expression")
    @classmethod
    def _plain_expression(cls, expression: str) -> str:
        if not sql.column_references(expression):
            raise ValueError(f"{expression!r} names no column, so it says nothing of a row")
        return expression

    def references(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parts[0] for parts in sql.column_references(self.expression)))

    def score_needs(self) -> Needs:
        return self.needs_of(*self.references())

    def produces(self) -> tuple[str, ...]:
        return (self.title,)

    def score_parameters(self) -> dict[str, Any]:
        return {"expression": self.expression}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        columns = {
            name: _to_arrow(name, block.scores[name]) if name in block.scores else block.columns[name]
            for name in self.references()
        }
        return {self.title: sql.evaluate_filter(self.expression, columns)}

    def decide_needs(self) -> Needs:
        return Needs(scores=(self.title,))

    def rules(self, artefact: Artefact) -> list[Rule]:
        return [Rule(self.title, self.expression), self.unjudged_rule("the expression is NULL")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        answers = columns[self.title]
        return Verdict(codes_of(answers == sql.FALSE, answers == sql.UNKNOWN), np.full(len(answers), np.nan))


def _to_arrow(name: str, values: ScoreArray) -> pa.Array:
    if values.dtype.kind == "V":
        raise ValueError(f"score {name!r}: keys cannot be used in an expression")
    return (
        arrow_texts([text.decode() for text in values.tolist()]) if values.dtype.kind == "S" else arrow_values(values)
    )
