"""``semantic_dedup``: drop rows whose embedding is like that of a row that comes before them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pycurate.index.kmeans_start import Start
from pycurate.io.atomic import write_json_atomic
from pycurate.kernels.device import device_of
from pycurate.ops.dedup.priority import Order, priority_keys
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join import RowSource, SimilarityJoin
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.cluster_join import ClusteredJoin, Clustering
from pycurate.pipeline.cluster_join.centroids import ITERATIONS, PROBES, TOLERANCE
from pycurate.pipeline.pool_rows import let_go, new_array, pool_ranks, pool_uids
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.dedup_base import PARTNER_ROW_BYTES, DedupStep, Partners
from pycurate.steps.duplicate_search import MAX_PAIRS, Candidates, centroid_similarities, duplicates_at, indexed
from pycurate.types import Rule

CLUSTER_ORDERS: dict[str, Order] = {"hard": "lowest", "easy": "highest"}
"""Similarity to the centroid of the row that stays first."""
_HELD_ROW_BYTES = 64  # places, ranks and decisions, beside what a join holds for every row
_OF_CLUSTERS = ("clusters", "probes", "iterations", "seed", "tolerance", "init", "min_recall")


class SemanticDedup(DedupStep):
    """Of rows whose embeddings are alike by cosine, keep one, as SemDeDup (Abbas et al., 2023) does.

    The rows that are compared are copied to scratch space, which takes as much disk as their embeddings; a run that was
    killed goes on there. A row whose embedding is zero or not finite is unjudged. To choose eps afterwards, use
    `pycurate.dedup` and its curve.

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
        ``exact``: every pair is compared. ``clustered``: within clusters and across their borders. ``index``: 32
        neighbours of each row. What the last two miss is measured, and the rule says it.
    keep
        Besides what every such step takes, in clustered mode ``hard`` or ``easy``: the row that is farthest from its
        centroid, or the nearest.
    clusters, probes, iterations, seed, tolerance, init, min_recall
        Of clustered mode, as `pycurate.clustered_join` takes them; ``min_recall`` is certified at 1 - eps.
    """

    kind: ClassVar[str] = "semantic_dedup"
    version: ClassVar[int] = 2
    shorthand: ClassVar[str] = "embedding"
    resumes: ClassVar[bool] = True
    keep_words: ClassVar[tuple[str, ...]] = ("lowest_uid", *CLUSTER_ORDERS)
    artefact_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 1
    scratch_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 40 + 64  # ranks, answers of the join

    embedding: str
    eps: float = Field(default=0.07, ge=0, le=2)
    removal: Removal = "published"
    strict: bool = False
    mode: Literal["exact", "clustered", "index"] = "exact"
    clusters: int | None = Field(default=None, ge=1)
    probes: int | Literal["exact"] = PROBES
    iterations: int = Field(default=ITERATIONS, ge=0)
    seed: int = 0
    tolerance: float = Field(default=TOLERANCE, ge=0, lt=1)
    init: Start = "random"
    min_recall: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _of_clustered_mode(self) -> Self:
        if self.mode != "clustered":
            if isinstance(self.keep, str) and self.keep in CLUSTER_ORDERS:
                raise ValueError(f"keep: {self.keep} orders rows by their distance to a centroid; add mode: clustered")
            for name in _OF_CLUSTERS:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: goes with mode: clustered, not with {self.mode}")
        if self.probes != "exact" and self.probes < 0:
            raise ValueError(f"probes: expected a number of clusters or exact, got {self.probes}")
        return self

    @property
    def scratch_embeddings(self) -> int:  # type: ignore[override]  # the protocol allows a property
        """A copy of the rows that compete, and one by cluster or for the index."""
        return 1 if self.mode == "exact" else 2

    @property
    def threshold(self) -> float:
        """1 - eps, without the noise of the subtraction."""
        return round(1 - self.eps, 12)

    @property
    def clustering(self) -> Clustering:
        """Of clustered mode."""
        return Clustering(
            self.clusters, self.probes, self.iterations, self.seed, tolerance=self.tolerance, init=self.init
        )

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

    def rules(self, artefact: Artefact) -> list[Rule]:
        """What the certificate of an approximate mode says stands with the rule."""
        duplicates, *others = super().rules(artefact)
        if recall := artefact.get("recall"):
            duplicates = replace(duplicates, description=f"{duplicates.description}; recall: {recall['sentence']}")
        return [duplicates, *others]

    def fit_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,))

    def fit_parameters(self) -> dict[str, Any]:
        names = ["embedding", "eps", "removal", "strict", "mode", *(_OF_CLUSTERS if self.mode == "clustered" else ())]
        return {**super().fit_parameters(), **{name: getattr(self, name) for name in names}}

    def fit(self, view: FitView) -> Artefact:
        """Compare the rows that compete, with the priority of ``keep``."""
        partners = self.new_partners(view)
        rows, source = self._copied(view, partners.starts)
        unjudged = np.zeros(len(partners.similarity), np.uint8)
        facts: dict[str, Any] = {}
        if source is not None:
            facts = self._compare(view, partners, rows, source, unjudged)
        return self.artefact(view, partners, unjudged=unjudged, **facts)

    def _compare(
        self,
        view: FitView,
        partners: Partners,
        rows: NDArray[np.int64],
        source: RowSource,
        unjudged: NDArray[np.uint8],
    ) -> dict[str, Any]:
        """Name the partners of ``rows`` and mark the unjudged; what a certificate says of an approximate mode."""
        memory_bytes = view.memory_bytes - _HELD_ROW_BYTES * len(rows)
        join = self._join(view, rows, source, memory_bytes)
        rank = self._rank(view, rows, source, join, partners.starts)
        found = duplicates_at(
            join, source, self.removal, rank, self.threshold, self.strict, MAX_PAIRS, view.scratch / "greedy",
            How("cosine", "exact", 0, None, device_of(view.device)), memory_bytes,
        )  # fmt: skip
        removed = np.flatnonzero(~found.kept)
        uids = pool_uids(view, rows[found.duplicate_of[removed]], partners.starts)
        partners.set(rows[removed], uids, found.similarity[removed])
        unjudged[rows[join.unjudged]] = 1
        if isinstance(join, SimilarityJoin):
            return {}
        certificate = join.certificate(self.threshold)
        return {"recall": {**certificate.to_dict(), "sentence": certificate.sentence()}}

    def _join(self, view: FitView, rows: NDArray[np.int64], source: RowSource, memory_bytes: int) -> Candidates:
        folder = view.scratch / "join"
        if self.mode == "exact":
            return SimilarityJoin(
                source, None, folder, "cosine", "exact", memory_bytes, 0, None, device_of(view.device)
            )
        if self.mode == "index":
            return indexed(source, folder, memory_bytes, 0, None, view.device)
        clustering = self.clustering
        clustering.require_rows(len(source))
        # Clusters follow from the order of rows: that of their uids, whatever the shards.
        by_uid = _ranks_of(pool_ranks(view, lambda shard: np.zeros(view.rows(shard), np.uint64), "uid_ranks"), rows)
        return ClusteredJoin(source, folder, clustering, self.min_recall, memory_bytes, 0, None, by_uid, view.device)

    def _rank(
        self,
        view: FitView,
        rows: NDArray[np.int64],
        source: RowSource,
        join: Candidates,
        starts: dict[str, int],
    ) -> NDArray[np.int64]:
        """(m,) place of each of ``rows`` in the order of ``keep``."""
        if not (isinstance(join, ClusteredJoin) and isinstance(self.keep, str) and self.keep in CLUSTER_ORDERS):
            return _ranks_of(self.ranks(view), rows)
        near = priority_keys(centroid_similarities(join, source, None, view.device), CLUSTER_ORDERS[self.keep])

        def keys(shard: str) -> NDArray[np.uint64]:
            first = starts[shard]
            begin, end = np.searchsorted(rows, (first, first + view.rows(shard)))
            of_shard = np.zeros(view.rows(shard), np.uint64)
            of_shard[rows[begin:end] - first] = near[begin:end]
            return of_shard

        return _ranks_of(pool_ranks(view, keys), rows)

    def _copied(self, view: FitView, starts: dict[str, int]) -> tuple[NDArray[np.int64], RowSource | None]:
        """The rows of the pool that compete, rising, and their embeddings in the scratch folder; None without any.

        A copy that an earlier call finished is taken: the scratch folder is one of these rows only.
        """
        parts = [starts[shard] + np.flatnonzero(self.competing(view, shard)) for shard in view.shards]
        rows = np.concatenate([np.empty(0, np.int64), *parts])
        path, marker = view.scratch / "rows.bin", view.scratch / "rows.json"
        if not len(rows):
            return rows, None
        if not marker.exists():
            stored = self._copy(view, rows)
            write_json_atomic(marker, {"dtype": stored.dtype.str, "dimension": stored.shape[1]})
        facts = json.loads(marker.read_text())
        shape = (len(rows), facts["dimension"])
        copied: NDArray[Any] = np.memmap(path, np.dtype(facts["dtype"]), "r", shape=shape)
        return rows, RowSource("rows", copied, "bfloat16" if copied.dtype == np.uint16 else None)

    def _copy(self, view: FitView, rows: NDArray[np.int64]) -> NDArray[Any]:
        stored: NDArray[Any] | None = None
        filled = 0
        for shard in view.shards:
            competing = self.competing(view, shard)
            for block in view.embedding_blocks(shard, self.embedding):
                values = block.embeddings[self.embedding]
                values = values[competing[block.start : block.start + block.rows]]
                if stored is None:
                    stored = new_array(view.scratch / "rows.bin", values.dtype, (len(rows), values.shape[1]))
                stored[filled : filled + len(values)] = values
                filled += len(values)
                let_go(stored)
        assert stored is not None  # there are rows
        return stored


def _ranks_of(ranks: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) the place of each row among ``rows`` alone, by ranks of the whole pool."""
    rank = np.empty(len(rows), np.int64)
    rank[np.argsort(np.asarray(ranks[rows]))] = np.arange(len(rows))
    return rank
