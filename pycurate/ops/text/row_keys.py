"""128-bit keys of column values, equal for equal values: what frequencies are counted by."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128_digest

from pycurate.arrow import arrow_texts
from pycurate.types import UID_DTYPE, UidArray

NO_KEY = (0, 0)
"""The key of a missing value; a value with this key has probability 2**-128."""


def normalise_caption(caption: str) -> str:
    """NFKC, case folded, runs of whitespace made one space, ends stripped: captions that read alike become equal."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().split())


def row_keys(values: pa.Array, normalise: bool = False) -> UidArray:
    """xxh3_128 of each value's bytes, as (n,) ``UID_DTYPE``; ``NO_KEY`` where the value is null.

    Parameters
    ----------
    values : (n,) Arrow array
        Text or binary; other types are compared by their text form, such as ``"200"``.
    normalise
        Hash ``normalise_caption`` of the text instead of the text itself.
    """
    kind = values.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)):
        values = values.cast(pa.large_string())
        if normalise:
            values = arrow_texts([None if v is None else normalise_caption(v) for v in values.to_pylist()])
        values = values.cast(pa.large_binary())
    missing = bytes(16)
    digests = b"".join([missing if value is None else xxh3_128_digest(value) for value in values.to_pylist()])
    keys: UidArray = np.frombuffer(digests, ">u8").astype(np.uint64).view(UID_DTYPE)
    return keys
