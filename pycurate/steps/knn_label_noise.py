"""``knn_label_noise``: drop rows whose label the labels of similar rows refute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pycurate.errors import RecipeError
from pycurate.ops.labels import simifeat
from pycurate.ops.labels.label_codes import UNLABELLED, label_codes
from pycurate.ops.labels.label_noise import Method, noise_of
from pycurate.pipeline.neighbor_lists import joined_lists, places_by_uid, stored_rows
from pycurate.pipeline.pool_rows import shard_starts
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep, numeric
from pycurate.types import Rule, ScoreArray, UidArray, Verdict

PASSES, REFUTED, UNJUDGED = 0, 1, 2


class KnnLabelNoise(DecidingStep):
    """Drop rows whose label is refuted by the labels of the rows with the most similar embeddings (SimiFeat).

    Rows with the same embedding have one vote, and none about each other. A row without a label, with an embedding that
    is zero or not finite, or without a labelled neighbour is unjudged. The value in the ledger is the share of the
    neighbours' votes for the row's label.

    Attributes
    ----------
    embedding
        Its name.
    label
        A score of an earlier step or a numeric column of the pool: whole numbers from 0; -1, null or NaN for none.
    k, method, rounds, fraction, seed
        As `knn_label_noise` of ``pycurate.ops.labels.label_noise`` takes them.
    of
        ``survivors`` (default): rows that an earlier step dropped do not vote. ``pool``: all rows do.
    """

    kind: ClassVar[str] = "knn_label_noise"
    fits: ClassVar[bool] = True
    artefact_row_bytes: ClassVar[int] = 5
    scratch_row_bytes: ClassVar[int] = 36 * 20  # lists of some 20 neighbours; embeddings besides

    embedding: str
    label: str
    k: int = Field(default=10, ge=2)
    method: Method = "simifeat"
    rounds: int = Field(default=simifeat.ROUNDS, ge=1, le=64)
    fraction: float = Field(default=simifeat.FRACTION, gt=0, le=1)
    seed: int = 0
    of: Literal["pool", "survivors"] = "survivors"

    @property
    def fits_survivors(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return self.of == "survivors"

    def references(self) -> tuple[str, ...]:
        return (self.label,)

    def decide_needs(self) -> Needs:
        return replace(self.needs_of(self.label), uids=True)

    def fit_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,))

    def fit_parameters(self) -> dict[str, Any]:
        names = ("embedding", "label", "k", "method", "rounds", "fraction", "seed", "of")
        return {name: getattr(self, name) for name in names}

    def fit(self, view: FitView) -> Artefact:
        """Of every row of the pool what is said of it (``verdict``) and its ``quality``."""
        starts, rows = shard_starts(view)
        competing = np.concatenate([np.empty(0, bool), *(self._competing(view, shard) for shard in view.shards)])
        uids = [view.uids(shard) for shard in view.shards]
        labels = np.concatenate([np.empty(0, np.int64), *(self._labels(view, shard) for shard in view.shards)])
        taken = np.flatnonzero(competing)
        verdict, quality = np.full(rows, UNJUDGED, np.uint8), np.full(rows, np.nan, np.float32)
        if len(taken):
            places = places_by_uid(np.concatenate(uids)[taken])
            stored = stored_rows(places, self._embeddings(view), view.scratch / "rows.bin")
            by_uid = np.empty(len(taken), np.int64)
            by_uid[places] = labels[taken]
            codes, classes = label_codes(by_uid, len(taken), None)
            width = self.k if self.method == "vote" else max(self.k, simifeat.list_width(self.k, self.fraction))
            lists = joined_lists(stored, width, view.scratch, memory_bytes=view.memory_bytes, device=view.device)
            found = noise_of(lists, codes, max(classes, 1), self.k, self.method, self.rounds, self.fraction, self.seed)
            quality[taken] = found.quality[places]
            verdict[taken] = np.where(np.isnan(found.quality), UNJUDGED, found.is_issue)[places]
        counts = np.bincount(verdict[taken], minlength=3).tolist()
        return {"starts": starts, "verdict": verdict, "quality": quality, "refuted": counts[REFUTED]}

    def rules(self, artefact: Artefact) -> list[Rule]:
        return [
            Rule(self.title, f"{self.label} is refuted by {self.k} nearest rows of {self.embedding} ({self.method})"),
            self.unjudged_rule(f"no {self.label}, no labelled neighbour, or {self.embedding} is zero or not finite"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        assert uids is not None
        start = artefact["starts"][shard]
        rows = slice(start, start + len(uids))
        return Verdict(np.array(artefact["verdict"][rows], np.uint8), np.array(artefact["quality"][rows], np.float64))

    def _competing(self, view: FitView, shard: str) -> NDArray[np.bool_]:
        return view.survivors(shard) if self.of == "survivors" else np.ones(view.rows(shard), np.bool_)

    def _labels(self, view: FitView, shard: str) -> NDArray[np.int64]:
        values = numeric(self.label, view.column(shard, self.label))
        if values.dtype.kind != "f":
            return values.astype(np.int64)
        known = np.where(np.isnan(values), UNLABELLED, values)
        wrong = np.flatnonzero((known != np.floor(known)) | (np.abs(known) > 2**31))
        if len(wrong):
            row = wrong[0]
            raise RecipeError(
                f"step {self.title!r}: label {self.label!r}: expected whole numbers from 0, got {values[row]:g} in "
                f"row {row} of shard {shard}; name a column of class numbers"
            )
        return known.astype(np.int64)

    def _embeddings(self, view: FitView) -> Iterator[NDArray[Any]]:
        for shard in view.shards:
            competing = self._competing(view, shard)
            for block in view.embedding_blocks(shard, self.embedding):
                yield block.embeddings[self.embedding][competing[block.start : block.start + block.rows]]
