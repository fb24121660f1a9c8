"""``semantic_dedup``: drop rows whose embedding is like that of a row that comes before them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join import RowSource, SimilarityJoin
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.cluster_join import ClusteredJoin
from pycurate.pipeline.pool_rows import let_go, new_array, pool_uids
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.dedup_base import PARTNER_ROW_BYTES, DedupStep
from pycurate.steps.duplicate_search import duplicates_at

MAX_PAIRS = 20_000_000
"""Of greedy removal; where there are more, it goes through the rows by blocks."""
_HELD_ROW_BYTES = 64  # places, ranks and decisions, beside what a join holds for every row


class SemanticDedup(DedupStep):
    """Of rows whose embeddings are alike by cosine, keep one, as SemDeDup (Abbas et al., 2023) does.

    The rows that are compared are copied to scratch space, which takes as much disk as their embeddings. A row whose
    embedding is zero or not finite is unjudged. To choose eps afterwards, use `pycurate.dedup` and its curve.

    Attributes
    ----------
    embedding
        Its name.
    eps
        Rows are duplicates from a cosine of 1 - eps on.
    removal
        ``published``: a row goes if any row before it reaches that, even one that goes itself. ``greedy``: only if one
        that stays does. ``component``: of rows linked, directly or through others, the first stays, and ``value`` in
        the ledger is the weakest link to it.
    strict
        Only above 1 - eps, not at it.
    mode
        ``exact``: every pair is compared. ``clustered``: within clusters and across their borders.
    clusters, probes
        Of clustered mode, as `pycurate.clustered_join` takes them.
    """

    kind: ClassVar[str] = "semantic_dedup"
    shorthand: ClassVar[str] = "embedding"
    artefact_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 1
    scratch_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 40 + 64  # ranks, answers of the join; embeddings besides

    embedding: str
    eps: float = Field(default=0.07, ge=0, le=2)
    removal: Removal = "published"
    strict: bool = False
    mode: Literal["exact", "clustered"] = "exact"
    clusters: int | None = Field(default=None, ge=1)
    probes: int = Field(default=4, ge=0)

    @property
    def threshold(self) -> float:
        """1 - eps, without the noise of the subtraction."""
        return round(1 - self.eps, 12)

    @property
    def duplicates(self) -> str:
        sign = ">" if self.strict else ">="
        return f"cosine of {self.embedding} {sign} {self.threshold:g} with a row before it, {self.removal} removal"

    @property
    def unjudgeable(self) -> str:
        return f"embedding {self.embedding} is zero or not finite"

    @property
    def least_similarity(self) -> float | None:
        return self.threshold

    def fit_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,))

    def fit_parameters(self) -> dict[str, Any]:
        names = ("embedding", "eps", "removal", "strict", "mode", "clusters", "probes")
        return {**super().fit_parameters(), **{name: getattr(self, name) for name in names}}

    def fit(self, view: FitView) -> Artefact:
        """Compare the rows that compete, with the priority of ``keep``."""
        partners = self.new_partners(view)
        rows, source = self._copied(view, partners.starts)
        total = len(partners.similarity)
        unjudged = np.zeros(total, np.uint8)
        if source is not None:
            ranks = np.asarray(self.ranks(view)[rows])
            rank = np.empty(len(rows), np.int64)
            rank[np.argsort(ranks)] = np.arange(len(rows))
            memory_bytes = view.memory_bytes - _HELD_ROW_BYTES * len(rows)
            join = self._join(view, source, memory_bytes)
            how = How("cosine", "exact", 0, None)
            found = duplicates_at(
                join, source, self.removal, rank, self.threshold, self.strict, MAX_PAIRS, view.scratch / "greedy",
                how, memory_bytes,
            )  # fmt: skip
            removed = np.flatnonzero(~found.kept)
            uids = pool_uids(view, rows[found.duplicate_of[removed]], partners.starts)
            partners.set(rows[removed], uids, found.similarity[removed])
            unjudged[rows[join.unjudged]] = 1
        return self.artefact(view, partners, unjudged=unjudged)

    def _join(self, view: FitView, source: RowSource, memory_bytes: int) -> SimilarityJoin | ClusteredJoin:
        folder = view.scratch / "join"
        if self.mode == "exact":
            return SimilarityJoin(source, None, folder, "cosine", "exact", memory_bytes, 0, None)
        return ClusteredJoin(source, folder, self.clusters, self.probes, None, 10, 0, None, memory_bytes, 0, None)

    def _copied(self, view: FitView, starts: dict[str, int]) -> tuple[NDArray[np.int64], RowSource | None]:
        """The rows of the pool that compete, rising, and their embeddings in the scratch folder; None without any."""
        parts = [starts[shard] + np.flatnonzero(self.competing(view, shard)) for shard in view.shards]
        rows = np.concatenate([np.empty(0, np.int64), *parts])
        stored: NDArray[Any] | None = None
        filled = 0
        for shard in view.shards if len(rows) else ():
            competing = self.competing(view, shard)
            for block in view.embedding_blocks(shard, self.embedding):
                values = block.embeddings[self.embedding]
                values = values[competing[block.start : block.start + block.rows]]
                if stored is None:
                    stored = new_array(view.scratch / "rows.bin", values.dtype, (len(rows), values.shape[1]))
                stored[filled : filled + len(values)] = values
                filled += len(values)
                let_go(stored)
        if stored is None:
            return rows, None
        return rows, RowSource("rows", stored, "bfloat16" if stored.dtype == np.uint16 else None)
