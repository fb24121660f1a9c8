"""``top_fraction``: keep the highest scores, exactly as many as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

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

        def competing(shard: str) -> tuple[ScoreArray, NDArray[np.bool_]]:
            values = numeric(self.score_name, view.column(shard, self.score_name))
            judged = ~missing(values)
            return values, judged & view.survivors(shard) if self.of == "survivors" else judged

        def count(shard: str) -> tuple[int, int, np.dtype[Any]]:
            values, mask = competing(shard)
            judged = int(np.count_nonzero(mask))
            every = int(np.count_nonzero(view.survivors(shard))) if self.of == "survivors" else len(values)
            return every if self.of_unjudged else judged, judged, values.dtype

        counted = list(view.map(count))
        rows, judged = sum(c[0] for c in counted), sum(c[1] for c in counted)
        n = fraction_count(self.fraction, rows)
        facts = {"rows": rows, "judged": judged, "n": n}
        if n >= rows or (n >= judged and self.ties == "exact"):
            return {**facts, "keeps": "all"}
        if n >= judged:
            return {**facts, "keeps": "none"}
        dtype = np.dtype(np.float32 if all(c[2] == np.float32 for c in counted) else np.float64)
        select = RadixSelect(n, self.ties, dtype)

        def digits(shard: str) -> NDArray[np.int64]:
            values, mask = competing(shard)
            return select.count(values.astype(dtype, copy=False), self._tie_uids(view, shard), mask)

        while not select.done:
            select.advance(sum(view.map(digits), np.zeros(1, np.int64)))
        return {**facts, "keeps": "cut", "dtype": dtype.str, "cut": select.cut.to_dict()}

    def _tie_uids(self, view: FitView, shard: str) -> UidArray | None:
        return view.uids(shard) if self.ties == "exact" else None

    def rules(self, artefact: Artefact) -> list[Rule]:
        threshold = None
        what = f"{self.score_name} in the top {100 * self.fraction:.9g} % of the {self.of}"
        if artefact.get("keeps") == "cut":
            threshold = TopCut.from_dict(artefact["cut"]).threshold
            what += f" (>= {threshold:.9g})"
        elif artefact.get("keeps") == "none":
            what += f" (row {artefact['n'] + 1:,} of {artefact['rows']:,} has no score, so nothing is in it)"
        return [
            Rule(self.title, what, score=self.score_name, threshold=threshold),
            self.unjudged_rule(f"{self.score_name} is missing"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        values = numeric(self.score_name, columns[self.score_name])
        unjudged = missing(values)
        keep = np.full(len(values), artefact["keeps"] == "all")
        if artefact["keeps"] == "cut":
            before = artefact["copies_before"].get(shard, 0)
            keep = TopCut.from_dict(artefact["cut"]).keep(values, uids, ~unjudged, before)
        value = values.astype(np.float64)
        return Verdict(codes_of(~keep, unjudged), value, reasons(self.score_name, columns, unjudged))
