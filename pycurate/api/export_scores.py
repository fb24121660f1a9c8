"""``export_scores``: the scores of a finished run as parquet tables keyed by uid."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pycurate.api.out import claim_out
from pycurate.arrow import arrow_values
from pycurate.engine import LocalEngine, NoProgress, Progress, worker_count
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.subset import Subset
from pycurate.kernels.uid import find
from pycurate.pipeline.ledger import hex_strings, optional_texts
from pycurate.pipeline.scan import UID_COLUMN
from pycurate.pipeline.workspace import FINISHED, Workspace, ready
from pycurate.types import UID_DTYPE, ScoreArray, UidArray

INDEX = "scores.json"
ROW_GROUP_ROWS = 1 << 17


@dataclass(frozen=True, slots=True)
class ScoresResult:
    """What a finished `export_scores` wrote."""

    out: Path
    files: int
    rows: int
    columns: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"out": str(self.out), "files": self.files, "rows": self.rows, "columns": list(self.columns)}

    def render(self) -> str:
        """For people."""
        return (
            f"written  {self.rows:,} rows in {self.files:,} parquet files\ncolumns  {', '.join(self.columns)}\n"
            f"to       {self.out}"
        )


def export_scores(
    run_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    subset: Subset | str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ScoresResult:
    """Write every score column of a finished run, ``<shard>.parquet`` by shard: rows in the shard's order.

    Column ``uid`` is text of 32 hex digits, as in the ledger; scores keep their type. Missing scores and texts are
    null. No pool file is read. ``scores.json`` lists the files.

    Parameters
    ----------
    run_dir
        Output folder of `pycurate.run`, with its workspace.
    out
        A folder: new, empty, or of an earlier call.
    subset
        Only rows whose uid is in it, each once. Default: all rows, kept or not.
    workers
        Shards at a time, on threads. Default: the processors this process may use.
    progress
        Told of finished shards. Default: silence.

    Raises
    ------
    InputError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    source, folder = Path(run_dir), Path(out)
    columns = _stored_columns(source)
    shards = sorted(path.relative_to(source / "ledger").as_posix() for path in (source / "ledger").rglob("*.parquet"))
    if folder.exists() and any(folder.iterdir()) and not (folder / INDEX).exists():
        raise WorkspaceError(f"out: {folder} is not empty and holds no exported scores; choose another folder")
    claim_out(folder)
    kept = None if subset is None else (subset if isinstance(subset, Subset) else Subset.load(subset)).uids
    for stale in _listed(folder) - set(shards):
        (folder / stale).unlink(missing_ok=True)
    write_json_atomic(folder / INDEX, {"files": shards, "columns": list(columns)})
    workspace = Workspace(source / "workspace")
    engine, told = LocalEngine(worker_count(workers), processes=False), progress or NoProgress()

    def task(name: str) -> int:
        return _write_table(workspace, name.removesuffix(".parquet"), columns, kept, folder / name)

    told.start("export", len(shards))
    rows = 0
    for written in engine.ordered(task, shards):
        rows += written
        told.advance(written)
    told.finish()
    return ScoresResult(folder, len(shards), rows, tuple(name for name in columns if name != UID_COLUMN))


def _stored_columns(run_dir: Path) -> dict[str, str]:
    """Folder of the workspace by the score columns of the run that finished last there; uids come first."""
    path = run_dir / "workspace" / FINISHED
    try:
        columns: dict[str, str] = json.loads(path.read_text())["columns"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"run: {run_dir} holds no finished run with its workspace ({path.name} cannot be read); expected the "
            "output folder of `pycurate run`: repeat the run there"
        ) from error
    return columns


def _listed(folder: Path) -> set[str]:
    """The files that an earlier call wrote."""
    try:
        return set(json.loads((folder / INDEX).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _write_table(
    workspace: Workspace, shard: str, columns: Mapping[str, str], subset: UidArray | None, path: Path
) -> int:
    values: dict[str, ScoreArray] = {}
    for folder in dict.fromkeys(columns.values()):
        values |= workspace.read_columns(folder, shard)
    arrays = [values[name] for name in columns]
    if subset is not None:
        rows = np.flatnonzero(find(subset, np.ascontiguousarray(values[UID_COLUMN])) >= 0)
        arrays = [array[rows] for array in arrays]
    schema = pa.schema([pa.field(n, _type(a), nullable=n != UID_COLUMN) for n, a in zip(columns, arrays, strict=True)])
    texts = [name for name, array in zip(columns, arrays, strict=True) if array.dtype.kind == "S"]
    with (
        atomic_write(ready(path)) as file,
        pq.ParquetWriter(file, schema, compression="NONE", use_dictionary=texts or False) as writer,
    ):
        for start in range(0, max(len(arrays[0]), 1), ROW_GROUP_ROWS):
            part = slice(start, start + ROW_GROUP_ROWS)
            writer.write_batch(pa.RecordBatch.from_arrays([_array(a[part]) for a in arrays], schema=schema))
    return len(arrays[0])


def _type(values: ScoreArray) -> pa.DataType:
    if values.dtype == UID_DTYPE or values.dtype.kind == "S":
        return pa.string()
    return pa.from_numpy_dtype(values.dtype)


def _array(values: ScoreArray) -> pa.Array:
    """Arrow values of a score column: NaN and empty text are null, 128-bit keys are hex."""
    if values.dtype == UID_DTYPE:
        return hex_strings(np.ascontiguousarray(values))
    if values.dtype.kind == "S":
        return optional_texts(values)
    return arrow_values(values, ~np.isnan(values) if values.dtype.kind == "f" else None)
