"""A pool's metadata with only the rows of a subset: the parquet files it came from, every column as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import arrow_texts, arrow_values
from pycurate.errors import PoolError
from pycurate.io.images import KEY_COLUMN
from pycurate.io.parquet import read_columns
from pycurate.io.pool import Shard
from pycurate.io.uids import UID_COLUMN
from pycurate.kernels.uid import find, format_hex
from pycurate.types import UidArray

BLOCK_ROWS = 16_384
GROUP_ROWS = 1 << 16
GROUP_BYTES = 64 << 20
"""A row group is written when it has this many rows or bytes; rows of a DataComp pool take some 500 bytes."""

_FILE_SCHEMA = pa.schema([(UID_COLUMN, pa.string()), (KEY_COLUMN, pa.string())])


def write_kept_rows(shards: Sequence[Shard], subset: UidArray, file: BinaryIO) -> int:
    """Write the kept rows of one stored parquet file, in order, each once; returns how many.

    Of a shard of image files: their uids and keys, since nothing is stored of them.

    Parameters
    ----------
    shards
        The shards of the file, by their first row.
    subset
        (n,) sorted; may be a memory map, and repeats change nothing.

    Raises
    ------
    PoolError
        The shards have no parquet file, or it is damaged.
    """
    table = shards[0].table
    if shards[0].image_files is not None:
        return _write_kept_files(shards[0], subset, file)
    if table is None:
        raise PoolError("has no parquet file, so no metadata to write", shard=shards[0].name)
    kept = 0
    with pq.ParquetWriter(file, table.schema) as writer:
        for group in _groups(_kept_batches(shards, subset), table.schema):
            writer.write_table(group)
            kept += group.num_rows
    return kept


def _write_kept_files(shard: Shard, subset: UidArray, file: BinaryIO) -> int:
    kept = 0
    with pq.ParquetWriter(file, _FILE_SCHEMA) as writer:
        for block in shard.blocks((KEY_COLUMN,)):
            assert block.uids is not None
            rows = np.flatnonzero(find(subset, block.uids) >= 0)
            if len(rows):
                uids = arrow_texts([uid.decode() for uid in format_hex(block.uids[rows])])
                keys = block.columns[KEY_COLUMN].take(arrow_values(rows))
                batch = pa.RecordBatch.from_arrays([uids.cast(pa.string()), keys], schema=_FILE_SCHEMA)
                writer.write_batch(batch)
                kept += len(rows)
    return kept


def _kept_batches(shards: Sequence[Shard], subset: UidArray) -> Iterator[pa.RecordBatch]:
    for shard in shards:
        keep = _kept(shard, subset)
        if shard.table is None or not keep.any():
            continue
        schema = shard.table.schema
        start = 0
        for arrays in read_columns(shard.store, shard.table, schema.names, shard.start, shard.rows, BLOCK_ROWS):
            batch = pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)
            mask = keep[start : start + batch.num_rows]
            start += batch.num_rows
            if mask.any():
                yield batch.filter(arrow_values(mask))


def _kept(shard: Shard, subset: UidArray) -> NDArray[np.bool_]:
    """(rows,) True where the subset has the row's uid; a shard has at most a million rows."""
    blocks = (block.uids for block in shard.blocks())
    masks = [find(subset, uids) >= 0 for uids in blocks if uids is not None]
    return np.concatenate(masks) if masks else np.zeros(0, np.bool_)


def _groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The batches, joined to row groups of a useful size."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(pending, schema)
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending, schema)
