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
    caption_shingles,
    minhash_duplicates,
    minhash_rule,
    minhash_signatures,
    missed_fraction,
)
from pycurate.pipeline.exchange import shared_keys
from pycurate.pipeline.pool_rows import pool_uids
from pycurate.pipeline.step import Artefact, FitView, Needs, Pairs
from pycurate.steps.dedup_base import DedupStep
from pycurate.types import Block, ScoreArray

_ROW_BYTES = 768  # of a caption that is compared: its text, its rank, entries of the buckets' sorts
_SHINGLE_BYTES, _VALUE_BYTES, _BAND_BYTES = 24, 4, 8


class MinHashDedup(DedupStep):
    """Of captions whose sets of n-grams have a Jaccard similarity at or above a threshold, keep one.

    Makes the score column ``<name>.shingles`` and keeps 12 bytes for every band of every caption in the workspace.
    Captions that share a band are brought together by key and read again, as many at a time as the memory cap allows;
    those that are similar are linked, in memory for 40 bytes a row of the pool, and whole groups are decided at once.
    The result is that of `pycurate.minhash_duplicates` on the captions of the whole pool. A caption without words is
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
        """Captions that share a band are compared, those linked by similarity decided together: ``linked`` of them."""
        partners, ranks = self.new_partners(view), self.ranks(view)
        cost = self._cost(view)
        labels = self._labels(view, partners.starts, cost)
        sizes = np.bincount(labels, minlength=len(labels))
        rows = np.flatnonzero(sizes[labels] > 1)
        rows = rows[np.argsort(labels[rows], kind="stable")]
        ends = np.flatnonzero(np.append(labels[rows][1:] != labels[rows][:-1], True)[: len(rows)]) + 1
        for first, last in self._batches(view, cost[rows], np.append(0, ends)):
            group = np.sort(rows[first:last])
            local = np.empty(len(group), np.int64)
            local[np.argsort(ranks[group])] = np.arange(len(group))
            found = minhash_duplicates(
                _captions_at(view, self.column, group, partners.starts),
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
            uids = pool_uids(view, group[found.duplicate_of[removed]], partners.starts)
            partners.set(group[removed], uids, found.similarity[removed])
        return self.artefact(view, partners, linked=len(rows))

    def _cost(self, view: FitView) -> NDArray[np.int64]:
        """(rows of the pool,) bytes that comparing each caption takes."""
        rule = self.rule
        fixed = _ROW_BYTES + _VALUE_BYTES * rule.bands * rule.rows + _BAND_BYTES * rule.bands
        columns = [view.column(shard, self.shingles_column) for shard in view.shards]
        cost: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *columns]) * _SHINGLE_BYTES + fixed
        return cost

    def _labels(self, view: FitView, starts: Mapping[str, int], cost: NDArray[np.int64]) -> NDArray[np.int64]:
        """(rows of the pool,) the lowest row that each is linked to by similar captions that share a band."""
        rule, total = self.rule, len(cost)
        labels = np.arange(total)
        masks = {shard: self.competing(view, shard) for shard in view.shards}
        for rows, begins in shared_keys(view, starts, masks.__getitem__, max(1, view.memory_bytes // 4)):
            if len(begins) == 1:
                continue
            known = labels[rows]
            # Of a band whose captions are known to be linked nothing new can come.
            is_new = np.maximum.reduceat(known, begins[:-1]) != np.minimum.reduceat(known, begins[:-1])
            sizes = np.diff(begins)
            rows, begins = rows[np.repeat(is_new, sizes)], np.append(0, np.cumsum(sizes[is_new]))
            for first, last in self._batches(view, cost[rows], begins):
                asked = np.unique(rows[first:last])
                captions = _captions_at(view, self.column, asked, starts)
                sets = caption_shingles(captions, rule.n, rule.of, normalise=self.normalise)
                linked = sets.components_above(rule.threshold, rule.bands, rule.rows, self.seed)
                labels = lowest_of_component(total, labels[asked[linked]], labels[asked])[labels]
        return labels

    def _batches(self, view: FitView, cost: NDArray[np.int64], begins: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Where runs of groups begin and end, as many as the memory cap bears; ``begins`` is where each group does."""
        spent = np.append(0, np.cumsum(cost))[begins]
        limit = view.memory_bytes // 2  # the rest is for what the rows were found by
        group = 0
        while group < len(begins) - 1:
            stop = int(np.searchsorted(spent, spent[group] + limit, side="right")) - 1
            if stop == group:
                raise MemoryCapError(
                    f"memory: {self.title} found {int(begins[group + 1] - begins[group]):,} captions that share a band "
                    f"of their signatures or are linked, and comparing them needs "
                    f"{int(spent[group + 1] - spent[group]) >> 20:,} MiB, the cap leaves {limit >> 20:,}; "
                    "allow more memory, put exact_dedup on captions before it, or more rows in a band"
                )
            yield int(begins[group]), int(begins[stop])
            group = stop

    def unjudged_rows(
        self, shard: str, columns: Mapping[str, ScoreArray], artefact: Artefact, rows: slice
    ) -> NDArray[np.bool_]:
        return np.asarray(columns[self.shingles_column] == 0)


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
