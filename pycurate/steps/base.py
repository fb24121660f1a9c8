"""What the steps share: errors that name the key, the unjudged policy, bounds on measures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from pycurate.errors import RecipeError
from pycurate.ops.selection.bounds import Side, missing, outside
from pycurate.pipeline.step import Needs, Step
from pycurate.types import Rule, ScoreArray, UnjudgedPolicy, Verdict

if TYPE_CHECKING:
    from pycurate.io.pool import Pool

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class RecipeStep(Step):
    """A step of the registry. A wrong key or value raises ``RecipeError``, which says which and suggests the right one.

    Attributes
    ----------
    name
        Unique in a recipe; letters, digits, ``_`` and ``-``. Left empty, the recipe takes the step's kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)
    shorthand: ClassVar[str] = ""  # the field that a bare YAML value stands for: "filter: expression"
    _earlier: frozenset[str] = PrivateAttr(default=frozenset())  # score columns made by the recipe's earlier steps

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(sentence(type(self).kind, error, _keys(type(self)))) from None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if name and not _NAME.fullmatch(name):
            raise ValueError("expected letters, digits, '_' and '-' only")
        return name

    def bind(self, name: str, earlier: frozenset[str]) -> Self:
        """The step as a recipe places it: under a unique name, knowing which score columns exist before it."""
        bound = self.model_copy(update={"name": name})
        bound._earlier = earlier
        return bound

    @property
    def title(self) -> str:
        """The step's name, or its kind outside a recipe."""
        return self.name or self.kind

    @property
    def earlier(self) -> frozenset[str]:
        """Score columns that the steps before this one make."""
        return self._earlier

    def references(self) -> tuple[str, ...]:
        """Names in the configuration that may be a score of an earlier step or a column of the pool."""
        return ()

    def needs_of(self, *references: str) -> Needs:
        """Needs of columns that may come from an earlier step or, where none makes them, from the pool."""
        return Needs(
            columns=tuple(r for r in dict.fromkeys(references) if r not in self._earlier),
            scores=tuple(r for r in dict.fromkeys(references) if r in self._earlier),
        )

    def check_pool(self, pool: Pool) -> None:
        """Raise ``RecipeError`` where columns or embeddings that the pool has do not suit the step."""

    def check_files(self) -> None:
        """Raise ``MissingDependencyError`` when a package or file that the step uses is not there."""


class DecidingStep(RecipeStep):
    """A step that drops rows.

    Attributes
    ----------
    unjudged
        What happens to rows that the rule cannot judge, because a value is missing: ``drop`` them (default), ``keep``
        them, or stop with an ``error`` that names the first.
    """

    decides: ClassVar[bool] = True

    unjudged: UnjudgedPolicy = "drop"

    def unjudged_rule(self, description: str) -> Rule:
        return Rule(f"{self.title}.unjudged", description, unjudged=True)


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit on one score column."""

    column: str
    side: Side
    limit: float
    inclusive: bool = True
    measure: str = ""  # how people call the column, where its name does not say

    @property
    def description(self) -> str:
        sign = {"minimum": ">", "maximum": "<"}[self.side] + "=" * self.inclusive
        return f"{self.measure or self.column} {sign} {self.limit:.9g}"


def bound_rules(names: Sequence[str], bounds: Sequence[Bound]) -> list[Rule]:
    """The rules of bounds, named one by one."""
    return [
        Rule(name, bound.description, bound.column, bound.limit, drops="below" if bound.side == "minimum" else "above")
        for name, bound in zip(names, bounds, strict=True)
    ]


def judge(bounds: Sequence[Bound], columns: Mapping[str, ScoreArray]) -> Verdict:
    """The first bound that a row breaks; a row that breaks none but lacks a measure is unjudged.

    Codes follow ``bounds``, then one for the unjudged rows. The value is that of the bound that dropped the row, of the
    first bound where none did.
    """
    value = columns[bounds[0].column].astype(np.float64)
    code = np.zeros(len(value), np.uint8)
    lacking = np.zeros(len(value), np.bool_)
    for number, bound in enumerate(bounds, start=1):
        values = columns[bound.column]
        lacking |= missing(values)
        broken = outside(values, bound.limit, bound.side, bound.inclusive) & (code == 0)
        code[broken] = number
        value[broken] = values[broken]
    unjudged = lacking & (code == 0)
    code[unjudged] = len(bounds) + 1
    value[unjudged] = np.nan
    return Verdict(code, value)


def codes_of(dropped: NDArray[np.bool_], unjudged: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Codes of a step with one rule and its unjudged rule."""
    return np.where(unjudged, 2, dropped.astype(np.uint8)).astype(np.uint8)


def numeric(column: str, values: ScoreArray) -> ScoreArray:
    """The column itself if it holds numbers; text and uids cannot be compared with a number."""
    if values.dtype.kind not in "fiu":
        raise RecipeError(f"score {column!r}: expected a column of numbers, got one of {values.dtype}")
    return values


def with_reasons(needs: Needs, score: str, earlier: frozenset[str]) -> Needs:
    """``needs`` and, where an earlier ``clip_score`` made it, the column that says why rows have no score."""
    flags = f"{score}.flags"
    return replace(needs, scores=(*needs.scores, flags)) if flags in earlier else needs


def reasons(score: str, columns: Mapping[str, ScoreArray], unjudged: NDArray[np.bool_]) -> NDArray[np.bytes_] | None:
    """Why each unjudged row has no score, where the columns say so."""
    from pycurate.ops.scores.clip_score import unjudged_reasons

    flags = columns.get(f"{score}.flags")
    if flags is None or not unjudged.any():
        return None
    return unjudged_reasons(np.where(unjudged, flags, 0).astype(np.uint8))


def suggestion(wrong: str, known: Sequence[str]) -> str:
    """``"; did you mean 'minimum'?"``, or nothing when no known name is near."""
    close = difflib.get_close_matches(str(wrong), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def sentence(subject: str, error: ValidationError, keys: Sequence[str]) -> str:
    """One readable line of a pydantic error: which key, what was expected, what came, what was meant."""
    parts = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        came = problem["input"]
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(keys))
            parts.append(f"unknown key {where!r}{suggestion(where, keys)} (keys: {known})")
        elif problem["type"] == "missing":
            parts.append(f"{where} is missing")
        elif problem["type"] == "value_error":
            parts.append(f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"]))
        else:
            hint = " (YAML reads no, yes, on and off as truth values: quote them)" if isinstance(came, bool) else ""
            message = problem["msg"].removeprefix("Input should be ")
            parts.append(f"{where}: expected {message}, got {came!r}{hint}")
    return f"{subject}: " + "; ".join(dict.fromkeys(parts))


def _keys(step: type[Step]) -> list[str]:
    return [field.alias or name for name, field in step.model_fields.items()]


def as_field() -> Any:
    """The field ``as`` of a scoring step: the name of its score column."""
    return Field(default="", alias="as", pattern=r"^[A-Za-z0-9_.-]*$")
