"""``plan``: what a run would read, hold, write and take, said before anything runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from pycurate.api.plan_report import DiskPlan, Plan, PlanStep, ReadPlan
from pycurate.api.plan_sample import Sample, estimate_time, sample_scan
from pycurate.api.run import run_memory
from pycurate.api.settings import Settings, processes_pay, settle
from pycurate.engine import LocalEngine
from pycurate.io.images import TARS_SEARCHED
from pycurate.io.pool import Pool
from pycurate.io.store import RUN_MARKER
from pycurate.pipeline.image_index import images_at_hand
from pycurate.pipeline.scan import UID_COLUMN, ColumnSet, Scanner, ScanTask, column_sets
from pycurate.pipeline.step import Needs, Step
from pycurate.pipeline.workspace import Workspace
from pycurate.recipes import Recipe
from pycurate.steps.dedup_base import DedupStep

UID_BYTES = 16
LEDGER_ROW_BYTES = 46
"""Of a row: 36 for the uid, up to 8 for the value, the rest for the rule (36.0 to 44.0 measured)."""
GROUP_ROW_BYTES = 124
"""Of a row of ``groups.parquet``: three uids of 36 bytes and the rest, before compression."""
GROUP_SCRATCH_ROW_BYTES = 168
"""Of a row that is dropped as a duplicate: by uid, unpacked, and by keeper."""
UNSAMPLED_COLUMN_BYTES = 8


def plan(
    recipe: Recipe | str | os.PathLike[str],
    pool: Pool | str | os.PathLike[str],
    *,
    memory_bytes: int | None = None,
    workers: int | None = None,
    processes: bool | None = None,
    sample_seconds: float = 1.0,
    out: str | os.PathLike[str] | None = None,
) -> Plan:
    """What ``run`` with the same arguments would read, hold in memory, write and take.

    Reads footers, headers and a sample of rows, writes nothing. The steps, bytes and rows are exact; the ledger is an
    upper bound; time is an estimate from the sample.

    Parameters
    ----------
    recipe, pool, memory_bytes, workers, processes
        As for ``run``.
    sample_seconds
        About how long the recipe's steps are measured on the first rows of a few shards; 0: no sample and no estimate.
    out
        The folder of an earlier run, whose stored scores are not computed again, or of a run to come.

    Raises
    ------
    InputError, RecipeError, MissingDependencyError, PoolError, MemoryCapError
        What would stop the run at its start, or in the sampled rows.
    """
    settings = settle(recipe, pool, memory_bytes, workers, processes)
    made, opened = settings.recipe, settings.pool
    workers = settings.workers
    sets = column_sets(made.steps)
    memory = run_memory(settings, sets)
    folder = None if out is None else Path(out)
    scanner, tasks = _tasks(opened, sets, memory.block_rows, folder, workers)
    processes = settings.processes
    with ExitStack() as stack:
        if any(s.needs.images for s in scanner.missing_of(tasks)):
            # As many tars as are searched for examples: an estimate must not wait for all.
            scanner = replace(scanner, pool=stack.enter_context(images_at_hand(opened, TARS_SEARCHED)))
        if processes is None:
            processes = processes_pay(scanner, tasks, workers)
        sample = sample_scan(scanner, tasks, workers, processes, sample_seconds)
    memory = replace(memory, processes=workers if processes else 0)
    rows_left = sum(opened.shard(task.shard).rows for task in tasks)
    sampled = sample_seconds > 0
    time = estimate_time(sample, opened.rows, rows_left, workers, processes, len(tasks)) if sampled else None
    read = _read_plan(scanner, tasks, made.steps)
    disk = _disk_plan(scanner, tasks, made.steps, sample, folder)
    return Plan(
        recipe=made.name,
        root=opened.root,
        layout=opened.layout,
        shards=len(opened.shards),
        rows=opened.rows,
        read=read,
        memory=memory,
        disk=disk,
        time=time,
        steps=tuple(_step(step, sets) for step in made.steps),
        notes=tuple(_notes(made.steps, read, settings, processes)),
        warnings=tuple(_warnings(disk, folder)),
    )


def _tasks(
    pool: Pool, sets: Sequence[ColumnSet], block_rows: int, out: Path | None, workers: int
) -> tuple[Scanner, list[ScanTask]]:
    """The scan as a run would do it: a task for every shard that ``out`` does not have all of."""
    engine = LocalEngine(workers, processes=False)
    workspace = Workspace((out or Path()) / "workspace")
    scanner = Scanner(pool, workspace, tuple(sets), block_rows, engine.stop)
    shards = [shard for shard in pool.shards if shard.rows]
    if out is None or not workspace.root.is_dir():
        folders = tuple(s.folder for s in sets)
        return scanner, [ScanTask(shard.name, "", folders) for shard in shards]
    found = engine.ordered(lambda shard: scanner.missing(shard, shard.fingerprint()), shards)
    return scanner, [task for task in found if task is not None]


def _read_plan(scanner: Scanner, tasks: Sequence[ScanTask], steps: Sequence[Step]) -> ReadPlan:
    def stored_bytes(shard: str, needs: Needs) -> int:
        source = scanner.pool.shard(shard)
        stored = source.bytes_to_read(needs.columns, needs.embeddings, uids=needs.uids)
        return stored + source.image_bytes_to_read(needs.columns, needs.images)

    needs = scanner.read_needs([s.folder for s in scanner.sets])
    total = sum(stored_bytes(shard.name, needs) for shard in scanner.pool.shards)
    left = sum(stored_bytes(task.shard, scanner.read_needs(task.folders)) for task in tasks)
    columns = {scanner.pool.stored_name(name) for name in needs.columns}
    if scanner.pool.uid_source == "column":
        columns.add(UID_COLUMN)
    fits = [name for step in steps if step.fits for name in step.fit_needs().embeddings]
    fit_bytes = sum(shard.bytes_to_read((), (name,)) for name in fits for shard in scanner.pool.shards)
    return ReadPlan(
        tuple(sorted(columns)), needs.embeddings, total, left, len(tasks), tuple(dict.fromkeys(fits)), fit_bytes
    )


def _disk_plan(
    scanner: Scanner, tasks: Sequence[ScanTask], steps: Sequence[Step], sample: Sample, out: Path | None
) -> DiskPlan:
    rows, uids, scores = scanner.pool.rows, 0, 0
    for task in tasks:
        shard_rows = scanner.pool.shard(task.shard).rows
        for column in (c for s in scanner.missing_sets(task) for c in s.columns):
            if column == UID_COLUMN:
                uids += UID_BYTES * shard_rows
            else:
                dtype = sample.dtypes.get(column)
                scores += shard_rows * (UNSAMPLED_COLUMN_BYTES if dtype is None else dtype.itemsize)
    left = sum(
        scanner.pool.shard(t.shard).rows for t in tasks if any(s.step.exchanges for s in scanner.missing_sets(t))
    )
    scores += left * sample.pair_bytes // max(sample.rows, 1)
    fits = [step for step in steps if step.fits]
    names_partners = any(isinstance(step, DedupStep) for step in steps)
    scratch_row_bytes = sum(step.scratch_row_bytes for step in fits) + GROUP_SCRATCH_ROW_BYTES * names_partners
    infos = scanner.pool.embeddings
    for step in fits:
        for name in step.fit_needs().embeddings:
            row_bytes = infos[name].dimension * _item_bytes(infos[name].dtype)
            scratch_row_bytes += step.scratch_embeddings * row_bytes
    return DiskPlan(
        uid_bytes=uids,
        score_bytes=scores,
        ledger_bytes=LEDGER_ROW_BYTES * rows,
        run_bytes=UID_BYTES * rows,
        subset_bytes=UID_BYTES * rows,
        scratch_bytes=scratch_row_bytes * rows,
        folder=None if out is None else str(out),
        free_bytes=None if out is None else _free_bytes(out),
        artefact_bytes=sum(step.artefact_row_bytes for step in fits) * rows,
        groups_bytes=GROUP_ROW_BYTES * rows * names_partners,
    )


def _item_bytes(element: str) -> int:
    return int(np.dtype("uint16" if element == "bfloat16" else element).itemsize)


def _free_bytes(folder: Path) -> int:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _step(step: Step, sets: Sequence[ColumnSet]) -> PlanStep:
    reads, looks_at = step.score_needs(), step.decide_needs()
    rules = step.rules({}) if step.decides and not step.fits else []
    return PlanStep(
        name=step.name,
        kind=step.kind,
        reads=(*reads.columns, *dict.fromkeys((*reads.embeddings, *step.fit_needs().embeddings))),
        uses=(*reads.scores,),
        makes=step.produces(),
        fits=step.fits,
        decides=step.decides,
        decides_by=tuple(dict.fromkeys((*looks_at.columns, *looks_at.scores))),
        rules=tuple(rule.description for rule in rules if not rule.unjudged),
    )


def _notes(steps: Sequence[Step], read: ReadPlan, settings: Settings, processes: bool) -> list[str]:
    notes = []
    pool, workers = settings.pool, settings.workers
    slow = [step.name for step in steps if step.python_bound]
    if slow and read.left_shards:
        where = "one row at a time, since worker processes are off"
        if processes:
            where = f"in {workers} worker processes"
        elif settings.processes is None:
            where = "one row at a time, since so little work does not pay for starting worker processes"
        notes.append(f"{', '.join(slow)} runs Python for every row, {where}: that sets the pace, not reading.")
    if not read.embeddings and not read.fit_embeddings:
        notes.append("No embedding is read: the recipe uses stored columns only.")
    if read.left_shards < len(pool.shards) and read.total_bytes:
        notes.append(
            f"{len(pool.shards) - read.left_shards:,} of {len(pool.shards):,} shards have all their scores from an "
            f"earlier run; {read.reused_bytes / read.total_bytes:.0%} of the bytes need not be read again."
        )
    if 0 < read.left_shards < workers:
        notes.append(f"There are fewer shards to read ({read.left_shards}) than workers ({workers}); some will idle.")
    return notes


def _warnings(disk: DiskPlan, out: Path | None) -> list[str]:
    warnings = []
    if out is not None and disk.free_bytes is not None and disk.total_bytes > disk.free_bytes:
        warnings.append(
            f"The run may not fit: up to {disk.total_bytes:,} bytes to write, {disk.free_bytes:,} free at {out}. "
            "Choose an output folder on a larger disk."
        )
    if out is not None and out.is_dir() and not (out / RUN_MARKER).exists() and any(out.iterdir()):
        warnings.append(f"{out} is not empty and is not from an earlier run: a run would refuse it.")
    return warnings
