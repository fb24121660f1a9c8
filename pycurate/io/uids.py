"""A uid for every row: the pool's own hex column, or a hash of where the row stands."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import xxhash

from pycurate.errors import InputError, PoolError
from pycurate.kernels.uid import parse_hex_offsets
from pycurate.types import UID_DTYPE, UidArray

UID_COLUMN = "uid"

_HEX_UID = "^[0-9a-fA-F]{32}$"


def is_text(kind: pa.DataType) -> bool:
    """True for the Arrow types that a uid column may have; a shard without rows may have the null type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return True
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def column_uids(values: pa.Array, shard: str, first_row: int) -> UidArray:
    """128-bit uids of a block of hex strings, parsed in the Arrow buffers without a copy.

    Parameters
    ----------
    values
        (n,) string or large_string (other text types are cast).
    shard, first_row
        Where the block stands, for the error.

    Raises
    ------
    PoolError
        A uid is null or not 32 hex digits; names shard and row.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        values = values.cast(pa.large_string())
    if values.null_count:
        row = int(np.argmax(np.asarray(values.is_null())))
        raise PoolError("uid is null; expected 32 hex digits", shard=shard, row=first_row + row)
    if not len(values):
        return np.empty(0, UID_DTYPE)
    _, offset_buffer, data_buffer = values.buffers()
    dtype = np.int64 if pa.types.is_large_string(values.type) else np.int32
    offsets = np.frombuffer(offset_buffer, dtype)[values.offset : values.offset + len(values) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    try:
        return parse_hex_offsets(data, offsets)
    except InputError as error:
        import pyarrow.compute as pc  # here: 40 ms that a run without this error need not spend

        valid = np.asarray(pc.match_substring_regex(values, _HEX_UID))
        row = int(np.argmin(valid))
        shown = values[row].as_py()[:48]
        raise PoolError(
            f"uid {shown!r} is not 32 hex digits; open the pool with uid_source='path' to have uids made from the "
            "rows' places",
            shard=shard,
            row=first_row + row,
        ) from error


def path_uids(stem: str, keys: Iterable[object]) -> UidArray:
    """xxh3_128 of stem + NUL + key, one uid per key (a string, or the row number in the file).

    The hex digest orders as the uid does: the first 8 bytes, big-endian, are the first field.
    """
    prefix = stem + "\0"
    digest = xxhash.xxh3_128_digest
    digests = [digest(f"{prefix}{key}".encode()) for key in keys]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).view(UID_DTYPE)
