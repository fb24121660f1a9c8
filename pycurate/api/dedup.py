"""``dedup``: semantic duplicates of a pool, removed at a threshold that can be chosen afterwards."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.api.dedup_outputs import Outcome, hex_of, write_manifest, write_outputs
from pycurate.api.dedup_rows import CLUSTER_ORDERS, UID, JudgedRows, RowInput, Rows, mapped_source, stored_facts
from pycurate.api.dedup_search import search, search_greedily
from pycurate.api.dedup_store import STORE, DuplicateStore
from pycurate.api.out import claim_out
from pycurate.engine import NoProgress, Progress, default_memory_bytes
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.atomic import write_json_atomic
from pycurate.kernels.arrays import float32_of, require_option, thread_count_of
from pycurate.ops.dedup.removal import Duplicates, Removal
from pycurate.pipeline.block_join import SimilarityJoin
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.duplicate_folder import DuplicateFolder
from pycurate.pipeline.workspace import Workspace

Mode: TypeAlias = Literal["exact"]
"""Where similar rows are looked for: everywhere."""

EPS = 0.07
"""Of Abbas et al. (2023), SemDeDup."""
MAX_PAIRS = 20_000_000
"""Of greedy removal: 800 MB of disk while they are found, 400 MB after, 240 MB of memory in a sweep."""
QUESTION = "question.json"
_SEARCH, _ROWS = "search", "rows"
_HELD_ROW_BYTES = 48  # uids, ranks and priorities, beside what a join holds for every row


@dataclass(frozen=True, slots=True, eq=False)
class DedupResult:
    """What a finished `dedup` removed and wrote."""

    out: Path
    threshold: float
    store: DuplicateStore
    manifest: dict[str, Any]
    outcome: Outcome

    @property
    def duplicates(self) -> Duplicates:
        """For each row, in the order of the pool, the row in whose favour it is removed."""
        return self.store.at(self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"out": str(self.out), **self.manifest}

    def render(self) -> str:
        """For people."""
        facts, found = self.manifest, self.outcome
        sign = ">" if facts["strict"] else ">="
        rows = facts["rows"]
        lines = [
            f"rows     {rows:,}, {facts['mode']} mode, {facts['removal']} removal at cosine {sign} {self.threshold:g}",
            f"removed  {found.removed:,} ({100 * found.removed / max(rows, 1):.2f} %), kept {found.kept:,}",
            f"groups   {found.groups:,}, the largest of {found.largest_group:,} rows",
        ]
        if (chain := found.chain) is not None:
            lines.append(
                f"chains   {chain.rows:,} removed rows are below the threshold from the row that is kept; farthest is "
                f"{chain.uid}, {chain.similarity:.3f} from {chain.keeper_uid} by links of {chain.link:.3f} or more"
            )
        if (unjudged := facts["unjudged"])["rows"]:
            named = ", ".join(unjudged["first"]) + (", ..." if unjudged["rows"] > len(unjudged["first"]) else "")
            lines.append(f"unjudged {unjudged['rows']:,} rows are kept, not finite or of length 0: {named}")
        only = self.store.only_threshold
        answers = f"from {self.store.floor:g} on" if only is None else "at this threshold only: too many pairs"
        lines += [f"answers  {answers}, see `pycurate dedup curve`", f"to       {self.out}"]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Limits:
    """Checked thresholds of a run."""

    threshold: float
    floor: float | None  # None: the default, or that of the folder


def dedup(
    rows: Rows,
    out: str | os.PathLike[str],
    *,
    embedding: str | None = None,
    mode: Mode = "exact",
    removal: Removal = "published",
    eps: float | None = None,
    threshold: float | None = None,
    floor: float | None = None,
    strict: bool = False,
    priority: str = UID,
    max_pairs: int = MAX_PAIRS,
    memory_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DedupResult:
    """Find rows that are alike by the cosine of their embeddings, and keep one of each.

    What was found stays in ``out``: another threshold at or above the floor takes seconds and reads no embedding.
    A killed run goes on where it stopped, and writes the same bytes.

    Parameters
    ----------
    rows
        A pool, its path or URL; an (n, d) float16, bfloat16, float32 or int8 array; or the path of a .npy file of one.
        Rows of an array have their number as uid. Embeddings need not be normalised; they are read where they lie when
        they are plain bytes of a local file, else copied to ``out`` once.
    out
        A folder: new, empty, or of an earlier run on the same rows with the same mode, removal, priority and strict.
    embedding
        Name of the embedding; not needed where a pool has one.
    mode
        ``"exact"``: every pair of rows is compared, by bounds that miss none.
    removal
        ``"published"``: a row goes if any earlier row reaches the threshold, even one that goes itself.
        ``"greedy"``: only if one that stays does. ``"component"``: of rows that are linked, directly or through others,
        the earliest stays; chains join rows that are not alike, and the result names the worst.
    eps, threshold
        One of the two; threshold is 1 - eps. Default: eps = 0.07.
    floor
        The lowest threshold that can be asked for later, in [-1, threshold]. Default: 1 - 2 eps.
    strict
        Whether a pair must be above the threshold, as in SemDeDup, or reaches it at the threshold.
    priority
        Which rows come first, and so stay: ``"uid"``; the name of a column of numbers, the largest first;
        ``"image_area"``, the largest first. Missing values come last, equal ones are ordered by uid.
    max_pairs
        Of greedy removal, which stores all pairs at or above the floor. Where there are more, it goes through the rows
        in order of priority, at the one threshold, in memory that grows with rows only.
    memory_bytes
        Cap on what the process takes, clean pages of files not counted; default half of what is allowed.
    threads
        Default: the processors. Does not change the result.
    progress
        Told of stages. Default: silence.

    Returns
    -------
    DedupResult
        ``out`` has ``subset.npy`` (kept uids, sorted, as DataComp takes them), ``removed.parquet``, ``groups.parquet``,
        ``manifest.json`` and ``store/``.

    Raises
    ------
    InputError, MemoryCapError, PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    KeyboardInterrupt
        Ctrl-C; finished work is kept.

    References
    ----------
    Abbas, Tirumala, Simig, Ganguli, Morcos: SemDeDup: data-efficient learning at web-scale through semantic
    deduplication (2023).
    """
    require_option("mode", mode, Mode)
    require_option("removal", removal, Removal)
    if priority in CLUSTER_ORDERS and mode == "exact":
        raise InputError(f"priority: {priority!r} orders rows by their distance to a centroid, and exact mode has none")
    limits = check_limits(eps, threshold, floor)
    given = RowInput(rows, embedding)
    given.check_priority(priority)
    question = {
        "rows": given.facts(),
        "mode": mode,
        "metric": "cosine",
        "removal": removal,
        "strict": strict,
        "priority": priority,
    }
    folder = claim_out(Path(out))
    run = _Run(folder, given, question, limits, max_pairs, memory_bytes, threads, progress or NoProgress())
    with Workspace(folder).lock():
        run.require_same_question()
        store = run.stored() or run.search()
        shutil.rmtree(folder / _SEARCH, ignore_errors=True)
        store.require(limits.threshold)
        outcome = write_outputs(store, limits.threshold, f"{removal} by cosine", folder, threads)
        manifest = write_manifest(store, outcome, limits.threshold, folder)
    return DedupResult(folder, limits.threshold, store, manifest, outcome)


def check_limits(eps: float | None, threshold: float | None, floor: float | None) -> Limits:
    """The threshold and floor that were given or follow."""
    if eps is not None and threshold is not None:
        raise InputError("eps, threshold: expected one of the two; threshold is 1 - eps")
    limit = float(threshold) if threshold is not None else 1 - float(EPS if eps is None else eps)
    name = "threshold" if threshold is not None else "eps"
    if not -1 <= float32_of(name, limit) <= 1:
        raise InputError(f"{name}: expected a cosine from -1 to 1 (eps from 0 to 2), got a threshold of {limit:g}")
    if floor is not None and not -1 <= float(floor) <= limit:
        raise InputError(f"floor: expected -1 to the threshold, {limit:g}, got {floor:g}")
    return Limits(limit, None if floor is None else float(floor))


@dataclass(frozen=True, slots=True)
class _Run:
    out: Path
    given: RowInput
    question: dict[str, Any]
    limits: Limits
    max_pairs: int
    memory_bytes: int | None
    threads: int | None
    progress: Progress

    def require_same_question(self) -> None:
        """WorkspaceError where the folder is about something else; else it says from now on what it is about."""
        path = self.out / QUESTION
        if not path.exists():
            write_json_atomic(path, self.question)
            return
        found = json.loads(path.read_text())
        differs = [name for name, value in self.question.items() if found.get(name) != value]
        if differs:
            name = differs[0]
            raise WorkspaceError(
                f"out: {self.out} holds a search with another {name} ({_short(found.get(name))}, now "
                f"{_short(self.question[name])}); choose another folder, or delete it"
            )

    def stored(self) -> DuplicateStore | None:
        """The finished search, None where there is none or its floor is above the one that is asked for."""
        if DuplicateFolder(self.out / STORE).facts() is None:
            return None
        store = DuplicateStore(self.out)
        if self.limits.floor is not None and np.float32(self.limits.floor) < np.float32(store.floor):
            return None
        return store

    def search(self) -> DuplicateStore:
        """Read the rows and look for duplicates; leaves the store and nothing else of it."""
        threshold = self.limits.threshold
        floor = max(-1.0, 2 * threshold - 1) if self.limits.floor is None else self.limits.floor
        removal: Removal = self.question["removal"]
        judged = self.given.read(self.question["priority"], self.out / _ROWS, self.progress)
        rank = judged.rank()
        limit = default_memory_bytes() if self.memory_bytes is None else self.memory_bytes
        left = limit - BASE_BYTES - _HELD_ROW_BYTES * len(rank)
        source = mapped_source(judged.matrices)
        folder = self.out / _SEARCH
        told = _Stage(self.progress, "comparing rows")
        threads = thread_count_of(self.threads)
        join = SimilarityJoin(source, None, folder / "join", "cosine", "exact", left, threads, told.tell)
        arrays = search(join, removal, rank, floor, self.max_pairs)
        facts: dict[str, Any] = {"floor": floor, "only_threshold": None}
        if arrays is None:
            how = How("cosine", "exact", threads, told.tell)
            arrays = search_greedily(
                join, source, rank, threshold, self.question["strict"], folder / "greedy", how, left
            )
            facts = {"floor": threshold, "only_threshold": threshold, "max_pairs": self.max_pairs}
        told.finish()
        self._write_store(facts, arrays, judged, rank, join.unjudged)
        return DuplicateStore(self.out)

    def _write_store(
        self,
        facts: dict[str, Any],
        arrays: dict[str, NDArray[Any]],
        judged: JudgedRows,
        rank: NDArray[np.int64],
        unjudged: NDArray[np.int64],
    ) -> None:
        named = [hex_of(judged.uids, row) for row in unjudged[:5].tolist()]
        shared = {name: value for name, value in self.question.items() if name != "rows"}
        DuplicateFolder(self.out / STORE).write(
            {
                "rows": len(rank),
                **shared,
                **facts,
                "unjudged": {"rows": len(unjudged), "first": named},
                "batches": [{**judged.facts}],
                "matrices": stored_facts(judged.matrices),
            },
            {"uids": judged.uids, "rank": rank, "unjudged": unjudged, **arrays},
        )


class _Stage:
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
        if self._told >= 0:
            self._progress.finish()


def _short(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("pool") or f"an array of {value.get('rows')} rows")
    return repr(value)
