"""Parquet tables of a pool: footers, streamed reading of asked columns, embedding columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import numpy_values
from pycurate.errors import PoolError
from pycurate.io.store import Store

# Without a buffer size pyarrow reads a whole column chunk at once: 358 MB for 300,000 rows of binary(1024) against
# 68 MB with it, at the same speed (32,768 rows a batch).
_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20

_LIST_DTYPES = {pa.float16(): "float16", pa.float32(): "float32", pa.int8(): "int8"}
_COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """What the footer of a parquet file says.

    ``column_bytes`` holds, per top-level column, the bytes stored and the bytes after decompression.
    """

    path: str
    rows: int
    group_rows: tuple[int, ...]
    column_bytes: Mapping[str, tuple[int, int]]
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class ParquetMatrix:
    """An embedding stored as a parquet column: fixed-size binary (float16) or a fixed-size list of floats."""

    path: str
    column: str
    rows: int
    dimension: int
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dimension * self.storage.itemsize

    @property
    def storage(self) -> np.dtype[Any]:
        """NumPy dtype of the values as read."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)


def read_footer(store: Store, path: str) -> ParquetTable:
    """Rows, schema and sizes of a parquet file, without reading data."""
    with _opened(store, path) as file:
        metadata = file.metadata
        schema = file.schema_arrow.remove_metadata()
        sizes = {sys.intern(name): [0, 0] for name in schema.names}
        if len(sizes) != len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise PoolError(f"{path}: has two columns named {twice!r}; rename one")
        owners = [_top_level(metadata.schema.column(i).path, sizes) for i in range(metadata.num_columns)]
        group_rows = []
        for group_index in range(metadata.num_row_groups):
            group = metadata.row_group(group_index)
            group_rows.append(group.num_rows)
            for column_index, owner in enumerate(owners):
                chunk = group.column(column_index)
                sizes[owner][0] += chunk.total_compressed_size
                sizes[owner][1] += chunk.total_uncompressed_size
        column_bytes = {name: (stored, plain) for name, (stored, plain) in sizes.items()}
        return ParquetTable(path, metadata.num_rows, tuple(group_rows), column_bytes, schema)


def embedding_columns(table: ParquetTable, bfloat16: frozenset[str] = frozenset()) -> dict[str, ParquetMatrix]:
    """The columns that can be read as embeddings: binary(2d) as float16, fixed-size lists of float16 or float32."""
    found = {}
    for field in table.schema:
        kind = field.type
        if pa.types.is_fixed_size_binary(kind) and kind.byte_width > 0 and kind.byte_width % 2 == 0:
            dtype = "bfloat16" if field.name in bfloat16 else "float16"
            found[field.name] = ParquetMatrix(table.path, field.name, table.rows, kind.byte_width // 2, dtype)
        elif pa.types.is_fixed_size_list(kind) and kind.list_size > 0:
            value_dtype = _LIST_DTYPES.get(kind.value_type)
            if value_dtype is not None:
                found[field.name] = ParquetMatrix(table.path, field.name, table.rows, kind.list_size, value_dtype)
    return found


def read_columns(
    store: Store, table: ParquetTable, columns: Sequence[str], start: int, rows: int, block_rows: int
) -> Iterator[dict[str, pa.Array]]:
    """Rows ``start`` to ``start + rows`` of the columns, as contiguous arrays of ``block_rows`` rows or, last, fewer.

    Decodes one batch at a time: memory does not depend on the size of a row group.
    """
    groups, skip = _groups_from(table.group_rows, start, rows)
    left = rows
    pending: list[pa.RecordBatch] = []
    count = 0
    with _opened(store, table.path) as file:
        if file.metadata.num_rows != table.rows:
            raise PoolError(
                f"{table.path}: has {file.metadata.num_rows} rows, had {table.rows} when the pool was opened"
            )
        batches = file.iter_batches(batch_size=block_rows, row_groups=groups, columns=list(columns), use_threads=False)
        for batch in _decoded(batches, table.path):
            if skip:
                dropped = min(skip, batch.num_rows)
                batch, skip = batch.slice(dropped), skip - dropped
            batch = batch.slice(0, left - count)
            pending.append(batch)
            count += batch.num_rows
            while left and count >= min(block_rows, left):
                size = min(block_rows, left)
                block, pending = _take(pending, size)
                count, left = count - size, left - size
                yield {name: _contiguous(block, name) for name in columns}
            if not left:
                return
    if left:
        raise PoolError(f"{table.path}: its pages end {left - count} rows before its footer says; {_COPY_AGAIN}")


def matrix_values(array: pa.Array, matrix: ParquetMatrix) -> NDArray[Any]:
    """An embedding column's block as (rows, d); PoolError naming the row in the block of a null."""
    kind = array.type
    if array.null_count:
        row = int(np.argmax(np.asarray(array.is_null())))
        raise PoolError(f"{matrix.path}: embedding column {matrix.column!r} is null", row=row)
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        data = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
        return data.view(matrix.storage).reshape(len(array), matrix.dimension)
    values = array.flatten()
    if values.null_count:
        row = int(np.argmax(np.asarray(values.is_null()))) // matrix.dimension
        raise PoolError(f"{matrix.path}: embedding column {matrix.column!r} has a null value", row=row)
    flat: NDArray[Any] = numpy_values(values)
    return flat.reshape(len(array), matrix.dimension)


@contextmanager
def _opened(store: Store, path: str) -> Iterator[pq.ParquetFile]:
    with store.arrow_file(path) as source:
        buffer_bytes = _BUFFER_BYTES if store.local else _REMOTE_BUFFER_BYTES
        try:
            file = pq.ParquetFile(source, buffer_size=buffer_bytes, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise PoolError(f"{path}: truncated or not a parquet file ({_first_line(error)}); {_COPY_AGAIN}") from error
        with file:
            yield file


def _decoded(batches: Iterator[pa.RecordBatch], path: str) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise PoolError(f"{path}: damaged parquet data ({_first_line(error)}); {_COPY_AGAIN}") from error
        if batch is None:
            return
        yield batch


def _groups_from(group_rows: Sequence[int], start: int, rows: int) -> tuple[list[int], int]:
    """The row groups that hold the rows, and how many rows of the first come before."""
    groups: list[int] = []
    skip = before = 0
    for index, count in enumerate(group_rows):
        if before < start + rows and before + count > start:
            if not groups:
                skip = start - before
            groups.append(index)
        before += count
    return groups, skip


def _take(pending: list[pa.RecordBatch], rows: int) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    taken: list[pa.RecordBatch] = []
    for index, batch in enumerate(pending):
        if batch.num_rows > rows:
            return [*taken, batch.slice(0, rows)], [batch.slice(rows), *pending[index + 1 :]]
        taken.append(batch)
        rows -= batch.num_rows
        if not rows:
            return taken, pending[index + 1 :]
    raise AssertionError("fewer rows pending than counted")


def _contiguous(batches: Sequence[pa.RecordBatch], name: str) -> pa.Array:
    if len(batches) == 1:
        return batches[0].column(name)
    return pa.concat_arrays([batch.column(name) for batch in batches])


def _top_level(path: str, names: Mapping[str, Any]) -> str:
    """The column of the Arrow schema that owns a parquet leaf; both may hold dots."""
    if path in names:
        return path
    return max((name for name in names if path.startswith(name + ".")), key=len)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
