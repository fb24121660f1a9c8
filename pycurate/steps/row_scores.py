"""``row_scores``: a score by a Python function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_serializer, model_validator

from pycurate.errors import InputError
from pycurate.pipeline.scan import numeric_column
from pycurate.pipeline.step import Needs
from pycurate.steps.base import RecipeStep, as_field
from pycurate.steps.callables import callable_name, is_importable, resolve_callable
from pycurate.types import Block, ScoreArray

RowFunction = Callable[..., Any]
MOST_NUMBA_INPUTS = 3


class RowScores(RecipeStep):
    """One number per row from columns, embeddings and earlier scores, by a function over blocks of rows.

    The function gets a dict of arrays of n rows by name and returns (n,) float32 or float64; NaN means no score. It
    must treat rows independently, since blocks are cut anywhere. Embeddings come as (n, d) in their stored dtype
    (bfloat16 as uint16), numeric columns as float32 or float64 with NaN for null, other columns as object arrays with
    None for null.

    Attributes
    ----------
    function
        ``"module:function"``; in Python also the function itself.
    name
        Required: the score is stored under it.
    code_version
        Key ``version``, required: a whole number, raised whenever the function may give other scores.
    as_
        Key ``as``: name of the score column; ``name`` by default.
    inputs
        Columns of the pool and score columns of earlier steps that the function reads.
    embeddings
        Embeddings that it reads.
    numba
        True: the function takes one row, its embeddings as (d,) float32 (int8 as it is) and then its numeric inputs as
        numbers, at most three in all, and returns a number. It is compiled and runs outside the GIL.
    """

    kind: ClassVar[str] = "row_scores"

    function: str | RowFunction
    code_version: int = Field(alias="version")
    as_: str = as_field()
    inputs: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    numba: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.name:
            raise ValueError("name is missing: scores are stored under it, beside version")
        count = len(self.inputs) + len(self.embeddings)
        if count == 0:
            raise ValueError("expected inputs, embeddings or both: what the function reads")
        if self.numba and count > MOST_NUMBA_INPUTS:
            raise ValueError(f"numba: expected at most {MOST_NUMBA_INPUTS} inputs and embeddings in all, got {count}")
        return self

    @field_serializer("function")
    def _function_text(self, function: str | RowFunction) -> str:
        return callable_name(function)

    @property
    def python_bound(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return not self.numba

    @property
    def stays_in_process(self) -> bool:  # type: ignore[override]
        return not is_importable(self.function)

    @property
    def score_name(self) -> str:
        return self.as_ or self.title

    def references(self) -> tuple[str, ...]:
        return self.inputs

    def score_needs(self) -> Needs:
        needs = self.needs_of(*self.inputs)
        return Needs(columns=needs.columns, scores=needs.scores, embeddings=self.embeddings)

    def produces(self) -> tuple[str, ...]:
        return (self.score_name,)

    def score_parameters(self) -> dict[str, Any]:
        return {
            "function": callable_name(self.function),
            "version": self.code_version,
            "inputs": self.inputs,
            "embeddings": self.embeddings,
            "numba": self.numba,
        }

    def check_files(self) -> None:
        resolve_callable(self.function, "row_scores: function")

    def score(self, block: Block) -> dict[str, ScoreArray]:
        function = resolve_callable(self.function, "row_scores: function")
        rows: dict[str, NDArray[Any]] = {name: block.embeddings[name] for name in self.embeddings}
        for name in self.inputs:
            rows[name] = block.scores[name] if name in block.scores else _to_numpy(block, name)
        made = _compiled_scores(function, rows, block.rows) if self.numba else function(rows)
        return {self.score_name: self._checked(made, block)}

    def _checked(self, made: Any, block: Block) -> ScoreArray:
        where = f"step {self.title!r}: {callable_name(self.function)} (shard {block.shard}, from row {block.start})"
        if not isinstance(made, np.ndarray):
            raise InputError(f"{where}: expected a NumPy array, got {type(made).__name__}")
        if made.shape != (block.rows,):
            raise InputError(f"{where}: expected shape ({block.rows},), one score a row, got {made.shape}")
        if made.dtype not in (np.float32, np.float64):
            raise InputError(f"{where}: expected float32 or float64, got {made.dtype}; convert it")
        return np.ascontiguousarray(made)


def _to_numpy(block: Block, name: str) -> NDArray[Any]:
    import pyarrow as pa

    kind = block.columns[name].type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return numeric_column(block, name)
    return np.array([*block.columns[name].to_pylist(), None], object)[:-1]  # the None keeps lists from becoming axes


def _compiled_scores(function: RowFunction, rows: dict[str, NDArray[Any]], count: int) -> NDArray[np.float64]:
    from pycurate.kernels.rowwise import convert

    arrays = []
    for name, values in rows.items():
        if values.dtype.kind not in "fiu":
            raise InputError(f"row_scores: numba: input {name!r} must hold numbers, got {values.dtype}")
        half = values.ndim == 2 and values.dtype in (np.float16, np.uint16)
        bfloat16: Literal["bfloat16"] | None = "bfloat16" if values.dtype == np.uint16 else None
        arrays.append(convert(values, "float32", threads=1, dtype=bfloat16) if half else values)
    made = np.empty(count)
    _compiled(function, len(arrays))(made, *arrays)
    return made


@cache
def _compiled(function: RowFunction, inputs: int) -> Callable[..., None]:
    """The loop over rows around a function of one row, compiled once per process."""
    from numba import njit

    row_score = njit(nogil=True)(function)

    def one(made, a):  # type: ignore[no-untyped-def]
        for row in range(len(made)):
            made[row] = row_score(a[row])

    def two(made, a, b):  # type: ignore[no-untyped-def]
        for row in range(len(made)):
            made[row] = row_score(a[row], b[row])

    def three(made, a, b, c):  # type: ignore[no-untyped-def]
        for row in range(len(made)):
            made[row] = row_score(a[row], b[row], c[row])

    compiled: Callable[..., None] = njit(nogil=True)((one, two, three)[inputs - 1])
    return compiled
