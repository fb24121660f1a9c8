"""``perceptual_dedup``: drop images that look like another image of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pycurate.kernels.hamming import MAX_PAIRS
from pycurate.pipeline.distinct_codes import SCRATCH_WORDS, DistinctCodes, FirstRows
from pycurate.pipeline.pool_rows import new_array, pool_uids
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.dedup_base import PARTNER_ROW_BYTES, DedupStep, Partners
from pycurate.steps.image_hash import HashingStep
from pycurate.types import ScoreArray, UidArray, Verdict

# Of a row of a block, beside its hash: 116 to 161 measured while it is joined with itself, and its results.
_BLOCK_ROW_BYTES = 180
_LEAST_BLOCK_ROWS = 1024
_PAIR_BYTES = 64  # of ``greedy``, while they are gathered and handed on
_MOST_WORDS = 4  # of a hash of 256 bits
_PART_ROWS = 1 << 17


class PerceptualDedup(HashingStep, DedupStep):
    """Of images whose perceptual hashes differ in few bits, keep one.

    Makes the score columns ``<name>.hash`` and ``<name>.flags`` as ``image_hash`` does. The join is exact for every
    radius. Hashes are compared by blocks, every two of them once, as large as the memory cap allows; what is known of
    the rows lies in memory-mapped files. Rows with the same hash are one row to it. A row without an image, or with one
    that is damaged or blank, is unjudged.

    Attributes
    ----------
    radius
        Most bits in which two hashes of images that look alike differ (10 of 64).
    removal
        ``component`` (default): of images that are linked, directly or through others, one is kept. ``greedy``: an
        image goes if one that is kept and comes before it is within the radius. ``published``: if any that comes
        before it is.
    """

    kind: ClassVar[str] = "perceptual_dedup"
    shorthand: ClassVar[str] = "radius"
    scratch_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 40 + 8 * (SCRATCH_WORDS + 3 * _MOST_WORDS) + 12

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
        from pycurate.ops.dedup.hamming_blocks import BlockedCodes, block_duplicates

        partners, ranks = self.new_partners(view), self.ranks(view)
        with DistinctCodes(view.scratch, self.bits // 64, view.memory_bytes) as codes:
            for _ in view.map(lambda shard: self._append(view, shard, ranks, partners.starts[shard], codes)):
                pass
            first = codes.first_rows()
            duplicate_of = new_array(view.scratch / "duplicate_of.bin", np.int64, first.rows.shape)
            distances = new_array(view.scratch / "distances.bin", np.int32, first.rows.shape)
            blocked = BlockedCodes(first.codes, self.radius, *self._block_size(view.memory_bytes))
            block_duplicates(blocked, self.removal, duplicate_of, distances)
            self._set_first(view, partners, first, duplicate_of, distances)
            for rows, first_rows in codes.copies():
                self._set_copies(view, partners, rows, first_rows)
            return self.artefact(view, partners, compared=codes.rows)

    def _append(self, view: FitView, shard: str, ranks: NDArray[np.int64], start: int, codes: DistinctCodes) -> None:
        from pycurate.ops.dedup.perceptual import hashes_of_texts

        flags, texts = view.column(shard, self.flags_column), view.column(shard, self.hash_column)
        compared = np.flatnonzero(self.competing(view, shard) & (flags == 0))
        for begin in range(0, len(compared), _PART_ROWS):
            rows = compared[begin : begin + _PART_ROWS]
            codes.append(hashes_of_texts(texts[rows]), ranks[start + rows], start + rows)

    def _block_size(self, memory_bytes: int) -> tuple[int, int]:
        """Rows of a block, of which two are held, and pairs, which take half of the memory where there are any."""
        shares = 4 if self.removal == "greedy" else 2
        rows = memory_bytes // shares // (_BLOCK_ROW_BYTES + self.bits // 4)
        return max(_LEAST_BLOCK_ROWS, rows), min(MAX_PAIRS, memory_bytes // 2 // _PAIR_BYTES)

    def _set_first(
        self,
        view: FitView,
        partners: Partners,
        first: FirstRows,
        duplicate_of: NDArray[np.int64],
        distances: NDArray[np.int32],
    ) -> None:
        for begin in range(0, len(duplicate_of), _PART_ROWS):
            part = np.asarray(duplicate_of[begin : begin + _PART_ROWS])
            removed = np.flatnonzero(part >= 0)
            uids = pool_uids(view, np.asarray(first.rows[part[removed]]), partners.starts)
            apart = np.asarray(distances[begin : begin + _PART_ROWS])[removed]
            rows = np.asarray(first.rows[begin : begin + _PART_ROWS])[removed]
            partners.set(rows, uids, (1 - apart / self.bits).astype(np.float32))

    def _set_copies(
        self, view: FitView, partners: Partners, rows: NDArray[np.int64], first_rows: NDArray[np.int64]
    ) -> None:
        """Rows with the hash of another: that one is named, or where it went, too, what it names."""
        for begin in range(0, len(rows), _PART_ROWS):
            part = slice(begin, begin + _PART_ROWS)
            named = first_rows[part]
            uids, similarity = pool_uids(view, named, partners.starts), np.ones(len(named), np.float32)
            if self.removal != "published":
                of_first = np.asarray(partners.similarity[named])
                went = np.flatnonzero(~np.isnan(of_first))
                uids[went], similarity[went] = partners.partner[named[went]], of_first[went]
            partners.set(rows[part], uids, similarity)

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
