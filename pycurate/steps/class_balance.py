"""``class_balance``: keep as many rows of each class, or as equally many as a budget allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pycurate.errors import RecipeError
from pycurate.ops.dedup.exact import text_keys
from pycurate.ops.dedup.priority import priority_keys
from pycurate.ops.selection.balance import water_filling
from pycurate.ops.selection.bounds import missing
from pycurate.ops.selection.imbalance import imbalance_of
from pycurate.ops.selection.uid_draws import uid_keys
from pycurate.ops.text.row_keys import NO_KEY
from pycurate.pipeline.pool_rows import new_array, scatter, shard_starts
from pycurate.pipeline.record_sort import RecordSort
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep, codes_of, numeric
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict

if TYPE_CHECKING:
    from pycurate.io.pool import Pool

_Counts: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
_FIT_KEYS = ("label", "text", "cap", "total", "floor", "score_name", "seed", "of")
_RECORD_BYTES = 40  # class, key, uid, row
_PART_ROWS = 1 << 16
"""Rows that are looked at at a time: about 10 MB, of a shard that has up to a million."""


class ClassBalance(DecidingStep):
    """Of each class keep at most so many rows, those of highest score or drawn by uid.

    Which rows that are is settled out of core, exactly, in one sort of the rows of the classes above their cap.

    Attributes
    ----------
    label
        An integer score of an earlier step or integer column of the pool, such as a cluster. Rows without one (negative
        or missing) cannot be judged.
    text
        ``label`` is a column of text: equal texts are a class, null and white space none. Makes the score column
        ``<name>.class``, 63 bits of a hash; two of a million classes are taken for one with a probability of 5e-8.
    cap
        The most rows of a class. One of ``cap`` and ``total``.
    total
        Rows to keep in all: every class keeps the same number, or all it has (``water_filling``).
    floor
        With ``total``: rows that a class keeps at least, if it has so many.
    score_name
        Key ``score``: the rows of highest score stay, ties to the lower uid; rows without a score cannot be judged. By
        default rows are drawn: those whose hash of uid and ``seed`` is lowest.
    seed
        Of the draw.
    of
        ``survivors`` (default): rows that an earlier step dropped do not count. ``pool``: they do.
    """

    kind: ClassVar[str] = "class_balance"
    fits: ClassVar[bool] = True
    artefact_row_bytes: ClassVar[int] = 1
    scratch_row_bytes: ClassVar[int] = _RECORD_BYTES + 1

    label: str
    text: bool = False
    cap: int | None = Field(default=None, ge=1)
    total: int | None = Field(default=None, ge=1)
    floor: int = Field(default=0, ge=0)
    score_name: str | None = Field(default=None, alias="score")
    seed: int = 0
    of: Literal["pool", "survivors"] = "survivors"

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.cap is None) == (self.total is None):
            raise ValueError("expected one of cap and total")
        if self.floor and self.total is None:
            raise ValueError("floor goes with total; a cap keeps that many of every class that has them")
        return self

    @property
    def fits_survivors(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return self.of == "survivors"

    @property
    def class_column(self) -> str:
        """The column of whole numbers that says which class a row is of."""
        return f"{self.title}.class" if self.text else self.label

    def check_pool(self, pool: Pool) -> None:
        kind = "" if self.label in self.earlier else pool.columns[pool.stored_name(self.label)]
        if self.text != (kind in ("string", "large_string", "null")) and kind:
            hint = "set text: true" if not self.text else "leave text out for numbers"
            raise RecipeError(f"step {self.title!r}: label {self.label!r} is a column of {kind}; {hint}")

    def references(self) -> tuple[str, ...]:
        return (self.label,) if self.score_name is None else (self.label, self.score_name)

    def score_needs(self) -> Needs:
        return Needs(columns=(self.label,)) if self.text else Needs()

    def produces(self) -> tuple[str, ...]:
        return (self.class_column,) if self.text else ()

    def score_parameters(self) -> dict[str, Any]:
        return {"column": self.label} if self.text else {}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        if not self.text:
            return {}
        keys = text_keys(block.columns[self.label], None)
        none = (keys["f0"] == NO_KEY[0]) & (keys["f1"] == NO_KEY[1])
        return {self.class_column: np.where(none, -1, (keys["f0"] >> np.uint64(1)).astype(np.int64))}

    def decide_needs(self) -> Needs:
        numbers = self.references()[1:] if self.text else self.references()
        needs = self.needs_of(*numbers)
        made = (self.class_column,) if self.text else ()
        return Needs(columns=needs.columns, scores=(*needs.scores, *made), uids=True)

    def fit_parameters(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in _FIT_KEYS}

    def fit(self, view: FitView) -> Artefact:
        """``dropped`` (rows of the pool,) uint8 and where each shard begins in it; classes, rows and what is kept."""
        names, counts = self._counted(view)
        if self.total is None:
            assert self.cap is not None
            cap, quotas = self.cap, np.minimum(counts, self.cap)
        else:
            filled = water_filling(counts, self.total, floors=self.floor)
            cap, quotas = filled.cap, filled.quotas
        starts, rows = shard_starts(view)
        dropped = new_array(view.scratch / "dropped.bin", np.uint8, (rows,))
        self._drop(view, starts, names, counts, quotas, dropped)
        facts: dict[str, Any] = {
            "classes": len(names),
            "rows": int(counts.sum()),
            "kept": int(quotas.sum()),
            "cap": cap,
        }
        if len(names):
            before, after = imbalance_of(counts, names), imbalance_of(quotas, names) if quotas.any() else None
            facts["effective"] = [before.effective_classes, 0.0 if after is None else after.effective_classes]
        return {**facts, "above": int((counts > quotas).sum()), "dropped": dropped, "starts": starts}

    def _counted(self, view: FitView) -> _Counts:
        """The classes, rising, and how many rows of each compete."""

        def count(shard: str) -> list[_Counts]:
            parts = self._competing(view, shard)
            return [np.unique(labels, return_counts=True) for _, labels in parts]

        names, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for found in view.map(count):
            both = np.concatenate([names, *(some for some, _ in found)])
            names, place = np.unique(both, return_inverse=True)
            added = np.zeros(len(names), np.int64)
            np.add.at(added, place, np.concatenate([counts, *(some for _, some in found)]))
            counts = added
        return names, counts

    def _competing(self, view: FitView, shard: str) -> Iterator[_Counts]:
        """Rows of a shard that compete, rising, and their labels, in parts."""
        labels = view.column(shard, self.class_column)
        scores = None if self.score_name is None else view.column(shard, self.score_name)
        alive = view.survivors(shard) if self.of == "survivors" else None
        for start in range(0, len(labels), _PART_ROWS):
            part = slice(start, start + _PART_ROWS)
            some = self._labels(labels[part])
            there = some >= 0
            if scores is not None:
                assert self.score_name is not None
                there &= ~missing(numeric(self.score_name, scores[part]))
            if alive is not None:
                there &= alive[part]
            rows = np.flatnonzero(there)
            yield start + rows, some[rows]

    def _drop(
        self,
        view: FitView,
        starts: Mapping[str, int],
        names: NDArray[np.int64],
        counts: NDArray[np.int64],
        quotas: NDArray[np.int64],
        dropped: NDArray[np.uint8],
    ) -> None:
        """Mark the rows beyond each class's quota."""
        above = counts > quotas
        if not above.any():
            return
        with RecordSort(view.scratch / "classes.records", columns=5, key_columns=5) as records:

            def append(shard: str) -> None:
                uids = view.uids(shard)
                for rows, labels in self._competing(view, shard):
                    classes = np.searchsorted(names, labels)
                    rows, classes = rows[above[classes]], classes[above[classes]]
                    some = uids[rows]
                    record = np.empty((len(rows), 5), np.uint64)
                    record[:, 0], record[:, 1] = classes, self._keys(view, shard, rows, some)
                    record[:, 2], record[:, 3], record[:, 4] = some["f0"], some["f1"], starts[shard] + rows
                    records.append(record)

            for _ in view.map(append):
                pass
            before = np.zeros(len(names), np.int64)  # rows of each class in earlier parts
            for part in records.ranges(view.memory_bytes):
                classes = part[:, 0].astype(np.int64)
                edges = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(classes)]
                beyond = []
                for first, last in pairwise(edges):
                    group = classes[first]
                    beyond.append(slice(first + max(0, min(last - first, int(quotas[group] - before[group]))), last))
                    before[group] += last - first
                rows = np.concatenate([part[piece, 4] for piece in beyond]).astype(np.int64)
                scatter(dropped, rows, 1, view.memory_bytes)

    def _keys(self, view: FitView, shard: str, rows: NDArray[np.int64], uids: UidArray) -> NDArray[np.uint64]:
        """Lower for rows that stay before others of their class."""
        if self.score_name is None:
            return uid_keys(uids, self.seed)
        return priority_keys(view.column(shard, self.score_name)[rows], "highest")

    def _labels(self, values: ScoreArray) -> NDArray[np.int64]:
        """(n,) int64, negative where a row has none."""
        numbers = numeric(self.class_column, values)
        if numbers.dtype.kind != "f":
            return numbers.astype(np.int64)
        there = ~np.isnan(numbers)
        whole = np.where(there, numbers, -1).astype(np.float64)
        if not (np.isfinite(whole) & (whole == np.floor(whole)) & (np.abs(whole) < 2.0**53)).all():
            raise RecipeError(
                f"{self.title}: label {self.label!r}: expected whole numbers, got {numbers.dtype} with others"
            )
        return whole.astype(np.int64)

    def rules(self, artefact: Artefact) -> list[Rule]:
        by = "drawn by uid" if self.score_name is None else f"highest {self.score_name}"
        budget = f"at most {artefact['cap']:,} rows of each {self.label}"
        if self.total is not None:
            budget += f", {artefact['kept']:,} in all"
        what = f"{budget} ({by}); {artefact['above']:,} of {artefact['classes']:,} classes have more"
        if "effective" in artefact:
            before, after = artefact["effective"]
            what += f"; effective classes {before:.4g}, then {after:.4g}"
        lacking = f"{self.label} is empty or missing" if self.text else f"{self.label} is negative or missing"
        if self.score_name is not None:
            lacking += f", or {self.score_name} is missing"
        return [Rule(self.title, what), self.unjudged_rule(lacking)]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        labels = self._labels(columns[self.class_column])
        unjudged = labels < 0
        if self.score_name is not None:
            unjudged |= missing(columns[self.score_name])
        start = artefact["starts"][shard]
        dropped = np.asarray(artefact["dropped"][start : start + len(labels)]) != 0
        hidden = np.bool_(self.text) | (labels < 0)  # a hash tells nobody anything
        return Verdict(codes_of(dropped, unjudged), np.where(hidden, np.nan, labels.astype(np.float64)))
