"""``reshard``: the samples of a subset, from the tars of a pool into new tars, their bytes untouched."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType

from pycurate.api.out import claim_out
from pycurate.api.reshard_tasks import (
    WORK,
    ReshardJob,
    TarOutput,
    index_task,
    mark_found,
    missing_uids,
    plan_outputs,
    write_task,
)
from pycurate.api.uid_files import UidFile, mapped_uids
from pycurate.engine import LocalEngine, NoProgress, Progress, default_memory_bytes, worker_count
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import InputError, MemoryCapError, PoolError
from pycurate.io.atomic import TEMPORARY_SUFFIX, atomic_write, write_json_atomic
from pycurate.io.fingerprint import fingerprint_files
from pycurate.io.pool import Pool
from pycurate.io.reshard import TarIndex, TarUidSource, tar_uid_source
from pycurate.io.store import Store
from pycurate.io.subset import Subset
from pycurate.kernels.uid import format_hex
from pycurate.pipeline.workspace import Workspace, digest, has_marker

RECORD = "reshard.json"
SIZES = "sizes.json"
SAVED_SUBSET = "subset.npy"
WORKER_BYTES = 64 << 20
"""Of one task: listing a tar of 100,000 samples takes 42 MB, copying 3; DataComp tars have 10,000."""

_OUTPUT = re.compile(r"(\d{8,})(?:\.tar|_stats\.json)")


@dataclass(frozen=True, slots=True)
class ReshardResult:
    """What a finished `reshard` wrote and what it did not find."""

    out: Path
    shards: int  # tars written
    samples: int  # in them, copies counted
    bytes: int
    found: int  # different uids of the subset that the pool has
    missing: int  # different uids of the subset that it has not
    first_missing: tuple[str, ...]
    pool_tars: int
    pool_samples: int
    without_uid: int  # samples of the pool without a json member or a uid in it
    repeated: int  # samples left out because an earlier one has the same uid
    reused: int  # tars that an earlier call had finished
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "out": str(self.out), "first_missing": list(self.first_missing)}

    def render(self) -> RenderableType:
        """For a terminal, through rich."""
        from rich.filesize import decimal
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_row("written", f"{self.samples:,} samples in {self.shards:,} tars, {decimal(self.bytes)}")
        table.add_row("to", str(self.out))
        table.add_row("pool", f"{self.pool_samples:,} samples in {self.pool_tars:,} tars")
        table.add_row("uids found", f"{self.found:,} of {self.found + self.missing:,}")
        if self.missing:
            more = ", ..." if self.missing > len(self.first_missing) else ""
            table.add_row("not found", f"{self.missing:,}: {', '.join(self.first_missing)}{more}", style="yellow")
        if self.without_uid:
            table.add_row("without uid", f"{self.without_uid:,} samples of the pool, left out", style="yellow")
        if self.repeated:
            table.add_row("repeated uid", f"{self.repeated:,} later samples, left out", style="yellow")
        table.add_row("took", f"{self.seconds:.1f} s" + (f", {self.reused:,} tars reused" if self.reused else ""))
        return table


def reshard(
    pool: Pool | str | os.PathLike[str],
    subset: Subset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    samples_per_shard: int = 10_000,
    allow_duplicate_uids: bool = False,
    memory_bytes: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ReshardResult:
    """Write the samples of a subset as tars, as DataComp's resharder does, and resumably.

    Writes ``00000000.tar`` and so on, ``00000000_stats.json`` (``{"successes": n}``) beside each, ``sizes.json``
    (samples by tar) and ``reshard.json`` (what was found). Every member of a wanted sample is copied with its bytes,
    time, owner and mode; only its name becomes ``{uid}-{j}.{extension}``, with j counting the rows that the subset has
    of that uid from 0. The order is that of the pool: tars by name, samples as they stand, copies side by side. The
    bytes of the tars depend on the pool, the subset and ``samples_per_shard`` only.

    Parameters
    ----------
    pool
        A pool with tars below it, or the path or URL of a folder of tars. The uid of a sample is the text ``uid`` of
        its json member; in an img2dataset pool without such uids it is the one that `open_pool` gives its row.
    subset
        Uids, or the path of a subset file; repeats are copies.
    out
        A folder: new, empty, or of an earlier call. Tars of another subset in it are removed.
    samples_per_shard
        Samples in one tar, copies counted. Default as DataComp's resharder.
    allow_duplicate_uids
        Of several samples with one uid take the first and count the others, instead of refusing the pool.
    memory_bytes
        Cap on the memory of this process and its workers. Default: half of what the machine or cgroup allows.
    workers
        Tasks at a time, in processes of their own. Default: the processors this process may use.
    progress
        Told of stages and finished tars. Default: silence.

    Raises
    ------
    InputError, PoolError, WorkspaceError, MemoryCapError
        Each says what was expected, what came and what to do. Finished tars stay, so that the same call continues.
    """

    started = time.perf_counter()
    if samples_per_shard < 1:
        raise InputError(f"samples_per_shard: expected at least 1, got {samples_per_shard}")
    workers = worker_count(workers)
    store, tars = _tars_of(pool)
    folder = Path(out).absolute()
    if store.local and folder.resolve() == Path(store.root).resolve():
        raise InputError(f"out: {folder} is the folder of the pool; choose another")
    claim_out(folder)
    with Workspace(folder / WORK).lock():
        asked = UidFile.of(subset, folder / WORK / SAVED_SUBSET)
        cap_bytes = default_memory_bytes() if memory_bytes is None else memory_bytes
        _check_memory(cap_bytes, workers, asked.rows)
        job = ReshardJob(store, folder, asked, _uid_source(pool, store, tars), samples_per_shard, allow_duplicate_uids)
        made = _Reshard(job, tars, LocalEngine(workers, processes=workers > 1), progress or NoProgress())
        values = made.result()
        return ReshardResult(out=folder, seconds=round(time.perf_counter() - started, 3), **values)


def _tars_of(pool: Pool | str | os.PathLike[str]) -> tuple[Store, list[str]]:
    store = Store.at(pool.root if isinstance(pool, Pool) else pool)
    if not store.exists():
        raise PoolError(f"pool: {store.root!r} does not exist")
    if store.is_file():
        folder = store.folder()
        name = store.root[len(folder.root) :].lstrip("/")
        return folder, _require_tars([name] if name.endswith(".tar") else [], store)
    return store, _require_tars([path for path in store.files() if path.endswith(".tar")], store)


def _require_tars(tars: list[str], store: Store) -> list[str]:
    if not tars:
        raise PoolError(f"pool: {store.root!r} has no .tar file; expected tars of samples, as img2dataset writes them")
    return tars


def _uid_source(pool: Pool | str | os.PathLike[str], store: Store, tars: Sequence[str]) -> TarUidSource:
    if isinstance(pool, Pool) and pool.layout == "img2dataset":
        return "path" if pool.uid_source == "path" else "json"
    return tar_uid_source(store, tars)


def _check_memory(cap_bytes: int, workers: int, rows: int) -> None:
    bases = 1 + workers if workers > 1 else 1
    least = bases * BASE_BYTES + workers * WORKER_BYTES + rows // 8
    if cap_bytes < least:
        raise MemoryCapError(
            f"memory: {cap_bytes >> 20:,} MiB is not enough for {workers} worker{'s' if workers > 1 else ''} and a "
            f"subset of {rows:,} rows; give at least {-(-least // (1 << 20)):,} MiB, or use fewer workers"
        )


@dataclass
class _Reshard:
    job: ReshardJob
    tars: Sequence[str]
    engine: LocalEngine
    progress: Progress
    fingerprints: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        with self._stage("fingerprint", len(self.tars)):
            for mark in self.engine.ordered(lambda tar: fingerprint_files(self.job.store, [tar]), self.tars):
                self.fingerprints.append(mark)
                self.progress.advance(0)
        job = self.job
        key = digest(job.index_key, self.fingerprints, self.tars, job.samples_per_shard, job.first_of_repeated)
        self.job = replace(job, key=key)
        finished = self._finished()
        if finished is not None:
            return finished
        self._remove_stale()
        self._index_all()
        bounds, repeats = self._plan()
        outputs = list(plan_outputs(self.tars, self.fingerprints, bounds, repeats, self.job.samples_per_shard))
        missing = [output for output in outputs if not self.job.is_done(output.number)]
        self._write_all(missing)
        sizes = {self.job.tar_path(output.number).name: output.samples for output in outputs}
        write_json_atomic(self.job.out / SIZES, sizes)
        self.facts |= {
            "shards": len(outputs),
            "samples": sum(sizes.values()),
            "bytes": sum(self.job.tar_path(output.number).stat().st_size for output in outputs),
        }
        write_json_atomic(self.job.out / RECORD, {"key": key, **self.facts})
        for folder in ("index", "repeats"):  # half a percent of the tars; a call that is repeated needs none of it
            shutil.rmtree(self.job.out / WORK / folder, ignore_errors=True)
        (self.job.out / WORK / SAVED_SUBSET).unlink(missing_ok=True)
        return self._values(reused=len(outputs) - len(missing))

    def _values(self, reused: int) -> dict[str, Any]:
        return {**self.facts, "first_missing": tuple(self.facts["first_missing"]), "reused": reused}

    @contextmanager
    def _stage(self, name: str, tasks: int) -> Iterator[None]:
        self.progress.start(name, tasks)
        yield
        self.progress.finish()

    def _finished(self) -> dict[str, Any] | None:
        """The values of the very same call, where everything it wrote is still there."""
        try:
            self.facts = json.loads((self.job.out / RECORD).read_text())
            same = self.facts.pop("key") == self.job.key and (self.job.out / SIZES).exists()
            if same and all(self.job.is_done(number) for number in range(self.facts["shards"])):
                return self._values(reused=self.facts["shards"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        self.facts = {}
        return None

    def _remove_stale(self) -> None:
        """Tars of another subset or pool, and what killed runs left half written."""
        for name in (RECORD, SIZES):
            (self.job.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.job.out / WORK / "fetched", ignore_errors=True)
        for path in self.job.out.iterdir():
            output = _OUTPUT.fullmatch(path.name)
            if output is not None and not self.job.is_done(int(output[1])):
                path.unlink()
                self.job.marker_path(int(output[1])).unlink(missing_ok=True)
        for folder in (self.job.out, self.job.out / WORK / "done"):
            for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                path.unlink()

    def _index_all(self) -> None:
        tasks = [
            (tar, mark)
            for tar, mark in zip(self.tars, self.fingerprints, strict=True)
            if not has_marker(self.job.index_path(tar), digest(self.job.index_key, mark))
        ]
        with self._stage("index", len(tasks)):
            for samples, read_bytes in self.engine.unordered(index_task, self.job, tasks):
                self.progress.advance(samples, read_bytes)

    def _write_all(self, outputs: Sequence[TarOutput]) -> None:
        with self._stage("write", len(outputs)):
            for samples, written_bytes in self.engine.unordered(write_task, self.job, outputs):
                self.progress.advance(samples, written_bytes)

    def _plan(self) -> tuple[NDArray[np.int64], set[str]]:
        """Copies before each tar, (tars + 1,), and the tars of which some samples are left out."""
        found = np.zeros(self.job.subset.rows // 8 + 1, np.uint8)  # one bit for each row of the subset
        bounds = np.zeros(len(self.tars) + 1, np.int64)
        counts = dict.fromkeys(("pool_samples", "without_uid", "repeated", "found"), 0)
        repeats: set[str] = set()
        for number, index in enumerate(self.engine.ordered(self.job.load, self.tars)):
            tar = self.tars[number]
            again = mark_found(found, index.positions)
            if again.any():
                if not self.job.first_of_repeated:
                    raise self._repeated(number, index, again)
                repeats.add(tar)
                path = self.job.repeats_path(tar)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as file:
                    np.save(file, again)
            bounds[number + 1] = bounds[number] + int(index.copies[~again].sum())
            counts["pool_samples"] += index.samples
            counts["without_uid"] += index.without_uid
            counts["repeated"] += int(again.sum())
            counts["found"] += int((~again).sum())
        missing, first_missing = missing_uids(mapped_uids(self.job.subset.path), found)
        if missing and not bounds[-1]:
            raise self._nothing_found(first_missing)
        self.facts = {**counts, "pool_tars": len(self.tars), "missing": missing, "first_missing": first_missing}
        return bounds, repeats

    def _repeated(self, number: int, index: TarIndex, again: NDArray[np.bool_]) -> PoolError:
        sample = int(np.argmax(again))
        position = index.positions[sample]
        tar = self.tars[number]
        earlier = next((t for t in self.tars[:number] if position in self.job.load(t).positions), None)
        where = f"in {earlier} and again in {tar}" if earlier else f"more than once in {tar}"
        uid = format_hex(index.uids[sample : sample + 1])[0].decode()
        return PoolError(
            f"uid {uid} is {where}; remove one of the samples, or pass allow_duplicate_uids (--allow-duplicate-uids) "
            "to take the first and leave out the others"
        )

    def _nothing_found(self, first_missing: Sequence[str]) -> PoolError:
        source = {"json": "the json members of the samples", "path": "the paths of the tars and the keys in them"}
        return PoolError(
            f"none of the subset's uids, such as {first_missing[0]}, is in the {len(self.tars):,} tars of "
            f"{self.job.store.root!r}, whose uids come from {source[self.job.uid_source]}; pass the pool that the "
            "subset was made from, by the same root folder"
        )
