"""A subset as tasks in other processes take it: by the path of its file, memory-mapped where it is used."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import xxhash

from pycurate.errors import InputError
from pycurate.io.subset import Subset
from pycurate.kernels.uid import first_unsorted
from pycurate.types import UidArray

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
        mapped_uids.cache_clear()  # the file may have been replaced since
        uids = mapped_uids(path)
        row = first_unsorted(uids)
        if row is not None:
            raise InputError(
                f"subset: {path} is not sorted: row {row} is less than the row before it; write it with Subset.save"
            )
        checksum = xxhash.xxh3_128()
        for begin in range(0, len(uids), _CHUNK_ROWS):
            checksum.update(uids[begin : begin + _CHUNK_ROWS].tobytes())
        return cls(path, len(uids), checksum.hexdigest())


@functools.lru_cache(maxsize=1)
def mapped_uids(path: Path) -> UidArray:
    """(n,) uids of a subset file, memory-mapped; kept for the next task of this process."""
    return Subset.load(path).uids
