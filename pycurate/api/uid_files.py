"""A subset as tasks in other processes take it: by the path of its file, memory-mapped where it is used."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from pycurate.io.subset import Subset, read_layout
from pycurate.types import UID_DTYPE, UidArray

_CHUNK_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class UidFile:
    """A sorted uid file: where it is, its rows with repeats, and a checksum of its uids."""

    path: Path
    rows: int
    checksum: str

    @classmethod
    def of(cls, subset: Subset | str | os.PathLike[str], spare: Path) -> UidFile:
        """The file of a subset; one that is only in memory is saved as ``spare``.

        Raises
        ------
        InputError
            It is no subset file, or not sorted.
        """
        if isinstance(subset, Subset):
            subset.save(spare)
            path = spare
        else:
            path = Path(subset).absolute()
        uids = Subset.load(path).uids
        checksum = xxhash.xxh3_128()
        for begin in range(0, len(uids), _CHUNK_ROWS):
            checksum.update(uids[begin : begin + _CHUNK_ROWS].tobytes())
        mapped_uids.cache_clear()  # of an earlier call, for which another file had this path
        return cls(path, len(uids), checksum.hexdigest())


@functools.lru_cache(maxsize=1)
def mapped_uids(path: Path) -> UidArray:
    """(n,) uids of a subset file whose order was checked before, memory-mapped; kept for the next task here."""
    layout = read_layout(path)
    if layout.rows == 0:
        return np.empty(0, UID_DTYPE)
    return np.memmap(path, UID_DTYPE, "r", layout.offset_bytes, (layout.rows,))
