"""Votes of annotators from a file: ``.npy``, or a wide Parquet or CSV table with a column an annotator or a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import numpy_values
from pycurate.errors import InputError, PoolError
from pycurate.io.label_files import PathLike
from pycurate.io.uids import UID_COLUMN, column_uids, is_text
from pycurate.types import UidArray

NO_VOTE = -1


@dataclass(frozen=True, slots=True)
class VoteTable:
    """What a file of votes holds.

    ``votes`` (n, M) integers, -1 for none; or, of counts, (n, K) int64. ``columns`` name the M annotators, or the K
    classes of counts. ``class_names`` are sorted where votes are names, else None. ``uids`` (n,) where there is such a
    column.
    """

    votes: NDArray[Any]
    columns: tuple[str, ...]
    class_names: tuple[str, ...] | None
    uids: UidArray | None


def read_votes(path: PathLike, columns: Sequence[str] | None = None, *, counts: bool = False) -> VoteTable:
    """Votes of annotators, or counts of votes by class.

    Parameters
    ----------
    path
        ``.npy``: (n, M) integers, memory-mapped. ``.parquet`` or ``.csv``: a column an annotator of integers or names,
        null or an empty field for no vote, and optionally ``uid``.
    columns
        Of a table: those to read. None: all but ``uid``.
    counts
        Columns are classes, and hold how many people voted for them.

    Raises
    ------
    InputError
        The file cannot be read, a column is missing or of another kind; names it.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _npy_votes(path, columns)
    table = _read(path)
    wanted = [name for name in table.column_names if name != UID_COLUMN] if columns is None else list(columns)
    missing = [name for name in wanted if name not in table.column_names]
    if missing or not wanted:
        listed = ", ".join(table.column_names[:20])
        raise InputError(f"{path}: expected columns {', '.join(missing) or 'of votes'}, got {listed}")
    arrays = [_array(table, name) for name in wanted]
    uids = _uids(path, table)
    if counts:
        for name, array in zip(wanted, arrays, strict=True):
            _require(path, name, pa.types.is_integer(array.type), "numbers of votes", array.type)
        # By name, as class ids are everywhere that classes have names.
        order = sorted(range(len(wanted)), key=wanted.__getitem__)
        votes = np.stack([numpy_values(arrays[i].cast(pa.int64()), 0) for i in order], axis=1)
        classes = tuple(wanted[i] for i in order)
        return VoteTable(votes, classes, classes, uids)
    if all(pa.types.is_integer(array.type) or pa.types.is_null(array.type) for array in arrays):
        votes = np.stack([numpy_values(array.cast(pa.int64()), NO_VOTE) for array in arrays], axis=1)
        return VoteTable(votes, tuple(wanted), None, uids)
    for name, array in zip(wanted, arrays, strict=True):
        _require(path, name, is_text(array.type), "names of classes, as another column does", array.type)
    return _named_votes(arrays, wanted, uids)


def _npy_votes(path: Path, columns: Sequence[str] | None) -> VoteTable:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file ({error}); save the votes with numpy.save") from error
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise InputError(f"{path}: expected integers (rows, annotators), got shape {values.shape} of {values.dtype}")
    if columns is not None:
        raise InputError(f"columns: only of a Parquet or CSV table, got {path}")
    return VoteTable(values, tuple(str(i) for i in range(values.shape[1])), None, None)


def _named_votes(arrays: Sequence[pa.Array], names: Sequence[str], uids: UidArray | None) -> VoteTable:
    encoded = [a if pa.types.is_dictionary(a.type) else a.cast(pa.string()).dictionary_encode() for a in arrays]
    known = sorted({name for array in encoded for name in array.dictionary.to_pylist()} - {None})
    rank = {name: place for place, name in enumerate(known)}
    votes = np.empty((len(arrays[0]), len(arrays)), np.int32)
    for column, array in enumerate(encoded):
        ids = np.array([*(rank.get(name, NO_VOTE) for name in array.dictionary.to_pylist()), NO_VOTE], np.int32)
        votes[:, column] = ids[numpy_values(array.indices.cast(pa.int64()), NO_VOTE)]
    return VoteTable(votes, tuple(names), tuple(known), uids)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected votes as .npy, .parquet or .csv")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            convert = pa_csv.ConvertOptions(
                column_types={UID_COLUMN: pa.string()}, null_values=[""], strings_can_be_null=True
            )
            return pa_csv.read_csv(path, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); write the file again") from error
    raise InputError(f"{path}: expected a file of votes named *.npy, *.parquet or *.csv")


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def _require(path: Path, name: str, right: bool, expected: str, got: pa.DataType) -> None:
    if not right:
        raise InputError(f"{path}: column {name!r}: expected {expected}, got {got}; choose columns")


def _uids(path: Path, table: pa.Table) -> UidArray | None:
    if UID_COLUMN not in table.column_names:
        return None
    column = _array(table, UID_COLUMN)
    _require(path, UID_COLUMN, is_text(column.type), "32 hex digits", column.type)
    try:
        return column_uids(column, str(path), 0)
    except PoolError as error:
        raise InputError(f"{path}: row {error.row}: uid is not 32 hex digits; write it as the pool has it") from error
