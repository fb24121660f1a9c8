"""``minhash_dedup``: drop captions whose n-grams are nearly those of another caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pycurate.arrow import arrow_values
from pycurate.errors import MemoryCapError
from pycurate.kernels.block_similarity import lowest_of_component
from pycurate.kernels.ngram import band_keys
from pycurate.ops.dedup.minhash import (
    MinHashPreset,
    minhash_duplicates,
    minhash_rule,
    minhash_signatures,
    missed_fraction,
)
from pycurate.pipeline.exchange import linked_rows
from pycurate.pipeline.pool_rows import pool_uids, shard_starts
from pycurate.pipeline.step import Artefact, FitView, Needs, Pairs
from pycurate.steps.dedup_base import DedupStep
from pycurate.types import Block, ScoreArray

_ROW_BYTES = 512  # of a caption that is compared: its text, its rank, entries of the buckets' sorts
_SHINGLE_BYTES, _VALUE_BYTES, _BAND_BYTES = 24, 4, 8


class MinHashDedup(DedupStep):
    """Of captions whose sets of n-grams have a Jaccard similarity at or above a threshold, keep one.

    Makes the score column ``<name>.shingles`` and keeps 12 bytes for every band of every caption in the workspace.
    Captions that share a band are brought together by key, linked into groups in memory for 32 bytes a row of the pool,
    and read again, as many groups at a time as the memory cap allows; within a group every comparison is verified. The
    result is that of `pycurate.minhash_duplicates` on the captions of the whole pool. A caption without words is
    unjudged. A pair of similarity s is missed with probability (1 - s**rows)**bands.

    Attributes
    ----------
    column
        The column of captions; the pool's caption column by default.
    preset
        ``minhash-captions`` (default), ``minhash`` or ``minhash-256``; see `pycurate.minhash_pairs`.
    threshold, n, tokens, bands, rows
        Each replaces what the preset says. ``n``: a number, or [lowest, highest]; ``tokens``: words or characters.
    removal
        ``greedy`` (default): a caption goes if one that is kept and comes before it reaches the threshold.
        ``component``: of captions that are linked, directly or through others, one is kept.
    normalise
        NFKC, case folding and one space for every run of white space first (default).
    seed
        Of the permutations.
    """

    kind: ClassVar[str] = "minhash_dedup"
    shorthand: ClassVar[str] = "preset"
    exchanges: ClassVar[bool] = True
    python_bound: ClassVar[bool] = True

    column: str = "caption"
    preset: Literal["minhash-captions", "minhash", "minhash-256"] = "minhash-captions"
    threshold: float | None = Field(default=None, ge=0, le=1)
    n: int | tuple[int, int] | None = None
    tokens: Literal["words", "characters"] | None = None
    bands: int | None = Field(default=None, ge=1)
    rows: int | None = Field(default=None, ge=1)
    removal: Literal["greedy", "component"] = "greedy"
    normalise: bool = True
    seed: int = 1

    @model_validator(mode="after")
    def _lengths_that_go_together(self) -> Self:
        lowest, highest = (self.n, self.n) if isinstance(self.n, int) else (self.n or (1, 1))
        if not 1 <= lowest <= highest <= 1024:
            raise ValueError(f"n: expected a number or [lowest, highest] from 1 to 1,024, got {self.n!r}")
        return self

    @property
    def rule(self) -> MinHashPreset:
        """The preset with what was given in its place."""
        return minhash_rule(self.preset, self.threshold, self.n, self.tokens, self.bands, self.rows)

    @property
    def shingles_column(self) -> str:
        return f"{self.title}.shingles"

    @property
    def duplicates(self) -> str:
        rule = self.rule
        n = rule.n if isinstance(rule.n, int) else f"{rule.n[0]} to {rule.n[1]}"
        missed = missed_fraction(rule.threshold, rule.bands, rule.rows)
        how = "linked to" if self.removal == "component" else "as"
        return (
            f"n-grams ({n} {rule.of}) {how} those of the row kept, Jaccard >= {rule.threshold:g}; at the threshold "
            f"{missed:.2g} of pairs are missed"
        )

    @property
    def unjudgeable(self) -> str:
        return "no caption, or none with a word"

    @property
    def least_similarity(self) -> float | None:
        return self.rule.threshold if self.removal == "greedy" else None

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.shingles_column,)

    def score_parameters(self) -> dict[str, Any]:
        rule = self.rule
        shape = {"n": rule.n, "of": rule.of, "bands": rule.bands, "rows": rule.rows, "seed": self.seed}
        return {"column": self.column, "normalise": self.normalise, **shape}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        signed = minhash_signatures(
            block.columns[self.column],
            n=self.rule.n,
            of=self.rule.of,
            permutations=1,
            normalise=self.normalise,
            threads=1,
        )
        return {self.shingles_column: signed.shingles}

    def exchange(self, block: Block) -> Pairs:
        rule = self.rule
        signed = minhash_signatures(
            block.columns[self.column],
            n=rule.n,
            of=rule.of,
            permutations=rule.bands * rule.rows,
            seed=self.seed,
            normalise=self.normalise,
            threads=1,
        )
        judged = np.flatnonzero(signed.shingles)
        keys = band_keys(np.ascontiguousarray(signed.signatures[judged]), rule.bands, rule.rows)
        return keys.reshape(-1), np.repeat(judged.astype(np.uint32), rule.bands)

    def decide_needs(self) -> Needs:
        needs = super().decide_needs()
        return replace(needs, scores=(self.shingles_column, *needs.scores))

    def fit_parameters(self) -> dict[str, Any]:
        return super().fit_parameters() | {"threshold": self.rule.threshold, "removal": self.removal}

    def fit(self, view: FitView) -> Artefact:
        """Linked captions are compared group by group; ``compared`` is how many captions share a band with another."""
        partners, ranks = self.new_partners(view), self.ranks(view)
        compared = 0
        for rows in self._batches(view, _linked(view, self)):
            compared += len(rows)
            captions = _captions_at(view, self.column, rows, partners.starts)
            local = np.empty(len(rows), np.int64)
            local[np.argsort(ranks[rows])] = np.arange(len(rows))
            found = minhash_duplicates(
                captions,
                local,
                self.threshold,
                self.preset,
                removal=self.removal,
                n=self.n,
                of=self.tokens,
                bands=self.bands,
                rows=self.rows,
                seed=self.seed,
                normalise=self.normalise,
            )
            removed = np.flatnonzero(~found.kept)
            uids = pool_uids(view, rows[found.duplicate_of[removed]], partners.starts)
            partners.set(rows[removed], uids, found.similarity[removed])
        return self.artefact(view, partners, compared=compared)

    def _batches(self, view: FitView, labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Rising rows of the pool: whole groups of two and more, as many at a time as the memory cap bears."""
        sizes = np.bincount(labels, minlength=len(labels))
        rows = np.flatnonzero(sizes[labels] > 1)
        rows = rows[np.argsort(labels[rows], kind="stable")]
        groups = labels[rows]
        rule = self.rule
        columns = [view.column(shard, self.shingles_column) for shard in view.shards]
        shingles = np.concatenate([np.empty(0, np.int64), *columns])[rows]
        fixed = _ROW_BYTES + _VALUE_BYTES * rule.bands * rule.rows + _BAND_BYTES * rule.bands
        ends = np.flatnonzero(np.append(groups[1:] != groups[:-1], True)[: len(groups)]) + 1
        cost = np.cumsum(fixed + _SHINGLE_BYTES * shingles.astype(np.int64))[ends - 1]
        begin, spent = 0, 0
        while begin < len(ends):
            stop = int(np.searchsorted(cost, spent + view.memory_bytes, side="right"))
            if stop == begin:
                raise MemoryCapError(
                    f"memory: {self.title} found a group of {int(ends[begin] - (ends[begin - 1] if begin else 0)):,} "
                    f"captions that share bands of their signatures, and comparing them needs "
                    f"{int(cost[begin] - spent) >> 20:,} MiB, the cap leaves {view.memory_bytes >> 20:,}; allow more "
                    "memory, or put exact_dedup on captions before it, or more rows in a band"
                )
            yield np.sort(rows[ends[begin - 1] if begin else 0 : ends[stop - 1]])
            spent, begin = int(cost[stop - 1]), stop

    def unjudged_rows(
        self, shard: str, columns: Mapping[str, ScoreArray], artefact: Artefact, rows: slice
    ) -> NDArray[np.bool_]:
        return np.asarray(columns[self.shingles_column] == 0)


