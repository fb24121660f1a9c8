"""Labels of a pool's rows from a file: ``.npy``, Parquet or CSV, aligned by place or by uid."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import numpy_values
from pycurate.errors import InputError, PoolError
from pycurate.io.uids import UID_COLUMN, column_uids, is_text
from pycurate.kernels.uid import find, format_hex, sort_uids
from pycurate.types import UID_DTYPE, UidArray

PathLike: TypeAlias = str | os.PathLike[str]

LABEL_COLUMN = "label"
UNLABELLED = -1

_SHOWN = 3  # uids that an error names
_UID_BYTES = 16


@dataclass(frozen=True, slots=True)
class RowLabels:
    """Labels aligned with rows.

    ``labels`` is (n,) int64, -1 where a row has none. Where the file holds names, ``class_names`` has one for each
    class id, sorted by code point; it is None where the file holds integers.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None


def read_labels(path: PathLike, uids: UidArray | None = None) -> RowLabels:
    """Integer labels aligned with rows.

    Parameters
    ----------
    path
        ``.npy``: 1-D integers, one a row, -1 for an unlabelled one. ``.parquet`` or ``.csv``: a column ``label`` of
        integers or of names (null, and in CSV an empty field, is unlabelled), and, if rows are to be matched, a column
        ``uid``: 32 hex digits, or in Parquet 16 bytes as the uid dtype has them in memory.
    uids
        (n,) uids of the rows, in any order, as `read_labels` shall return their labels; rows that the file does not
        name get -1. None: labels come in the file's order. With ``uids``, a file without a ``uid`` column has one label
        for each row, in the order of ``uids``.

    Raises
    ------
    InputError
        The file is of another kind, cannot be read, has no ``label``, a label is not an integer from -1 on, a uid
        is in the file twice or is none of ``uids``, or the number of labels is not that of ``uids``.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected labels as .npy, .parquet or .csv")
    if path.suffix == ".npy":
        return RowLabels(_of_length(path, _npy_labels(path), uids), None)
    table = _read_table(path)
    labels, class_names = _label_ids(path, _one_array(table, LABEL_COLUMN))
    if uids is None:
        return RowLabels(labels, class_names)
    if UID_COLUMN not in table.column_names:
        return RowLabels(_of_length(path, labels, uids), class_names)
    return RowLabels(_matched(path, labels, _file_uids(path, _one_array(table, UID_COLUMN)), uids), class_names)


def _npy_labels(path: Path) -> NDArray[np.int64]:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file ({error}); save the labels with numpy.save") from error
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(
            f"{path}: expected 1-D integers, one label a row and -1 for none, got shape {values.shape} and dtype "
            f"{values.dtype}"
        )
    return _checked(path, values)


def _read_table(path: Path) -> pa.Table:
    """The columns ``label`` and, where there is one, ``uid``."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                _require_label(path, names)
                return file.read(columns=[name for name in (LABEL_COLUMN, UID_COLUMN) if name in names])
        if path.suffix == ".csv":
            # An uid of digits alone must stay text, and only an empty field means "none": NA may be a class.
            convert = pa_csv.ConvertOptions(
                column_types={UID_COLUMN: pa.string()}, null_values=[""], strings_can_be_null=True
            )
            table = pa_csv.read_csv(path, convert_options=convert)
            _require_label(path, table.column_names)
            return table
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); write the file again") from error
    raise InputError(f"{path}: expected a file of labels named *.npy, *.parquet or *.csv")


def _require_label(path: Path, names: list[str]) -> None:
    if LABEL_COLUMN not in names:
        listed = ", ".join(repr(name) for name in names[:20])
        raise InputError(f"{path}: expected a column {LABEL_COLUMN!r}, got {listed}; rename the one that holds labels")


def _one_array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def _label_ids(path: Path, column: pa.Array) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), UNLABELLED, np.int64), None
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            column = column.cast(pa.int64(), safe=False)  # beyond 2^63 it turns negative, and is refused as such
        return _checked(path, numpy_values(column, UNLABELLED)), None
    if not is_text(kind):
        raise InputError(
            f"{path}: column {LABEL_COLUMN!r}: expected integers or class names, got {kind}; cast it on purpose"
        )
    encoded = column if pa.types.is_dictionary(kind) else pc.dictionary_encode(column)
    names = encoded.dictionary.to_pylist()
    codes = numpy_values(encoded.indices.cast(pa.int64()), UNLABELLED)
    used = sorted({names[code] for code in np.unique(codes[codes >= 0]).tolist()} - {None})
    rank = {name: place for place, name in enumerate(used)}
    ids = np.array([*(rank.get(name, UNLABELLED) for name in names), UNLABELLED], np.int64)  # last: that of code -1
    return ids[codes], tuple(used)


def _checked(path: Path, values: NDArray[Any]) -> NDArray[np.int64]:
    labels = np.asarray(values).astype(np.int64)
    if len(labels) and labels.min() < UNLABELLED:
        row = int(np.argmax(labels < UNLABELLED))
        raise InputError(
            f"{path}: row {row} has label {values[row]}; expected class ids from 0 on, or -1 for a row without one"
        )
    return labels


def _of_length(path: Path, labels: NDArray[np.int64], uids: UidArray | None) -> NDArray[np.int64]:
    if uids is not None and len(labels) != len(uids):
        raise InputError(
            f"{path}: expected {len(uids)} labels, one for each row, got {len(labels)}; give them in Parquet or CSV "
            f"with a column {UID_COLUMN!r} to label some rows only"
        )
    return labels


def _file_uids(path: Path, column: pa.Array) -> UidArray:
    kind = column.type
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == _UID_BYTES and not column.null_count:
        data = np.frombuffer(column.buffers()[1], np.uint8)
        first = column.offset * _UID_BYTES
        return data[first : first + len(column) * _UID_BYTES].view(UID_DTYPE)
    if not is_text(kind) or pa.types.is_null(kind):
        raise InputError(f"{path}: column {UID_COLUMN!r}: expected 32 hex digits or 16 bytes without null, got {kind}")
    try:
        return column_uids(column, str(path), 0)
    except PoolError as error:
        raise InputError(f"{path}: row {error.row}: uid is not 32 hex digits; write it as the pool has it") from error


def _matched(path: Path, labels: NDArray[np.int64], named: UidArray, uids: UidArray) -> NDArray[np.int64]:
    """The label of each of ``uids``; -1 for those not named."""
    order, known = np.arange(len(named), dtype=np.uint64), named.copy()
    sort_uids(known, order)
    twice = np.flatnonzero(known[1:] == known[:-1])
    if len(twice):
        raise InputError(f"{path}: {_some(known[twice])} in the file more than once; leave one label for each")
    places = find(known, uids)
    hit = np.zeros(len(known), np.bool_)
    hit[places[places >= 0]] = True
    if not hit.all():
        unknown = known[~hit]
        raise InputError(
            f"{path}: {_some(unknown)} in the file but not among the {len(uids)} rows; take the rows away that are not "
            "of this pool"
        )
    found = np.full(len(uids), UNLABELLED, np.int64)
    found[places >= 0] = labels[order[places[places >= 0]]]
    return found


def _some(uids: UidArray) -> str:
    shown = ", ".join(text.decode() for text in format_hex(uids[:_SHOWN].copy()))
    more = len(uids) - _SHOWN
    return f"uid {shown} is" if len(uids) == 1 else f"uids {shown}{f' and {more} more' if more > 0 else ''} are"
