"""``doctor``: a pool looked over before work: one read of every embedding and uid, then a comparison of all uids."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pycurate.api import doctor_findings as findings
from pycurate.api.doctor_report import DoctorReport, EmbeddingFacts, Finding, Place
from pycurate.api.shard_exam import SHOWN_PLACES, Exam, ShardFacts
from pycurate.engine import (
    LocalEngine,
    MemoryPlan,
    NoProgress,
    Progress,
    default_memory_bytes,
    plan_memory,
    worker_count,
)
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.layouts import LayoutName
from pycurate.io.names import unknown_name
from pycurate.io.pool import Pool, Shard, open_pool
from pycurate.kernels.uid import find, format_hex
from pycurate.ops.preflight import NormSummary
from pycurate.pipeline.external_sort import duplicate_keys
from pycurate.types import UID_DTYPE, UidArray

if TYPE_CHECKING:
    from pycurate.recipes import Recipe

UID_BYTES = 16
EXAM_ROW_BYTES = 5  # per row and embedding: a norm and a defect


def doctor(
    pool: Pool | str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str] | None = None,
    *,
    layout: LayoutName | None = None,
    embeddings: Sequence[str] | None = None,
    uniqueness: bool = True,
    allow_duplicate_uids: bool = False,
    memory_bytes: int | None = None,
    workers: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> DoctorReport:
    """Look a pool over: broken and mismatched files, rows that cannot be judged, malformed and repeated uids.

    The embeddings and uids of every shard are read once; broken shards are told of and the others looked at. The
    findings do not depend on workers or memory.

    Parameters
    ----------
    pool
        A path or URL, of which broken shards are left out and told of; or an open pool.
    recipe
        A ``Recipe``, preset or YAML file: missing columns, embeddings and files that it needs are errors, and missing
        values in its columns are counted.
    layout
        The layout, where it should not be recognised.
    embeddings
        Names of the embeddings to read. Default: all.
    uniqueness
        Compare all uids, through 16 bytes a row of temporary disk.
    allow_duplicate_uids
        Repeated uids are a note, not an error.
    memory_bytes
        Cap on the memory of this process, in bytes. Default: half of what the machine or cgroup allows.
    workers
        Shards looked at at a time. Default: the processors this process may use.
    scratch
        Folder for the temporary files. Default: the system's.
    progress
        Told of stages (``examine``, ``uniqueness``) and finished shards. Default: silence.

    Raises
    ------
    InputError
        An unknown embedding or layout, or a recipe that is none.
    PoolError
        There is no pool at the path at all, or no layout fits.
    MemoryCapError, WorkspaceError
        The cap is too small; the temporary files cannot be written.
    """
    started = time.perf_counter()
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout, strict=False)
    made = _loaded(recipe)
    chosen = _chosen(opened, embeddings)
    workers = worker_count(workers)
    memory = _memory(opened, chosen, default_memory_bytes() if memory_bytes is None else memory_bytes, workers)
    progress = progress or NoProgress()
    found = [*findings.of_pool(opened), *([] if made is None else findings.of_recipe(made, opened))]
    engine = LocalEngine(workers, processes=False)
    shards = [shard for shard in opened.shards if shard.rows]
    with ExitStack() as stack:
        skipped = findings.uniqueness_skipped(opened, uniqueness)
        if skipped is None:
            folder = Path(tempfile.gettempdir() if scratch is None else scratch)
            skipped = findings.no_room(folder, UID_BYTES * opened.rows, _free_bytes(folder))
        if skipped is not None:
            found.append(skipped)
        runs = None if skipped is not None else stack.enter_context(_scratch(folder))
        exam = Exam(
            opened, chosen, _readable_columns(made, opened), memory.block_rows,
            max(1, workers // max(len(shards), 1)), runs, engine.stop,
        )  # fmt: skip
        facts = _examine(exam, engine, shards, progress)
        found += findings.of_shards(facts)
        if runs is not None:
            found += _duplicates(exam, facts, memory, progress, allow_duplicate_uids)
    return _report(opened, chosen, made, facts, found, runs is not None, started)


def _report(
    opened: Pool,
    chosen: Sequence[str],
    made: Recipe | None,
    facts: Sequence[ShardFacts],
    found: Sequence[Finding],
    uids_compared: bool,
    started: float,
) -> DoctorReport:
    return DoctorReport(
        root=opened.root,
        layout=opened.layout,
        shards=len(opened.shards),
        rows=opened.rows,
        columns=dict(opened.columns),
        uid_source=opened.uid_source,
        embeddings=tuple(_embedding_facts(opened, name, facts) for name in chosen),
        recipe=None if made is None else made.name,
        findings=findings.ordered(found),
        examined_rows=sum(f.rows for f in facts),
        uids_compared=uids_compared,
        read_bytes=sum(f.read_bytes for f in facts),
        scratch_bytes=UID_BYTES * sum(f.run_rows for f in facts),
        seconds=round(time.perf_counter() - started, 3),
    )


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise _unusable(folder, error) from error


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix="pycurate-doctor-", dir=folder)
    except OSError as error:
        raise _unusable(folder, error) from error
    with made as name:
        yield Path(name)


def _unusable(folder: Path, error: OSError) -> WorkspaceError:
    return WorkspaceError(f"scratch: cannot write in {folder} ({error.strerror}); give another folder")


def _loaded(recipe: Recipe | str | os.PathLike[str] | None) -> Recipe | None:
    from pycurate.recipes import Recipe

    return recipe if recipe is None or isinstance(recipe, Recipe) else Recipe.load(recipe)


def _chosen(pool: Pool, embeddings: Sequence[str] | None) -> tuple[str, ...]:
    if embeddings is None:
        return tuple(pool.embeddings)
    for name in embeddings:
        if name not in pool.embeddings:
            raise unknown_name("embedding", name, pool.embeddings)
    return tuple(dict.fromkeys(embeddings))


def _readable_columns(recipe: Recipe | None, pool: Pool) -> tuple[str, ...]:
    """Columns of the recipe that the pool has, by their stored names."""
    stored: dict[str, None] = {}
    for column in () if recipe is None else recipe.needed()[0]:
        try:
            stored[pool.stored_name(column)] = None
        except InputError:
            continue  # a finding of its own
    return tuple(stored)


def _memory(pool: Pool, embeddings: Sequence[str], cap_bytes: int, workers: int) -> MemoryPlan:
    rows = [shard for shard in pool.shards if shard.rows]
    row_bytes = max((-(-s.bytes_to_read((), embeddings, uids=True) // s.rows) for s in rows), default=0)
    return plan_memory(
        cap_bytes,
        workers=workers,
        processes=False,
        row_bytes=row_bytes + 64,
        shard_rows=max((shard.rows for shard in rows), default=0),
        score_row_bytes=EXAM_ROW_BYTES * len(embeddings),
    )


def _examine(exam: Exam, engine: LocalEngine, shards: Sequence[Shard], progress: Progress) -> list[ShardFacts]:
    progress.start("examine", len(shards))
    facts = []
    for shard_facts in engine.ordered(exam.examine, shards):
        facts.append(shard_facts)
        progress.advance(shard_facts.rows, shard_facts.read_bytes)
    progress.finish()
    return facts


def _embedding_facts(pool: Pool, name: str, facts: Sequence[ShardFacts]) -> EmbeddingFacts:
    total = NormSummary()
    for norms in (f.norms[name] for f in facts if name in f.norms):
        total = total.merge(norms)
    info = pool.embeddings[name]
    if not total.rows:
        return EmbeddingFacts(name, info.dimension, info.dtype, 0, None, None, None)
    mean = total.total / total.rows
    return EmbeddingFacts(name, info.dimension, info.dtype, total.rows, total.minimum, mean, total.maximum)


def _duplicates(
    exam: Exam, facts: Sequence[ShardFacts], memory: MemoryPlan, progress: Progress, allowed: bool
) -> list[Finding]:
    """The second phase: equal uids, by ranges of the sorted runs that fit the memory cap."""
    examined = [f for f in facts if f.run_rows]
    progress.start("uniqueness", 1)
    repeated = copies = 0
    first = np.empty(0, UID_DTYPE)
    for keys, counts in duplicate_keys([exam.run_path(f.shard) for f in examined], memory.worker_bytes):
        first = np.concatenate([first, keys[: SHOWN_PLACES - len(first)]])
        repeated += len(keys)
        copies += int(counts.sum())
    found = []
    if repeated:
        places = tuple(_places(exam, [f.shard for f in examined], first))
        name = format_hex(first)[0].decode()
        found.append(findings.duplicate_uids(repeated, copies, name, places, allowed))
    progress.advance(sum(f.run_rows for f in examined))
    progress.finish()
    return found


def _places(exam: Exam, shards: Sequence[str], uids: UidArray) -> Iterator[Place]:
    """The first places of a few (sorted) uids, in their order; reads at most ``SHOWN_PLACES`` shards for each."""
    readers: dict[str, None] = {}
    holders = np.zeros(len(uids), np.int64)
    for shard in shards:
        run = np.load(exam.run_path(shard), mmap_mode="r")
        there = (find(run, uids) >= 0) & (holders < SHOWN_PLACES)
        if there.any():
            readers[shard] = None
            holders += there
    seen: list[tuple[int, Place]] = []
    for shard in readers:
        for block in exam.blocks(exam.pool.shard(shard)):
            keys, rows = exam.uids(block)
            which = find(uids, keys)
            seen += [(int(which[i]), Place(shard, block.start + int(rows[i]))) for i in np.flatnonzero(which >= 0)]
    seen.sort(key=lambda item: item[0])
    yield from (place for _, place in seen[:SHOWN_PLACES])