def _linked(view: FitView, step: MinHashDedup) -> NDArray[np.int64]:
    """(rows of the pool,) the lowest row that each is linked to by shared bands."""
    starts, total = shard_starts(view)
    labels = np.arange(total)
    masks = {shard: step.competing(view, shard) for shard in view.shards}
    for first, other in linked_rows(view, starts, masks.__getitem__):
        labels = lowest_of_component(total, labels[first], labels[other])[labels]
    return labels


def _captions_at(view: FitView, column: str, rows: NDArray[np.int64], starts: Mapping[str, int]) -> pa.Array:
    """The captions of these rising rows of the pool, read shard by shard."""

    def of_shard(shard: str) -> list[pa.Array]:
        begin, end = np.searchsorted(rows, [starts[shard], starts[shard] + view.rows(shard)])
        wanted = rows[begin:end] - starts[shard]
        found: list[pa.Array] = []
        if not len(wanted):
            return found
        for block in view.column_blocks(shard, column):
            inside = wanted[(wanted >= block.start) & (wanted < block.start + block.rows)]
            if len(inside):
                found.append(block.columns[column].take(arrow_values(inside - block.start)).cast(pa.large_string()))
            if block.start + block.rows > wanted[-1]:
                break
        return found

    parts = [part for shard in view.map(of_shard) for part in shard]
    return pa.concat_arrays(parts)
