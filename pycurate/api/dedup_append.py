"""``dedup_append``: new rows against those of an earlier run, whose decisions stay as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pycurate.api.dedup import DedupResult, finish
from pycurate.api.dedup_outputs import MANIFEST
from pycurate.api.dedup_rows import RowInput, Rows, mapped_source, stored_facts
from pycurate.api.dedup_run import ROWS, SEARCH, Run, Stage, only_threshold_facts
from pycurate.api.dedup_settings import threshold_of
from pycurate.api.dedup_store import DuplicateStore
from pycurate.api.out import claim_out
from pycurate.engine import NoProgress, Progress
from pycurate.errors import InputError
from pycurate.kernels.arrays import float32_of, thread_count_of
from pycurate.kernels.device import device_of
from pycurate.kernels.distinct import DistinctRows, Floats, Indices
from pycurate.ops.dedup import removal
from pycurate.pipeline.appended_rows import most_similar_earlier_of_new
from pycurate.pipeline.block_join import RowSource, SimilarityJoin
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.pair_files import PairFiles, pieces_of
from pycurate.pipeline.pair_files import Pairs as PairColumns
from pycurate.pipeline.workspace import Workspace, digest
from pycurate.steps.duplicate_search import (
    MAX_PAIRS,
    Arrays,
    forest_arrays,
    judged_copies,
    pairs_or_none,
    spanning_forest,
    with_linked_copies,
)
from pycurate.steps.semantic_dedup import CLUSTER_ORDERS


def dedup_append(
    rows: Rows,
    out: str | os.PathLike[str],
    earlier: str | os.PathLike[str] | DuplicateStore,
    *,
    embedding: str | None = None,
    eps: float | None = None,
    threshold: float | None = None,
    max_pairs: int = MAX_PAIRS,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> DedupResult:
    """Deduplicate new rows against an earlier run and among themselves; no decision of that run changes.

    Every earlier row comes before every new one, whatever their priority: the result is that of one run over all rows
    in the order of (batch, priority, uid). Under ``component`` a new row goes if a row before it is linked to it among
    the rows up to its batch; a new row that links two earlier groups joins neither kept row to the other.

    Parameters
    ----------
    rows
        As `pycurate.dedup` takes them; of the dimension and dtype of the earlier ones.
    out
        A folder: new, empty, or of this call before it was stopped. Becomes a run of all rows, which can be appended
        to in turn.
    earlier
        Folder of a finished `pycurate.dedup` or `dedup_append`, whose embeddings lie where they did. Its removal,
        strictness, priority and floor hold here. New rows are compared exactly, whatever mode it was in.
    embedding, memory_bytes, threads, device, progress
        As in `pycurate.dedup`.
    eps, threshold
        Default: the threshold of the earlier run.
    max_pairs
        Of greedy and component removal, all earlier pairs included. Where there are more, greedy removal goes through
        the new rows by blocks, at the one threshold, and component removal compares the earlier rows again.

    Raises
    ------
    InputError, MemoryCapError, PoolError, WorkspaceError
        As `pycurate.dedup`; also where the earlier run has no such rows or ordered them by cluster.
    """
    before = earlier if isinstance(earlier, DuplicateStore) else DuplicateStore(earlier)
    limit = _threshold(before, earlier, eps, threshold)
    before.require(limit)
    given = RowInput(rows, embedding)
    _require_alike(before, given)
    given.check_priority(before.facts["priority"])
    device_of(device)  # that there is such a GPU, before anything is written
    run = Run(claim_out(Path(out)), given, memory_bytes, threads, progress or NoProgress(), device)
    with Workspace(run.out).lock():
        shared = {name: before.facts[name] for name in ("metric", "removal", "strict", "priority")}
        identity = digest({name: value for name, value in before.facts.items() if name != "arrays"})
        run.require_question({"rows": given.facts(), "appended_to": identity, **shared})
        store = run.stored(None) or _Append(run, before, limit, max_pairs).search()
        return finish(run, store, limit)


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    run: Run
    before: DuplicateStore
    threshold: float
    max_pairs: int

    def search(self) -> DuplicateStore:
        run, before = self.run, self.before
        judged = run.given.read(before.facts["priority"], run.out / ROWS, run.progress)
        rank = np.concatenate([before.rank, len(before) + judged.rank()])
        uids = np.concatenate([before.uids, judged.uids])
        matrices = [*before.matrices(), *judged.matrices]
        source, left = mapped_source(matrices), run.left_bytes(len(uids))
        told = Stage(run.progress, "comparing new rows")
        join = run.join(source, None, "all", left, told)  # finds copies; compares nothing
        facts: dict[str, Any] = {"floor": before.floor, "only_threshold": None}
        arrays: Arrays | None
        if before.removal == "published":
            arrays = self._published(source, join, rank, left, told)
        else:
            arrays = self._by_pairs(mapped_source(judged.matrices), join, left, told)
        if arrays is None and before.removal == "component":  # by the forest of all rows, earlier ones compared again
            number = len(before.facts["batches"])
            arrays = _forests_of(before) | forest_arrays(number, *spanning_forest(join, before.floor))
        elif arrays is None:
            arrays = self._greedily(source, join, rank, left, told)
            facts = only_threshold_facts(self.threshold, self.max_pairs)
        told.finish()
        kept = {name: before.facts[name] for name in ("metric", "removal", "strict", "priority", "mode")}
        batches = [*before.facts["batches"], {**judged.facts, "mode": "exact"}]
        facts = {**kept, **facts, "batches": batches, "matrices": stored_facts(matrices)}
        return run.write_store(facts, arrays, uids, rank, join.unjudged)

    def _published(
        self, source: RowSource, join: SimilarityJoin, rank: Indices, left_bytes: int, told: Stage
    ) -> Arrays:
        folders = []
        for name in ("new_with_earlier", "new"):
            root = self.run.out / SEARCH / name
            root.mkdir(exist_ok=True)
            folders.append(TaskFolder(root, {"question": name}))
        known = np.array(self.before.array("earlier")), np.array(self.before.array("similarity"))
        indices, best = most_similar_earlier_of_new(
            source,
            DistinctRows(np.array(join.copy_of), np.array(join.unjudged)),
            rank,
            known,
            float32_of("floor", self.before.floor),
            (folders[0], folders[1]),
            How("cosine", "exact", thread_count_of(self.run.threads), told.tell, self.run.place),
            left_bytes,
        )
        begin = len(self.before)
        return {
            "earlier": np.concatenate([known[0], indices[begin:]]),
            "similarity": np.concatenate([known[1], best[begin:]]),
        }

    def _by_pairs(self, new: RowSource, join: SimilarityJoin, left_bytes: int, told: Stage) -> Arrays | None:
        """With all pairs of new rows; None where they are too many. A piece of them is held in memory."""
        before, n = self.before, len(join.copy_of)
        if before.only_threshold is not None:
            return None
        begin, left = len(before), self.max_pairs - len(_edges_of(before)[0])
        found: list[tuple[int, int, PairColumns]] = [(0, 0, _edges_of(before))]  # what is added to rows, and to cols
        for other in (mapped_source(before.matrices()), None):
            name = "new" if other is None else "new_with_earlier"
            of_join = self.run.join(new, other, name, left_bytes, told)
            pairs = pairs_or_none(of_join, before.floor, max(0, left))
            if pairs is None:
                return None
            left -= len(pairs.rows)
            found.append((begin, begin if other is None else 0, (pairs.rows, pairs.cols, pairs.similarities)))
        copy_of = judged_copies(join)
        pieces = _between_first_copies(found, copy_of)
        if before.removal == "component":
            nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
            forest = with_linked_copies(n, copy_of, *nothing, before.floor)
            for piece in pieces:
                rows, cols = (np.concatenate([forest[i], piece[i]]) for i in (0, 1))
                forest = removal.spanning_forest(n, rows, cols, np.concatenate([forest[2], piece[2]]))
            return _forests_of(before) | forest_arrays(len(before.facts["batches"]), *forest)
        with PairFiles(self.run.out / SEARCH / "pairs") as files:
            for piece in pieces:
                files.append(*piece)
        rows, cols, near = files.mapped()
        return {"pair_rows": rows, "pair_cols": cols, "pair_similarities": near, "copy_of": copy_of}

    def _greedily(self, source: RowSource, join: SimilarityJoin, rank: Indices, left_bytes: int, told: Stage) -> Arrays:
        known = self.before.at(self.threshold)
        return self.run.greedily(join, source, rank, self.threshold, self.before.strict, left_bytes, told, known)


def _between_first_copies(found: list[tuple[int, int, PairColumns]], copy_of: Indices) -> Iterator[PairColumns]:
    """Pieces of pairs between the first rows with their bits, row < col, numbered through all batches."""
    for add_rows, add_cols, pairs in found:
        for rows, cols, near in pieces_of(pairs):
            a, b = rows + add_rows, cols + add_cols
            a, b = (np.where(copy_of[ends] < 0, ends, copy_of[ends]) for ends in (a, b))
            apart = a != b
            yield np.minimum(a, b)[apart], np.maximum(a, b)[apart], near[apart]


def _edges_of(store: DuplicateStore) -> tuple[Indices, Indices, Floats]:
    if store.removal == "greedy":
        names = ("pair_rows", "pair_cols", "pair_similarities")
    else:
        last = len(store.facts["batches"]) - 1
        names = (f"forest{last}_rows", f"forest{last}_cols", f"forest{last}_similarities")
    rows, cols, near = (store.array(name) for name in names)
    return rows, cols, near


def _forests_of(store: DuplicateStore) -> Arrays:
    return {name: store.array(name) for name in store.facts["arrays"] if name.startswith("forest")}


def _threshold(
    store: DuplicateStore, folder: str | os.PathLike[str] | DuplicateStore, eps: float | None, threshold: float | None
) -> float:
    if eps is not None or threshold is not None:
        return threshold_of(eps, threshold)
    if store.only_threshold is not None:
        return store.only_threshold
    if not isinstance(folder, DuplicateStore):
        try:
            return float(json.loads((Path(folder) / MANIFEST).read_text())["threshold"])
        except (OSError, ValueError, KeyError):
            pass
    raise InputError("threshold: expected one, since the earlier run's folder has no manifest.json that names its own")


def _require_alike(store: DuplicateStore, given: RowInput) -> None:
    first = store.matrices()[0]
    if (first.dimension, first.element) != (given.dimension, given.element):
        raise InputError(
            f"rows: expected {first.dimension} elements of {first.element} as the earlier rows have, got "
            f"{given.dimension} of {given.element}"
        )
    if store.facts["priority"] in CLUSTER_ORDERS:
        raise InputError(
            f"earlier: its rows are ordered by {store.facts['priority']!r}, the distance to a centroid, which new rows "
            "have none of; run it with another priority"
        )
