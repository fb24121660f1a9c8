"""``coreset``: keep the rows that represent all best, by facility location or k-centre."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pycurate.errors import MemoryCapError, RecipeError
from pycurate.index.graph_build import knn_graph
from pycurate.index.kmeans import assign, kmeans
from pycurate.index.rows import Rows
from pycurate.ops.selection.facility import FacilityLocation, facility_location
from pycurate.ops.selection.k_center import KCenter, k_center
from pycurate.ops.selection.radix_select import fraction_count
from pycurate.pipeline.pool_rows import let_go, new_array, shard_starts
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep
from pycurate.types import Rule, ScoreArray, UidArray, Verdict

DROPPED, UNJUDGED = np.uint8(1), np.uint8(2)
_ROW_BYTES = 112
"""Beside the graph: places, uids and their order, what each row is covered by."""
_NEIGHBOR_BYTES = 128
"""Of a neighbour of a row while the graph is made and symmetrised: 121 to 128 measured."""


class Coreset(DecidingStep):
    """Of the rows that earlier steps left, keep those that represent all of them best by cosine.

    Their embeddings are copied to scratch space in the order of uids, so that the choice and its ties do not depend on
    shards. Ties go to the lower uid.

    Attributes
    ----------
    embedding
        Its name.
    rows
        How many to keep. One of ``rows`` and ``fraction``.
    fraction
        Share of the rows left that can be judged, above 0 and at most 1: ``int(N * fraction)``, at least 1.
    method
        ``facility_location``: the summed similarity of all rows to the nearest kept one is large, by greedy picks on
        the graph of nearest neighbours. ``k_center``: the row farthest from any kept one is near, by farthest-first
        traversal; takes outliers first, and one pass over the embeddings for each row kept.
    neighbors
        Of facility location: in the graph.
    graph
        ``exact``: every pair of rows is compared. ``ivf``: of groups near each other; the rule says how
        many of the nearest neighbours that finds.
    parts
        Of facility location: k-means clusters that first choose on their own; less memory for very many rows.
    bound_steps
        Of facility location: passes that tighten the certificate in the rule's description.
    """

    kind: ClassVar[str] = "coreset"
    shorthand: ClassVar[str] = "embedding"
    fits: ClassVar[bool] = True
    fits_survivors: ClassVar[bool] = True
    artefact_row_bytes: ClassVar[int] = 5
    scratch_row_bytes: ClassVar[int] = 5  # embeddings besides

    embedding: str
    rows: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    method: Literal["facility_location", "k_center"] = "facility_location"
    neighbors: int = Field(default=16, ge=1)
    graph: Literal["exact", "ivf"] = "exact"
    parts: int | None = Field(default=None, ge=1)
    bound_steps: int = Field(default=20, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("expected one of rows and fraction")
        return self

    def decide_needs(self) -> Needs:
        return Needs(uids=True)

    def fit_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,))

    def fit_parameters(self) -> dict[str, Any]:
        names = ("embedding", "rows", "fraction", "method", "neighbors", "graph", "parts", "bound_steps", "seed")
        return {name: getattr(self, name) for name in names}

    def fit(self, view: FitView) -> Artefact:
        """``code`` (rows of the pool,) uint8 as verdicts have it, ``similarity`` float32 to the nearest kept row, and
        how good the choice is."""
        starts, total = shard_starts(view)
        code = new_array(view.scratch / "code.bin", np.uint8, (total,))
        similarity = new_array(view.scratch / "similarity.bin", np.float32, (total,))
        places = np.concatenate(
            [np.empty(0, np.int64), *(starts[shard] + np.flatnonzero(view.survivors(shard)) for shard in view.shards)]
        )
        facts: dict[str, Any] = {"kept": 0, "rows": len(places), "certificate": None}
        if len(places):
            self._require_memory(view, len(places))
            places, x = self._by_uid(view, places)
            facts |= self._choose(x, places, code, similarity, view.device)
        return {**facts, "code": code, "similarity": similarity, "starts": starts}

    def _choose(
        self,
        x: NDArray[Any],
        places: NDArray[np.int64],
        code: NDArray[np.uint8],
        similarity: NDArray[np.float32],
        device: str | None,
    ) -> dict[str, Any]:
        dtype: Literal["bfloat16"] | None = "bfloat16" if x.dtype == np.uint16 else None
        judged = Rows.of("x", x, dtype).judged("cosine")
        count = self._count(int(np.count_nonzero(judged)))
        code[places] = np.where(judged, DROPPED, UNJUDGED)
        facts: dict[str, Any] = {"kept": count, "rows": int(np.count_nonzero(judged)), "certificate": None}
        if not count:
            return facts
        found: FacilityLocation | KCenter
        if self.method == "k_center":
            found = k_center(x, count, dtype=dtype)
            facts["certificate"] = f"no row farther than {found.radius:.4g} rad, {found.least_radius:.4g} at best"
        else:
            found, note = self._facility_location(x, count, dtype, device)
            facts["certificate"] = f"at least {found.ratio:.4g} of the largest objective on the {note} graph"
        code[places[found.rows]] = 0
        similarity[places] = found.similarities
        let_go(code)
        let_go(similarity)
        return facts

    def _facility_location(
        self, x: NDArray[Any], count: int, dtype: Literal["bfloat16"] | None, device: str | None
    ) -> tuple[FacilityLocation, str]:
        """What it chooses, and how the graph was made."""
        made = knn_graph(x, self.neighbors, method=self.graph, seed=self.seed, dtype=dtype, device=device)
        graph = made.symmetrize()
        partition = None
        if self.parts is not None:
            parts = min(self.parts, len(x) - len(graph.unjudged))
            centroids = kmeans(x, parts, seed=self.seed, dtype=dtype, device=device).centroids
            partition = assign(x, centroids, dtype=dtype, device=device).clusters
        steps = self.bound_steps
        found = facility_location(graph, count, negative="zero", partition=partition, bound_steps=steps)
        return found, graph.note

    def _count(self, judged: int) -> int:
        if self.rows is None:
            assert self.fraction is not None
            return max(1, fraction_count(self.fraction, judged)) if judged else 0
        if self.rows > judged:
            raise RecipeError(
                f"{self.title}: rows: expected at most the {judged:,} rows left that can be judged, got {self.rows:,}; "
                "lower it, or give a fraction"
            )
        return self.rows

    def _require_memory(self, view: FitView, rows: int) -> None:
        needed = rows * (_ROW_BYTES + (_NEIGHBOR_BYTES * self.neighbors if self.method == "facility_location" else 0))
        if needed > view.memory_bytes:
            raise MemoryCapError(
                f"{self.title}: {self.method} of {rows:,} rows takes {needed >> 20:,} MiB, of which the cap leaves "
                f"{view.memory_bytes >> 20:,}; raise the cap by the difference, lower neighbors, or leave fewer rows"
            )

    def _by_uid(self, view: FitView, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The rows of the pool that compete in the order of (uid, row), and their embeddings in the scratch folder."""
        uids = np.concatenate([view.uids(shard)[view.survivors(shard)] for shard in view.shards])
        order = np.lexsort((uids["f1"], uids["f0"]))
        target = np.empty(len(order), np.int64)
        target[order] = np.arange(len(order))
        stored: NDArray[Any] | None = None
        filled = 0
        for shard in view.shards:
            competing = view.survivors(shard)
            for block in view.embedding_blocks(shard, self.embedding):
                values = block.embeddings[self.embedding]
                values = values[competing[block.start : block.start + block.rows]]
                if stored is None:
                    stored = new_array(view.scratch / "rows.bin", values.dtype, (len(order), values.shape[1]))
                stored[target[filled : filled + len(values)]] = values
                filled += len(values)
                let_go(stored)
        assert stored is not None
        return places[order], stored

    def rules(self, artefact: Artefact) -> list[Rule]:
        how = "k-centre" if self.method == "k_center" else f"facility location on {self.neighbors} neighbours"
        what = (
            f"one of the {artefact['kept']:,} rows that represent {artefact['rows']:,} best ({how} by {self.embedding}"
        )
        what += ")" if artefact["certificate"] is None else f"; {artefact['certificate']})"
        return [Rule(self.title, what), self.unjudged_rule(f"embedding {self.embedding} is zero or not finite")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        assert uids is not None
        part = slice(artefact["starts"][shard], artefact["starts"][shard] + len(uids))
        code = np.asarray(artefact["code"][part])
        value = np.where(code == UNJUDGED, np.nan, artefact["similarity"][part].astype(np.float64))
        return Verdict(code, value)
