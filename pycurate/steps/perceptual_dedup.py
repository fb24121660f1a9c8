"""``perceptual_dedup``: drop images that look like another image of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pycurate.errors import MemoryCapError
from pycurate.pipeline.pool_rows import pool_uids
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.dedup_base import PARTNER_ROW_BYTES, DedupStep
from pycurate.steps.image_hash import HashingStep
from pycurate.types import ScoreArray, UidArray, Verdict

# Of a row that is compared: its copies are found (40), bands sorted and joined (48), pairs or links made removals (64).
_FIT_ROW_BYTES = 152


class PerceptualDedup(HashingStep, DedupStep):
    """Of images whose perceptual hashes differ in few bits, keep one.

    Makes the score columns ``<name>.hash`` and ``<name>.flags`` as ``image_hash`` does. The join is exact for every
    radius, and its fit holds about 150 bytes for every row that is compared. A row without an image, or with one that
    is damaged or blank, is unjudged.

    Attributes
    ----------
    radius
        Most bits in which two hashes of images that look alike differ (10 of 64).
    removal
        ``component`` (default): of images that are linked, directly or through others, one is kept. ``greedy``: an
        image goes if one that is kept and comes before it is within the radius; holds the pairs, 32 bytes each.
        ``published``: if any that comes before it is.
    """

    kind: ClassVar[str] = "perceptual_dedup"
    shorthand: ClassVar[str] = "radius"
    scratch_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 40

    radius: int = Field(default=10, ge=0)
    removal: Literal["component", "greedy", "published"] = "component"

    @model_validator(mode="after")
    def _radius_within_a_hash(self) -> Self:
        if self.radius > self.bits:
            raise ValueError(f"radius: expected at most {self.bits}, the bits of a hash, got {self.radius}")
        return self

    @property
    def duplicates(self) -> str:
        what = {"phash": "DCT hash", "dhash": "difference hash"}[self.hash]
        how = "linked to" if self.removal == "component" else "as"
        laid = ", however laid" if self.dihedral else ""
        return f"{self.bits}-bit {what} {how} that of the row kept, at most {self.radius} bits apart{laid}"

    @property
    def unjudgeable(self) -> str:
        return "no image, or one that is damaged or blank"

    @property
    def least_similarity(self) -> float | None:
        return 1 - self.radius / self.bits

    def decide_needs(self) -> Needs:
        needs = super().decide_needs()
        return replace(needs, scores=(*self.produces(), *needs.scores))

    def fit_parameters(self) -> dict[str, Any]:
        return super().fit_parameters() | {"radius": self.radius, "removal": self.removal}

    def fit(self, view: FitView) -> Artefact:
        """``compared``: rows that have a hash and take part."""
        from pycurate.ops.dedup.perceptual import hashes_of_texts, perceptual_duplicates

        partners = self.new_partners(view)
        rows = np.concatenate(
            [
                np.flatnonzero(self.competing(view, shard) & (view.column(shard, self.flags_column) == 0))
                + partners.starts[shard]
                for shard in view.shards
            ]
        )
        self._check_memory(len(rows), view.memory_bytes)
        ends = np.searchsorted(rows, [partners.starts[shard] + view.rows(shard) for shard in view.shards])
        codes = np.empty((len(rows), self.bits // 64), np.uint64)
        begin = 0
        for shard, end in zip(view.shards, ends.tolist(), strict=True):
            texts = view.column(shard, self.hash_column)[rows[begin:end] - partners.starts[shard]]
            codes[begin:end] = hashes_of_texts(texts)
            begin = end
        rank = np.empty(len(rows), np.int64)
        rank[np.argsort(self.ranks(view)[rows])] = np.arange(len(rows))
        found = perceptual_duplicates(codes, self.radius, rank, self.removal)
        removed = np.flatnonzero(~found.kept)
        uids = pool_uids(view, rows[found.duplicate_of[removed]], partners.starts)
        partners.set(rows[removed], uids, found.similarity[removed])
        return self.artefact(view, partners, compared=len(rows))

    def _check_memory(self, rows: int, memory_bytes: int) -> None:
        needed = rows * (_FIT_ROW_BYTES + self.bits // 4)
        if needed > memory_bytes:
            raise MemoryCapError(
                f"memory: {self.title} compares {rows:,} hashes and needs {needed >> 20:,} MiB, the cap leaves "
                f"{memory_bytes >> 20:,}; allow more memory, or put exact_dedup on images before it"
            )

    def unjudged_rows(
        self, shard: str, columns: Mapping[str, ScoreArray], artefact: Artefact, rows: slice
    ) -> NDArray[np.bool_]:
        return np.asarray(columns[self.flags_column] != 0)

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        from pycurate.ops.dedup.perceptual import unjudged_reasons

        verdict = super().decide(shard, columns, uids, artefact)
        return replace(verdict, detail=unjudged_reasons(columns[self.flags_column]))
