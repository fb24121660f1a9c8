"""``run``: a recipe over a pool, from files on disk to a subset, a ledger, a manifest and a report."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

import pycurate
from pycurate.api.examples import collect_examples
from pycurate.api.out import claim_out
from pycurate.api.settings import Settings, processes_pay, settle
from pycurate.engine import (
    LocalEngine,
    MemoryMeter,
    MemoryPlan,
    NoProgress,
    Progress,
    plan_memory,
)
from pycurate.io.atomic import TEMPORARY_SUFFIX, atomic_write, write_json_atomic
from pycurate.io.pool import Pool, Shard
from pycurate.kernels import active_isa
from pycurate.kernels.device import device_of
from pycurate.pipeline.decide import Decider
from pycurate.pipeline.external_sort import merge_runs, write_run
from pycurate.pipeline.groups import DuplicateGroups, StepGroups
from pycurate.pipeline.image_index import needs_index, with_image_index
from pycurate.pipeline.ledger import FORMAT as ledger_format
from pycurate.pipeline.ledger import write_ledger
from pycurate.pipeline.scan import UID_COLUMN, ColumnSet, Scanner, column_sets, scan_shard
from pycurate.pipeline.workspace import FINISHED, Workspace, digest, has_marker, ready, remove_marker, write_marker
from pycurate.recipes import Recipe
from pycurate.report import manifest as records
from pycurate.report.html import write_report
from pycurate.report.outcome import (
    Outcome,
    example_shards,
    manifest_duplicates,
    manifest_scores,
    manifest_steps,
    manifest_unjudged,
    merge_outcomes,
    shard_outcome,
)

EXCHANGE_ROW_BYTES = 300
"""For a step that exchanges, a quarter (the plan holds four copies) of the words of a caption as Python texts, 600
bytes, and of its 17 pairs, unsorted and sorted."""
FLOAT_KINDS = ("f", "i")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a finished run left its files, and its manifest."""

    out: Path
    manifest: records.Manifest
    reused: bool  # True: the same run was already finished there; nothing was done

    @property
    def subset(self) -> Path:
        return self.out / "subset.npy"


