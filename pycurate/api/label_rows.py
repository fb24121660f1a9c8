"""The rows of a pool as label commands need them: uids, labels and one embedding in a file, in order of uid."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import pycurate
from pycurate.arrow import numpy_values
from pycurate.engine import Progress
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.atomic import atomic_write
from pycurate.io.label_files import UNLABELLED, RowLabels, read_labels
from pycurate.io.names import unknown_name
from pycurate.io.pool import Pool
from pycurate.io.uids import is_text
from pycurate.pipeline.neighbor_lists import places_by_uid, stored_rows
from pycurate.types import UID_DTYPE, UidArray


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows:
    """Rows in order of uid.

    Attributes
    ----------
    uids
        (n,) rising.
    x
        (n, d) embedding, memory-mapped; bfloat16 as uint16.
    labels
        Of the same order; None where none were asked for.
    """

    uids: UidArray
    x: NDArray[Any]
    labels: RowLabels | None

    @property
    def dtype(self) -> Any:
        """The argument ``dtype`` with which kernels read ``x``."""
        return "bfloat16" if self.x.dtype == np.uint16 else None


def gather_rows(
    pool: Pool,
    embedding: str,
    folder: Path,
    progress: Progress,
    *,
    label: str | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> LabelRows:
    """Read uids and labels, then the embedding, into ``folder`` in order of uid.

    ``label`` is a column of the pool, ``labels`` a file that `read_labels` reads.
    """
    if embedding not in pool.embeddings:
        raise unknown_name("embedding", embedding, pool.embeddings)
    column = None if label is None else pool.stored_name(label)
    parts, values = [np.empty(0, UID_DTYPE)], []
    for shard in pool.shards:
        for block in shard.blocks(() if column is None else (column,)):
            assert block.uids is not None
            parts.append(block.uids)
            if column is not None:
                values.append(block.columns[column])
    uids = np.concatenate(parts)
    known = None if column is None else _column_labels(column, values)
    if labels is not None:
        known = read_labels(labels, uids)
    places = places_by_uid(uids)
    x = stored_rows(places, _embeddings(pool, embedding, progress), folder / "rows.bin")
    order = np.argsort(places)
    return LabelRows(uids[order], x, None if known is None else RowLabels(known.labels[order], known.class_names))


def label_array(ids: NDArray[Any], names: tuple[str, ...] | None) -> pa.Array:
    """Class ids as an Arrow column, by name where there are names; null for -1."""
    missing = ids < 0
    if names is None:
        return pa.array(ids, pa.int64(), mask=missing)
    return pa.array(names, pa.string()).take(pa.array(np.where(missing, 0, ids), mask=missing))


def write_table(table: pa.Table, out: str | os.PathLike[str], facts: Mapping[str, Any]) -> Path:
    """One Parquet file, whole or not there. ``facts``, JSON values, stand in its metadata under ``pycurate``."""
    made_by = {"made_by": f"pycurate {pycurate.__version__}"}
    table = table.replace_schema_metadata({"pycurate": json.dumps({**made_by, **facts})})
    path = Path(out).absolute()
    if path.suffix != ".parquet":
        raise InputError(f"out: expected a file named *.parquet, got {out}")
    with atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd")
    return path


def scratch_parent(out: str | os.PathLike[str]) -> Path:
    """The folder of ``out``, where scratch files go, too; refused before any work where nothing can be written."""
    path = Path(out).absolute()
    if path.suffix != ".parquet":
        raise InputError(f"out: expected a file named *.parquet, got {out}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"out: cannot use {path.parent} as a folder ({error.strerror}); choose another") from error
    return path.parent


def _embeddings(pool: Pool, embedding: str, progress: Progress) -> Iterator[NDArray[Any]]:
    progress.start("storing rows", len(pool.shards))
    for shard in pool.shards:
        for block in shard.blocks((), (embedding,), uids=False):
            yield block.embeddings[embedding]
        progress.advance(shard.rows)
    progress.finish()


def _column_labels(name: str, values: list[pa.Array]) -> RowLabels:
    column = pa.chunked_array(values).combine_chunks() if values else pa.nulls(0, pa.int64())
    kind = column.type
    if is_text(kind) and not pa.types.is_null(kind):
        text = column.cast(pa.string())
        names = sorted(pc.unique(text.drop_null()).to_pylist())
        found = pc.index_in(text, pa.array(names, pa.string()))
        return RowLabels(numpy_values(found.cast(pa.int64()), UNLABELLED), tuple(names))
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(f"label: expected column {name!r} to hold integers or class names, got {kind}")
    return RowLabels(np.asarray(numpy_values(column.cast(pa.int64()), UNLABELLED)), None)
