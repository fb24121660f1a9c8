"""``export_parquet``: the metadata of a pool with only the rows of a subset."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycurate.api.out import claim_out
from pycurate.api.reshard_tasks import WORK
from pycurate.api.uid_files import UidFile, mapped_uids
from pycurate.engine import LocalEngine, NoProgress, Progress, worker_count
from pycurate.errors import InputError
from pycurate.io.atomic import TEMPORARY_SUFFIX, atomic_write, write_json_atomic
from pycurate.io.export import write_kept_rows
from pycurate.io.pool import Pool, Shard, open_pool
from pycurate.io.subset import Subset
from pycurate.pipeline.workspace import Workspace, digest

_FORMAT = 1  # bumped when the same input gives other bytes


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What a finished `export_parquet` wrote."""

    out: Path
    files: int
    rows: int
    reused: int  # stored files that an earlier call had finished

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"out": str(self.out), "files": self.files, "rows": self.rows, "reused": self.reused}

    def render(self) -> str:
        """For people."""
        again = f" ({self.reused:,} from an earlier call)" if self.reused else ""
        return f"written  {self.rows:,} rows in {self.files:,} parquet files{again}\nto       {self.out}"


def export_parquet(
    pool: Pool | str | os.PathLike[str],
    subset: Subset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Write the pool's parquet files with only the rows of a subset.

    Every file has the name, the columns, the types and the order of rows that it has in the pool; files without a kept
    row are left out. A row is written once, however often the subset has its uid, so that the output is a pool itself
    and the subset still says how many copies are meant. Of a pool of image files, which has none, ``uid`` and ``key``,
    the path, are written. A killed call continues when repeated.

    Parameters
    ----------
    pool
        A pool with parquet files or of image files, or its path or URL.
    subset
        Uids, or the path of a subset file.
    out
        A folder: new, empty, or of an earlier call.
    workers
        Files at a time, on threads; each holds about 150 MB. Default: the processors this process may use.
    progress
        Told of finished files. Default: silence.

    Raises
    ------
    InputError, PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """

    opened = pool if isinstance(pool, Pool) else open_pool(pool)
    workers = worker_count(workers)
    files = _parquet_files(opened)
    folder = Path(out).absolute()
    if folder.resolve() == Path(opened.root).resolve():
        raise InputError(f"out: {folder} is the folder of the pool; choose another")
    claim_out(folder)
    with Workspace(folder / WORK).lock():
        asked = UidFile.of(subset, folder / WORK / "subset.npy")
        _remove_stale(folder, files)
        return _export(files, asked, folder, LocalEngine(workers, processes=False), progress or NoProgress())


def _parquet_files(pool: Pool) -> dict[str, list[Shard]]:
    """The shards of each parquet file, by its path in the pool, in the order of their rows."""
    files: dict[str, list[Shard]] = {}
    for shard in sorted(pool.shards, key=lambda shard: shard.start):
        if shard.table is None and shard.image_files is None:
            raise InputError(f"pool: shard {shard.name} has no parquet file, so there is no metadata to write")
        path = f"{shard.name}.parquet" if shard.table is None else shard.table.path
        files.setdefault(path, []).append(shard)
    return dict(sorted(files.items()))


def _export(
    files: Mapping[str, Sequence[Shard]], subset: UidFile, out: Path, engine: LocalEngine, progress: Progress
) -> ExportResult:
    def task(name: str) -> tuple[int, bool]:
        return _write_file(name, files[name], subset, out)

    progress.start("export", len(files))
    written = rows = reused = 0
    for kept, was_done in engine.ordered(task, files):
        written, rows, reused = written + (kept > 0), rows + kept, reused + was_done
        progress.advance(kept)
    progress.finish()
    return ExportResult(out, written, rows, reused)


def _write_file(name: str, shards: Sequence[Shard], subset: UidFile, out: Path) -> tuple[int, bool]:
    """Rows that one file of the output has, and whether it was there already."""
    key = digest(_FORMAT, subset.checksum, *(shard.fingerprint() for shard in shards))
    path, marker = out / name, _markers(out) / f"{name}.json"
    try:
        done = json.loads(marker.read_text())
        if done["key"] == key and (done["rows"] == 0 or path.stat().st_size == done["bytes"]):
            return int(done["rows"]), True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for parent in (path.parent, marker.parent):
        parent.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)  # a kill from here on must not leave this file under another subset's marker
    with atomic_write(path) as file:
        rows = write_kept_rows(shards, mapped_uids(subset.path), file)
    size = path.stat().st_size
    if rows == 0:
        path.unlink()
    write_json_atomic(marker, {"key": key, "rows": rows, "bytes": size})
    return rows, False


def _remove_stale(out: Path, files: Collection[str]) -> None:
    """Files that an earlier call wrote for a pool that had others, and what killed calls left half written."""
    markers = _markers(out)
    for marker in markers.rglob("*.json"):
        name = marker.relative_to(markers).as_posix().removesuffix(".json")
        if name not in files:
            (out / name).unlink(missing_ok=True)
            marker.unlink()
    for folder in {(root / name).parent for root in (out, markers) for name in files}:
        for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink()


def _markers(out: Path) -> Path:
    return out / WORK / "exported"