def run(
    recipe: Recipe | str | os.PathLike[str],
    pool: Pool | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    memory_bytes: int | None = None,
    workers: int | None = None,
    processes: bool | None = None,
    verify: bool = False,
    allow_duplicate_uids: bool = False,
    report: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Curate a pool: score, fit, decide, and write the subset with its reasons.

    Writes ``subset.npy`` (uids, ``np.dtype("u8,u8")``, sorted), ``ledger/<shard>.parquet``, ``groups.parquet`` where a
    step drops duplicates, ``manifest.json``, ``report.html`` and ``workspace/``, from which a later run in the same
    folder takes whatever still holds. The bytes of ``subset.npy``, the ledger and the groups depend on the pool and the
    recipe only.

    Parameters
    ----------
    recipe
        A ``Recipe``, the name of a preset, or the path of a YAML file.
    pool
        An open pool, or its path or URL.
    out
        A folder: new, empty, or of an earlier run (of any recipe).
    memory_bytes
        Cap on the memory of this process and its workers, in bytes. Default: half of what the machine or cgroup allows.
    workers
        Tasks at a time. Default: the processors this process may use.
    processes
        Score in worker processes instead of threads. Default: where a step runs Python for every row and a measured
        sample says that processes save more than their start takes.
    verify
        Fingerprint whole files instead of their size, time, first and last 64 KiB.
    allow_duplicate_uids
        Keep repeated uids in the subset (a resharder reads them as copies) instead of refusing them.
    report
        Write ``report.html``.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"cuda:0,1"`` or ``"auto"``: where steps compare embeddings that have
        kernels for a GPU (docs/gpu.md). Nothing that is written depends on it, and it may change where a run goes on.
    progress
        Told of stages and finished shards. Default: silence.

    Raises
    ------
    InputError, RecipeError, PoolError, WorkspaceError, MemoryCapError
        Each says what was expected, what came and what to do. Finished shards stay, so that the same call continues.
    KeyboardInterrupt
        On Ctrl-C, after which the same call continues.
    """
    device_of(device)  # that there is such a GPU, before anything is written
    settings = settle(recipe, pool, memory_bytes, workers, processes)
    options = _Options(verify, allow_duplicate_uids, report, device)
    folder = claim_out(Path(out))
    with Workspace(folder / "workspace").lock(), MemoryMeter() as meter:
        for unfinished in folder.rglob(f".*{TEMPORARY_SUFFIX}"):  # of a killed run
            unfinished.unlink()
        return _Run(settings, options, folder, progress or NoProgress(), meter).result()


@dataclass(frozen=True, slots=True)
class _Options:
    verify: bool
    allow_duplicate_uids: bool
    report: bool
    device: str | None


def run_memory(settings: Settings, sets: Sequence[ColumnSet]) -> MemoryPlan:
    """The memory plan of a run, which holds whether its scan uses processes or, where both may be, threads.

    Raises
    ------
    MemoryCapError
        The cap is too small.
    """
    shards = [shard for shard in settings.pool.shards if shard.rows]
    columns = sorted({name for s in sets for name in s.needs.columns})
    embeddings = sorted({name for s in sets for name in s.needs.embeddings})
    row_bytes = max(-(-shard.bytes_to_read(columns, embeddings) // shard.rows) for shard in shards)
    return plan_memory(
        settings.memory_bytes,
        workers=settings.workers,
        processes=settings.processes is not False,
        row_bytes=2 * row_bytes + 64 + EXCHANGE_ROW_BYTES * sum(s.step.exchanges for s in sets),
        shard_rows=max(shard.rows for shard in shards),
        score_row_bytes=sum(8 * len(s.columns) for s in sets),
    )


@dataclass
class _Run:
    settings: Settings
    options: _Options
    out: Path
    progress: Progress
    meter: MemoryMeter
    stages: list[records.StageRecord] = field(default_factory=list)

    def result(self) -> RunResult:
        shards = [shard for shard in self.settings.pool.shards if shard.rows]
        workspace = Workspace(self.out / "workspace")
        sets = column_sets(self.settings.recipe.steps)
        engine = LocalEngine(self.settings.workers, processes=False)
        memory = run_memory(self.settings, sets)
        fingerprints = self._fingerprints(engine, shards)
        seen = self._with_images(sets, fingerprints)
        key = digest(
            pycurate.__version__,
            self.settings.recipe.key,
            seen,
            self.options.allow_duplicate_uids,
            self.options.report,
        )
        if (done := self._finished(key)) is not None:
            return RunResult(self.out, done, reused=True)
        for path in (self.out / records.MANIFEST_NAME, self.out / "workspace" / FINISHED):
            path.unlink(missing_ok=True)
        self._scan(workspace, sets, memory, shards, fingerprints)
        decider = Decider(
            workspace, self.settings.recipe.steps, sets, seen, {s.name: s.rows for s in shards}, engine.ordered,
            memory.worker_bytes, self.settings.pool, self.options.device,
        )  # fmt: skip
        with self._stage("fit") as stage:
            decider.fit(lambda step, reused: stage.update(reused=stage["reused"] + reused))
        (self.out / records.GROUPS_NAME).unlink(missing_ok=True)
        with workspace.scratch("groups") as scratch, DuplicateGroups(decider, scratch) as groups:
            outcome = self._decide(engine, decider, sets, groups)
            duplicates = self._write_groups(groups, memory)
        rows = self._write(decider, memory)
        with self._stage("report"):
            examples = collect_examples(self.settings.pool, outcome.examples, duplicates, decider, engine)
            manifest = self._manifest(decider, outcome, fingerprints, memory, rows, duplicates)
            self._finish(manifest, examples, {name: s.folder for s in sets for name in s.columns}, key)
        return RunResult(self.out, manifest, reused=False)

    @contextmanager
    def _stage(self, name: str, shards: int = 1) -> Iterator[dict[str, int]]:
        started = time.perf_counter()
        facts = {"rows": 0, "bytes": 0, "reused": 0}
        self.progress.start(name, shards)
        yield facts
        self.progress.finish()
        self.stages.append(records.StageRecord(name=name, seconds=round(time.perf_counter() - started, 4), **facts))

    def _fingerprints(self, engine: LocalEngine, shards: Sequence[Shard]) -> dict[str, str]:
        with self._stage("fingerprint", len(shards)):
            found: dict[str, str] = {}
            marks = engine.ordered(lambda shard: shard.fingerprint(verify=self.options.verify), shards)
            for shard, mark in zip(shards, marks, strict=True):
                found[shard.name] = mark
                self.progress.advance(shard.rows)
        return found

    def _with_images(self, sets: Sequence[ColumnSet], fingerprints: dict[str, str]) -> dict[str, str]:
        """What a run depends on of each shard: its fingerprint, and that of images outside of it that steps look at."""
        images = self.settings.pool.images_fingerprint
        if not images or not any(s.needs.images for s in sets):
            return fingerprints
        return {shard: digest(mark, images) for shard, mark in fingerprints.items()}

    def _finished(self, key: str) -> records.Manifest | None:
        """The manifest of the very same run, where it is whole."""
        try:
            finished = json.loads((self.out / "workspace" / FINISHED).read_text())
            same = finished["key"] == key and _sha256(self.out / "subset.npy") == finished["subset"]
        except (OSError, ValueError, KeyError):
            return None
        return records.read_manifest(self.out) if same else None

    def _scan(
        self,
        workspace: Workspace,
        sets: Sequence[ColumnSet],
        memory: MemoryPlan,
        shards: Sequence[Shard],
        fingerprints: dict[str, str],
    ) -> None:
        scanner = Scanner(self.settings.pool, workspace, tuple(sets), memory.block_rows, device=self.options.device)
        tasks = [t for s in shards if (t := scanner.missing(s, fingerprints[s.name])) is not None]
        if any(s.needs.images for s in scanner.missing_of(tasks)) and needs_index(scanner.pool):
            with self._stage("index images", len(scanner.pool.image_tars)):
                folder = workspace.root / "images"
                advance = self.progress.advance
                scanner = replace(scanner, pool=with_image_index(scanner.pool, folder, memory.worker_bytes, advance))
        processes = self.settings.processes
        if processes is None:
            processes = processes_pay(scanner, tasks, self.settings.workers)
        engine = LocalEngine(self.settings.workers, processes=processes)
        if not processes:
            scanner = replace(scanner, stop=engine.stop)
        with self._stage("scan", len(tasks)) as stage:
            stage["reused"] = len(shards) - len(tasks)
            for done in engine.unordered(scan_shard, scanner, tasks):
                stage["rows"] += done.rows
                stage["bytes"] += done.read_bytes
                self.progress.advance(done.rows, done.read_bytes)

    def _decide(
        self, engine: LocalEngine, decider: Decider, sets: Sequence[ColumnSet], groups: DuplicateGroups
    ) -> Outcome:
        ledger, runs = self.out / "ledger", self.out / "workspace" / "runs"
        _remove_strangers(ledger, {f"{shard}.parquet" for shard in decider.shards})
        numeric = [n for s in sets for n in s.columns if n != UID_COLUMN]
        first = decider.columns(decider.shards[0], numeric)
        scores = [name for name in numeric if first[name].dtype.kind in FLOAT_KINDS]

        key = digest(decider.key, ledger_format)
        shown = example_shards(decider.shards)

        def task(shard: str) -> Outcome:
            decision = decider.decide(shard)
            reasons, kept = ready(ledger / f"{shard}.parquet"), ready(runs / f"{shard}.npy")
            if not (has_marker(kept, key) and reasons.exists()):
                remove_marker(kept)
                uids = decider.uids(shard)
                write_ledger(reasons, uids, decision, decider.rules)
                write_run(kept, uids[decision.keep])
                write_marker(kept, key, rows=len(uids))  # last: both files are complete
            groups.add(shard, decider.uids(shard), decision)
            return shard_outcome(decider, shard, decision, scores, shard in shown)

        with self._stage("decide", len(decider.shards)) as stage:

            def outcomes() -> Iterator[Outcome]:
                for outcome in engine.ordered(task, decider.shards):
                    stage["rows"] += outcome.rows
                    self.progress.advance(outcome.rows)
                    yield outcome

            return merge_outcomes(outcomes(), len(decider.rules), len(decider.fitted))

    def _write_groups(self, groups: DuplicateGroups, memory: MemoryPlan) -> list[StepGroups]:
        if not groups:
            return []
        with self._stage("groups") as stage:
            path = self.out / records.GROUPS_NAME
            found = groups.write(path, memory.worker_bytes)
            stage["rows"], stage["bytes"] = sum(made.rows for made in found), path.stat().st_size
        return found

    def _write(self, decider: Decider, memory: MemoryPlan) -> int:
        runs = self.out / "workspace" / "runs"
        with self._stage("write") as stage:
            stage["rows"] = merge_runs(
                [runs / f"{shard}.npy" for shard in decider.shards],
                self.out / "subset.npy",
                memory.worker_bytes,
                unique=not self.options.allow_duplicate_uids,
            )
            stage["bytes"] = 16 * stage["rows"]
        return stage["rows"]

    def _manifest(
        self,
        decider: Decider,
        outcome: Outcome,
        fingerprints: dict[str, str],
        memory: MemoryPlan,
        rows: int,
        duplicates: Sequence[StepGroups],
    ) -> records.Manifest:
        self.meter.sample()
        unjudged = manifest_unjudged(decider, outcome)
        return records.Manifest(
            pycurate=pycurate.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=records.RecipeRecord(
                name=self.settings.recipe.name,
                description=self.settings.recipe.description,
                yaml=self.settings.recipe.to_yaml(),
                hash=self.settings.recipe.key,
            ),
            pool=records.PoolRecord(
                root=self.settings.pool.root,
                layout=self.settings.pool.layout,
                shards=len(self.settings.pool.shards),
                rows=outcome.rows,
                uid_source=self.settings.pool.uid_source,
                fingerprint=digest(sorted(fingerprints.items())),
            ),
            counts=records.Counts(
                rows=outcome.rows,
                kept=outcome.kept,
                dropped=outcome.rows - outcome.kept,
                unjudged=sum(record.count for record in unjudged),
            ),
            steps=manifest_steps([(s.name, s.kind) for s in self.settings.recipe.steps], decider, outcome),
            scores=manifest_scores(decider, outcome),
            unjudged=unjudged,
            stages=tuple(self.stages),
            memory=records.MemoryRecord(
                cap_bytes=memory.cap_bytes, peak_bytes=self.meter.peak_bytes or None, workers=memory.workers
            ),
            environment=environment(self.settings.workers),
            subset=records.SubsetRecord(path="subset.npy", rows=rows, sha256=_sha256(self.out / "subset.npy")),
            groups=self._groups_record(duplicates),
        )

    def _groups_record(self, duplicates: Sequence[StepGroups]) -> records.GroupsRecord | None:
        if not duplicates:
            return None
        return records.GroupsRecord(
            path=records.GROUPS_NAME,
            rows=sum(made.rows for made in duplicates),
            sha256=_sha256(self.out / records.GROUPS_NAME),
            steps=manifest_duplicates(duplicates),
        )

    def _finish(
        self, manifest: records.Manifest, examples: records.Examples, columns: dict[str, str], key: str
    ) -> None:
        for name, record in ((records.EXAMPLES_NAME, examples), (records.MANIFEST_NAME, manifest)):
            with atomic_write(self.out / name) as file:
                file.write(record.model_dump_json(indent=1).encode())
        if self.options.report:
            write_report(self.out)
        write_json_atomic(
            self.out / "workspace" / FINISHED, {"key": key, "subset": manifest.subset.sha256, "columns": columns}
        )


def environment(threads: int) -> records.EnvironmentRecord:
    """Versions and machine of this process."""
    return records.EnvironmentRecord(
        python=".".join(map(str, sys.version_info[:3])),
        numpy=np.__version__,
        pyarrow=pa.__version__,
        duckdb=getattr(sys.modules.get("duckdb"), "__version__", "not used"),
        isa=active_isa().name,
        threads=threads,
        platform=_platform(),
    )


def _platform() -> str:
    """Kernel, machine and C library, as ``platform.platform()`` names them without reading an executable for 12 ms."""
    system = os.uname()
    return f"{system.sysname}-{system.release}-{system.machine}-with-{os.confstr('CS_GNU_LIBC_VERSION')}"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_strangers(folder: Path, wanted: set[str]) -> None:
    """Ledger files of shards that the pool no longer has would otherwise pass for today's."""
    if folder.exists():
        for path in folder.rglob("*.parquet"):
            if path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
