"""What the steps that drop duplicates share: who survives, what the fit stores, and how it becomes a verdict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from pycurate.ops.dedup.priority import Order, priority_keys
from pycurate.ops.selection.bounds import missing
from pycurate.pipeline.pool_rows import let_go, new_array, pool_ranks, pool_uids, scatter, shard_starts
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep, codes_of, numeric
from pycurate.types import UID_DTYPE, Rule, ScoreArray, UidArray, Verdict

Keep: TypeAlias = Literal["lowest_uid", "hard", "easy"] | dict[Order, str]

_KEPT = {
    "lowest_uid": "kept is the lowest uid",
    "hard": "kept is the row farthest from its centroid",
    "easy": "kept is the row nearest to its centroid",
}
_PART_ROWS = 1 << 18
PARTNER_ROW_BYTES = 20
"""Of a row in ``Partners``: a uid and a float32."""


class DedupStep(DecidingStep):
    """A step that drops rows which duplicate a row that comes before them.

    Its fit says of every row of the pool which row it duplicates and how similar the two are; the ledger names both.

    Attributes
    ----------
    keep
        Which of several duplicates survives: ``lowest_uid`` (default); ``{highest: column}`` or ``{lowest: column}``,
        a score of an earlier step or a numeric column of the pool. Equal values are told apart by uid. Rows without
        the value come after all that have one; the rule says how many there are.
    of
        ``survivors`` (default): rows that an earlier step dropped neither remove others nor are named as a partner.
        ``pool``: rows are compared with all others, whatever became of these.
    """

    fits: ClassVar[bool] = True
    keep_words: ClassVar[tuple[str, ...]] = ("lowest_uid",)  # that ``keep`` may be, besides a column
    artefact_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES
    scratch_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES  # a step adds its own, 40 for ``ranks``

    keep: Keep = "lowest_uid"
    of: Literal["pool", "survivors"] = "survivors"

    @field_validator("keep", mode="before")
    @classmethod
    def _known_keep(cls, keep: Any) -> Any:
        if isinstance(keep, str) and keep in cls.keep_words:
            return keep
        expected = f"expected {', '.join(cls.keep_words)}, or one of {{highest: <column>}} and {{lowest: <column>}}"
        if not isinstance(keep, Mapping):
            raise ValueError(f"{expected}, got {keep!r}")
        if (
            len(keep) != 1
            or not set(keep) <= {"highest", "lowest"}
            or not all(isinstance(v, str) for v in keep.values())
        ):
            raise ValueError(f"{expected}, got {dict(keep)!r}")
        return dict(keep)

    @property
    def keep_column(self) -> str | None:
        """The column by which survivors are chosen; None where it is the uid."""
        return None if isinstance(self.keep, str) else next(iter(self.keep.values()))

    @property
    def fits_survivors(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return self.of == "survivors"

    def references(self) -> tuple[str, ...]:
        return () if self.keep_column is None else (self.keep_column,)

    def decide_needs(self) -> Needs:
        """The column of ``keep`` and uids; a step adds its own with ``dataclasses.replace``."""
        return replace(self.needs_of(*self.references()), uids=True)

    def fit_parameters(self) -> dict[str, Any]:
        """``keep`` and ``of``; a step adds its own."""
        return {"keep": self.keep, "of": self.of}

    def competing(self, view: FitView, shard: str) -> NDArray[np.bool_]:
        """(n,) the rows of a shard that are compared, by ``of``."""
        return view.survivors(shard) if self.of == "survivors" else np.ones(view.rows(shard), np.bool_)

    def keep_keys(self, view: FitView, shard: str) -> NDArray[np.uint64]:
        """(n,) lower for rows that survive before others; equal where the uid decides."""
        if isinstance(self.keep, str):
            return np.zeros(view.rows(shard), np.uint64)
        ((order, column),) = self.keep.items()
        return priority_keys(numeric(column, view.column(shard, column)), order)

    def ranks(self, view: FitView) -> NDArray[np.int64]:
        """(rows of the pool,) int64, memory-mapped: 0 for the row that survives before all others, by ``keep``."""
        return pool_ranks(view, lambda shard: self.keep_keys(view, shard))

    def new_partners(self, view: FitView) -> Partners:
        """Where the fit stores what it finds: at first, no row duplicates another."""
        return Partners.none(view)

    def artefact(self, view: FitView, partners: Partners, **facts: Any) -> Artefact:
        """What the fit returns: ``partner``, ``similarity`` and ``starts`` of ``partners``; ``without_value``, the rows
        that compete and lack the value of ``keep``; and ``facts``."""
        without_value = 0
        if self.keep_column is not None:
            column = self.keep_column

            def lacking(shard: str) -> int:
                return int(np.count_nonzero(self.competing(view, shard) & missing(view.column(shard, column))))

            without_value = sum(view.map(lacking))
        arrays = {"partner": partners.partner, "similarity": partners.similarity, "starts": partners.starts}
        return {**arrays, "without_value": without_value, **facts}

    @property
    @abstractmethod
    def duplicates(self) -> str:
        """What is said of rows that are dropped, for people: "same caption as an earlier row"."""

    @property
    def unjudgeable(self) -> str:
        """Why rows cannot be judged, for people."""
        return "nothing to compare"

    @property
    def least_similarity(self) -> float | None:
        """The similarity from which on rows are duplicates, where there is such a threshold."""
        return None

    def unjudged_rows(
        self, shard: str, columns: Mapping[str, ScoreArray], artefact: Artefact, rows: slice
    ) -> NDArray[np.bool_]:
        """(n,) rows of a shard that cannot be judged: where the fit's array ``unjudged`` is not 0, if it has one.

        ``rows`` are the places of the shard's rows in the artefact's arrays.
        """
        if "unjudged" in artefact:
            return np.asarray(artefact["unjudged"][rows] != 0)
        return np.zeros(rows.stop - rows.start, np.bool_)

    def rules(self, artefact: Artefact) -> list[Rule]:
        """One rule for duplicates, one for rows that cannot be judged."""
        return [
            Rule(
                self.title,
                f"{self.duplicates}; {self._kept_text(artefact)}",
                threshold=self.least_similarity,
                drops="above",
                names_partner=True,
            ),
            self.unjudged_rule(self.unjudgeable),
        ]

    def _kept_text(self, artefact: Artefact) -> str:
        if isinstance(self.keep, str):
            return _KEPT[self.keep]
        ((order, column),) = self.keep.items()
        text = f"kept is the {order} {column}"
        without = artefact["without_value"]
        return text + (f" ({without:,} rows without it come last)" if without else "")

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        assert uids is not None
        start = artefact["starts"][shard]
        rows = slice(start, start + len(uids))
        similarity = artefact["similarity"][rows].astype(np.float64)
        unjudged = self.unjudged_rows(shard, columns, artefact, rows)
        code = codes_of(~np.isnan(similarity), unjudged)
        return Verdict(code, similarity, partner=artefact["partner"][rows])


@dataclass(frozen=True, slots=True)
class Partners:
    """Of every row of the pool, in the order of shards: the row it duplicates. Memory-mapped in the fit's scratch.

    Attributes
    ----------
    starts
        The first row of each shard.
    partner
        (rows,) uid dtype: the row in whose favour a row is dropped; zeros where none.
    similarity
        (rows,) float32: similarity to it; NaN where the row is no duplicate, which is how a verdict tells.
    memory_bytes
        What writing may hold.
    """

    starts: dict[str, int]
    partner: UidArray
    similarity: NDArray[np.float32]
    memory_bytes: int

    @classmethod
    def none(cls, view: FitView) -> Partners:
        """No row duplicates another."""
        starts, rows = shard_starts(view)
        partner = new_array(view.scratch / "partner.bin", UID_DTYPE, (rows,))
        similarity = new_array(view.scratch / "similarity.bin", np.float32, (rows,))
        for begin in range(0, rows, _PART_ROWS):
            similarity[begin : begin + _PART_ROWS] = np.nan
        let_go(similarity)
        return cls(starts, partner, similarity, view.memory_bytes)

    def set(self, rows: NDArray[np.int64], partner: UidArray, similarity: NDArray[np.float32] | float) -> None:
        """Rows of the pool and the uids of what they duplicate."""
        scatter(self.partner, rows, partner, self.memory_bytes)
        scatter(self.similarity, rows, similarity, self.memory_bytes)

    def set_rows(
        self, view: FitView, duplicate_of: NDArray[np.int64], similarity: NDArray[np.float32], first: int = 0
    ) -> None:
        """The same from rows of the pool: ``duplicate_of`` (m,) of the rows from ``first`` on, -1 where none."""
        for begin in range(0, len(duplicate_of), _PART_ROWS):
            part = np.asarray(duplicate_of[begin : begin + _PART_ROWS])
            found = np.flatnonzero(part >= 0)
            uids = pool_uids(view, part[found], self.starts)
            self.set(first + begin + found, uids, np.asarray(similarity[begin : begin + _PART_ROWS])[found])
