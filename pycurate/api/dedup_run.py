"""The search of `pycurate.dedup`: read the rows, look for duplicates, leave the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pycurate.api.dedup_outputs import hex_of
from pycurate.api.dedup_rows import JudgedRows, RowInput, mapped_source, stored_facts
from pycurate.api.dedup_settings import Settings
from pycurate.api.dedup_store import STORE, DuplicateStore
from pycurate.engine import Progress, default_memory_bytes
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import WorkspaceError
from pycurate.io.atomic import write_json_atomic
from pycurate.kernels.arrays import thread_count_of
from pycurate.kernels.device import Place, device_of
from pycurate.kernels.distinct import Floats, Indices
from pycurate.ops.dedup.removal import Duplicates
from pycurate.pipeline.block_join import RowSource, SimilarityJoin
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.cluster_join import ClusteredJoin
from pycurate.pipeline.duplicate_folder import DuplicateFolder
from pycurate.steps.duplicate_search import (
    Arrays,
    Candidates,
    centroid_similarities,
    indexed,
    search,
    search_greedily,
)
from pycurate.steps.semantic_dedup import CLUSTER_ORDERS
from pycurate.types import UidArray

QUESTION = "question.json"
SEARCH, ROWS = "search", "rows"
HELD_ROW_BYTES = 48
"""Uids, ranks and priorities, beside what a join holds for every row."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One call on one folder; whoever uses it holds the folder's lock."""

    out: Path
    given: RowInput
    memory_bytes: int | None
    threads: int | None
    progress: Progress
    device: str | None = None  # where rows are compared

    @property
    def place(self) -> Place:
        """The device as tasks are told it."""
        return device_of(self.device)

    def require_question(self, question: dict[str, Any]) -> None:
        """WorkspaceError where the folder is about something else; else it says from now on what it is about."""
        path = self.out / QUESTION
        if not path.exists():
            write_json_atomic(path, question)
            return
        found = json.loads(path.read_text())
        differs = [name for name in (*question, *found) if found.get(name) != question.get(name)]
        if differs:
            name = differs[0]
            raise WorkspaceError(
                f"out: {self.out} holds a search with another {name} ({_short(found.get(name))}, now "
                f"{_short(question.get(name))}); choose another folder, or delete it"
            )

    def stored(self, floor: float | None) -> DuplicateStore | None:
        """The finished search, None where there is none or its floor is above the one that is asked for."""
        if DuplicateFolder(self.out / STORE).facts() is None:
            return None
        store = DuplicateStore(self.out)
        return None if floor is not None and np.float32(floor) < np.float32(store.floor) else store

    def search(self, settings: Settings) -> DuplicateStore:
        """Read the rows and look for duplicates."""
        judged = self.given.read(settings.priority, self.out / ROWS, self.progress)
        source, left = mapped_source(judged.matrices), self.left_bytes(len(judged.uids))
        told = Stage(self.progress, "comparing rows")
        join: Candidates
        if settings.mode == "exact":
            join = self.join(source, None, "join", left, told)
        elif settings.mode == "clustered":
            join = self._clustered(source, settings, judged.uid_rank(), left, told)
        else:
            threads = thread_count_of(self.threads)
            join = indexed(source, self.out / SEARCH / "join", left, threads, told.tell, self.device)
        if settings.priority in CLUSTER_ORDERS:
            assert isinstance(join, ClusteredJoin)
            near = centroid_similarities(join, source, self.threads, self.device)
            judged = with_cluster_order(judged, near, settings.priority)
        rank = judged.rank()
        floor, threshold = settings.default_floor, settings.limit
        arrays = search(join, settings.removal, rank, floor, settings.max_pairs)
        facts: dict[str, Any] = {"floor": floor, "only_threshold": None}
        if arrays is None:
            arrays = self.greedily(join, source, rank, threshold, settings.strict, left, told)
            facts = only_threshold_facts(threshold, settings.max_pairs)
        if not isinstance(join, SimilarityJoin):
            certificate = join.certificate(threshold if settings.min_recall is None else floor)
            facts["certificate"] = {**certificate.to_dict(), "sentence": certificate.sentence()}
        told.finish()
        batches = [{**judged.facts, "mode": settings.mode}]
        facts = {**settings.question(), **facts, "batches": batches, "matrices": stored_facts(judged.matrices)}
        return self.write_store(facts, arrays, judged.uids, rank, join.unjudged)

    def greedily(
        self,
        candidates: Candidates,
        source: RowSource,
        rank: Indices,
        threshold: float,
        strict: bool,
        left_bytes: int,
        told: Stage,
        decided: Duplicates | None = None,
    ) -> Arrays:
        """Greedy removal at one threshold, without pairs."""
        how = How("cosine", "exact", thread_count_of(self.threads), told.tell, self.place)
        folder = self.out / SEARCH / "greedy"
        return search_greedily(candidates, source, rank, threshold, strict, folder, how, left_bytes, decided=decided)

    def left_bytes(self, rows: int) -> int:
        """What a join may allocate."""
        limit = default_memory_bytes() if self.memory_bytes is None else self.memory_bytes
        return limit - BASE_BYTES - HELD_ROW_BYTES * rows

    def join(
        self, source: RowSource, other: RowSource | None, name: str, left_bytes: int, told: Stage
    ) -> SimilarityJoin:
        """A join in a folder of its own."""
        threads = thread_count_of(self.threads)
        folder = self.out / SEARCH / name
        return SimilarityJoin(source, other, folder, "cosine", "exact", left_bytes, threads, told.tell, self.place)

    def write_store(
        self, facts: dict[str, Any], arrays: Arrays, uids: UidArray, rank: Indices, unjudged: Indices
    ) -> DuplicateStore:
        """Write and open the store."""
        named = [hex_of(uids, row) for row in unjudged[:5].tolist()]
        DuplicateFolder(self.out / STORE).write(
            {"rows": len(rank), **facts, "unjudged": {"rows": len(unjudged), "first": named}},
            {"uids": uids, "rank": rank, "unjudged": unjudged, **arrays},
        )
        return DuplicateStore(self.out)

    def _clustered(
        self, source: RowSource, settings: Settings, uid_rank: Indices, left_bytes: int, told: Stage
    ) -> ClusteredJoin:
        settings.clusters.require_rows(len(source))
        return ClusteredJoin(
            source,
            self.out / SEARCH / "join",
            settings.clusters,
            settings.min_recall,
            left_bytes,
            thread_count_of(self.threads),
            told.tell,
            uid_rank,
            self.device,
        )


def only_threshold_facts(threshold: float, max_pairs: int) -> dict[str, Any]:
    """What a store says that answers one threshold."""
    return {"floor": threshold, "only_threshold": threshold, "max_pairs": max_pairs}


def with_cluster_order(judged: JudgedRows, similarities: Floats, order: str) -> JudgedRows:
    """Rows in the order of their distance to their centroid: hard, the farthest first; easy, the nearest."""
    near = similarities.astype(np.float64)
    return JudgedRows(judged.matrices, judged.uids, -near if order == "hard" else near, judged.facts)


class Stage:
    """A fraction, told as percent of a stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name, self._told = progress, name, -1

    def tell(self, fraction: float) -> None:
        """Fractions may fall back, where one question follows another."""
        percent = int(100 * fraction)
        if self._told < 0:
            self._progress.start(self._name, 100)
            self._told = 0
        for _ in range(self._told, percent):
            self._progress.advance(0)
        self._told = max(self._told, percent)

    def finish(self) -> None:
        """The stage is over."""
        if self._told >= 0:
            self._progress.finish()


def _short(value: object) -> str:
    if isinstance(value, dict) and "fingerprint" in value:
        return str(value.get("pool") or f"an array of {value.get('rows')} rows")
    return repr(value)
