"""``top_fraction``: keep the highest scores, exactly as many as asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pycurate.ops.selection.bounds import missing
from pycurate.ops.selection.radix_select import RadixSelect, TopCut, fraction_count
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep, codes_of, numeric, reasons, with_reasons
from pycurate.types import Rule, ScoreArray, UidArray, Verdict


class TopFraction(DecidingStep):
    """Keep the ``n = int(N * fraction)`` rows of highest score, found exactly in O(1) memory however large the pool.

    Attributes
    ----------
    score_name
        Key ``score``: a score column of an earlier step, or a numeric column of the pool.
    fraction
        Above 0, at most 1.
    of
        What N counts: ``pool`` (default), all rows; ``survivors``, those that no earlier step dropped, among which the
        top is then chosen.
    of_unjudged
        True: N counts rows without a score too. Default: it does not.
    ties
        ``exact`` (default): exactly n rows, those of equal score in the order of their uids. ``datacomp``: every row
        with a score at least that of the (n + 1)-th highest, as the DataComp script has it: n + 1 rows plus ties. As
        there, rows without a score come last, so an (n + 1)-th row among them keeps nothing.
        In both, a fraction of 1 keeps every row that has a score.
    """

    kind: ClassVar[str] = "top_fraction"
    fits: ClassVar[bool] = True

    score_name: str = Field(alias="score")
    fraction: float = Field(gt=0, le=1)
    of: Literal["pool", "survivors"] = "pool"
    of_unjudged: bool = False
    ties: Literal["exact", "datacomp"] = "exact"

    @property
    def fits_survivors(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return self.of == "survivors"

    def references(self) -> tuple[str, ...]:
        return (self.score_name,)

    def decide_needs(self) -> Needs:
        needs = self.needs_of(self.score_name)
        needs = Needs(columns=needs.columns, scores=needs.scores, uids=self.ties == "exact")
        return with_reasons(needs, self.score_name, self._earlier)

    def fit_parameters(self) -> dict[str, Any]:
        keys = ("score_name", "fraction", "of", "of_unjudged", "ties")
        return {key: getattr(self, key) for key in keys}

    def fit(self, view: FitView) -> Artefact:
        """``rows`` N, ``judged`` rows with a score, ``n``, and ``keeps``: ``all``, ``none`` or ``cut``, the TopCut."""

        def count(shard: str) -> tuple[int, int, np.dtype[Any]]:
            values = numeric(self.score_name, view.column(shard, self.score_name))
            alive = view.survivors(shard) if self.of == "survivors" else np.ones(len(values), np.bool_)
            judged = int(np.count_nonzero(alive & ~missing(values)))
            return int(np.count_nonzero(alive)) if self.of_unjudged else judged, judged, values.dtype

        counted = list(view.map(count))
        rows, judged = sum(c[0] for c in counted), sum(c[1] for c in counted)
        n = fraction_count(self.fraction, rows)
        facts = {"rows": rows, "judged": judged, "n": n}
        if n >= rows or (n >= judged and self.ties == "exact"):
            return {**facts, "keeps": "all"}
        if n >= judged:
            return {**facts, "keeps": "none"}
        dtype = np.dtype(np.float32 if all(c[2] == np.float32 for c in counted) else np.float64)

        def competing(shard: str) -> tuple[ScoreArray, NDArray[np.bool_] | None]:
            values = view.column(shard, self.score_name).astype(dtype, copy=False)
            return values, view.survivors(shard) if self.of == "survivors" else None

        cut = _select(view, RadixSelect(n, self.ties, dtype), competing)
        dropped = _first_dropped_copy(view, cut, competing) if cut.needs_uids else None
        return {**facts, "keeps": "cut", "dtype": dtype.str, "cut": cut.to_dict(), "first_dropped_copy": dropped}

    def rules(self, artefact: Artefact) -> list[Rule]:
        threshold = None
        what = f"{self.score_name} in the top {100 * self.fraction:.9g} % of the {self.of}"
        if artefact["keeps"] == "cut":
            threshold = TopCut.from_dict(artefact["cut"]).threshold
            what += "" if threshold is None else f" (>= {threshold:.9g})"
        elif artefact["keeps"] == "none":
            what += f" (row {artefact['n'] + 1:,} of {artefact['rows']:,} has no score, so nothing is in it)"
        return [
            Rule(self.title, what, score=self.score_name, threshold=threshold, drops="below"),
            self.unjudged_rule(f"{self.score_name} is missing"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        values = numeric(self.score_name, columns[self.score_name])
        unjudged = missing(values)
        keep = np.full(len(values), artefact["keeps"] == "all")
        if artefact["keeps"] == "cut":
            cut = TopCut.from_dict(artefact["cut"])
            keep, copies = _kept_and_copies(cut, values.astype(artefact["dtype"], copy=False), uids)
            if artefact["first_dropped_copy"] is not None:
                place = tuple(artefact["first_dropped_copy"])
                keep[[row for row in np.flatnonzero(copies).tolist() if (shard, row) >= place]] = False
        return Verdict(
            codes_of(~keep, unjudged), values.astype(np.float64), reasons(self.score_name, columns, unjudged)
        )


Competing: TypeAlias = Callable[[str], tuple[ScoreArray, NDArray[np.bool_] | None]]
"""Values of a shard, and which rows compete; None: all with a value."""


def _select(view: FitView, select: RadixSelect, competing: Competing) -> TopCut:
    def counts(shard: str) -> NDArray[np.int64]:
        values, mask = competing(shard)
        return select.count(values, view.uids(shard) if select.needs_uids else None, mask)

    while not select.done:
        select.advance(sum(view.map(counts), start=np.zeros(1, np.int64)))
    return select.cut


def _kept_and_copies(
    cut: TopCut, values: ScoreArray, uids: UidArray | None, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows at or above the cut, and those of them with both its score and its last uid."""
    kept = replace(cut, last_uid_rows=len(values)).keep(values, uids, mask)
    return kept, kept & ~replace(cut, last_uid_rows=0).keep(values, uids, mask)


def _first_dropped_copy(view: FitView, cut: TopCut, competing: Competing) -> tuple[str, int] | None:
    """In a pool that has one uid several times: the (shard, row) from which copies of the last uid are dropped.

    A place, not a count, because ``decide`` does not know which copies an earlier step dropped.
    """

    def copies(shard: str) -> int:
        values, mask = competing(shard)
        return cut.duplicates(values, view.uids(shard), mask)

    room = cut.last_uid_rows
    for shard, found in sorted(zip(view.shards, view.map(copies), strict=True)):
        if found > room:
            values, mask = competing(shard)
            rows = np.flatnonzero(_kept_and_copies(cut, values, view.uids(shard), mask)[1])
            return shard, int(rows[room])
        room -= found
    return None
