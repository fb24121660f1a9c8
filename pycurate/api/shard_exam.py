"""One shard looked over in one read: its embeddings' norms and defects, its uids, its missing values, its tar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pycurate.errors import PoolError
from pycurate.io.images import TarCheck
from pycurate.io.pool import Pool, Shard
from pycurate.io.uids import UID_COLUMN, column_uids
from pycurate.kernels.uid import sort_uids
from pycurate.ops import preflight
from pycurate.pipeline.external_sort import write_run
from pycurate.types import UID_DTYPE, Block, UidArray

SHOWN_PLACES = 5

DEFECT_CHECKS = {
    preflight.NAN: "embedding_nan",
    preflight.INFINITE: "embedding_infinite",
    preflight.OVERFLOW: "embedding_overflow",
    preflight.ZERO: "embedding_zero",
}
UNNORMALISED = "embedding_unnormalised"
MALFORMED = "uid_malformed"
MISSING = "value_missing"

_HEX_UID = "^[0-9a-fA-F]{32}$"


@dataclass(frozen=True, slots=True)
class Hits:
    """How many rows of a shard something was found in, and the first of them."""

    count: int = 0
    first: tuple[int, ...] = ()

    def add(self, rows: NDArray[np.intp], start: int = 0) -> Hits:
        """With ``rows`` (rising) of a block that begins at ``start``, behind those known."""
        room = SHOWN_PLACES - len(self.first)
        return Hits(self.count + len(rows), self.first + tuple((rows[:room] + start).tolist()))


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What one shard holds; ``hits`` is by (check, embedding or column)."""

    shard: str
    rows: int = 0
    read_bytes: int = 0
    norms: Mapping[str, preflight.NormSummary] = field(default_factory=dict)
    hits: Mapping[tuple[str, str], Hits] = field(default_factory=dict)
    run_rows: int = 0
    tar: TarCheck | None = None
    problem: PoolError | None = None


@dataclass(frozen=True, slots=True)
class Exam:
    """What is looked at in every shard.

    Attributes
    ----------
    columns
        Columns in which missing values are counted.
    threads
        Threads that work on one shard, beside those that work on others.
    runs
        Folder for the sorted uids of each shard; None: they are not kept.
    stop
        Asked between blocks; True ends the exam.
    """

    pool: Pool
    embeddings: tuple[str, ...]
    columns: tuple[str, ...]
    block_rows: int
    threads: int
    runs: Path | None
    stop: Callable[[], bool]

    def run_path(self, shard: str) -> Path:
        """Where the sorted uids of a shard are."""
        assert self.runs is not None
        return self.runs / f"{shard}.npy"

    def examine(self, shard: Shard) -> ShardFacts:
        """Look at one shard; what makes it unreadable is told, not raised, so that the others are looked at too.

        Nothing else is told of such a shard: what was read before the damage depends on where the blocks are cut.
        """
        try:
            return self._examine(shard)
        except PoolError as error:
            return ShardFacts(shard.name, problem=error)

    def _examine(self, shard: Shard) -> ShardFacts:
        norms = {name: np.empty(shard.rows, np.float32) for name in self.embeddings}
        defects = {name: np.empty(shard.rows, np.uint8) for name in self.embeddings}
        uids = np.empty(shard.rows if self.runs is not None else 0, UID_DTYPE)
        hits: dict[tuple[str, str], Hits] = {}
        known = 0
        for block in self.blocks(shard, self.columns, self.embeddings):
            if self.stop():
                raise KeyboardInterrupt
            part = slice(block.start, block.start + block.rows)
            for name, values in block.embeddings.items():
                dtype = self.pool.embeddings[name].dtype
                norms[name][part], defects[name][part] = preflight.embedding_defects(values, dtype, self.threads)
            for name in self.columns:
                _count(hits, MISSING, name, _missing(block.columns[name]), block.start)
            found, rows = self.uids(block)
            malformed = np.ones(block.rows, np.bool_)
            malformed[rows] = False
            _count(hits, MALFORMED, UID_COLUMN, malformed, block.start)
            if self.runs is not None:
                uids[known : known + len(found)] = found
                known += len(found)
        for name in self.embeddings:
            for defect, check in DEFECT_CHECKS.items():
                _count(hits, check, name, defects[name] == defect)
            _count(hits, UNNORMALISED, name, preflight.unnormalised(norms[name], defects[name]))
        if self.runs is not None:
            self._write_run(shard.name, uids[:known])
        return ShardFacts(
            shard=shard.name,
            rows=shard.rows,
            read_bytes=shard.bytes_to_read(self.columns, self.embeddings, uids=self._reads_uids),
            norms={name: preflight.norm_summary(norms[name], defects[name]) for name in self.embeddings},
            hits=hits,
            run_rows=known,
            tar=shard.check_tar(),
        )

    @property
    def _reads_uids(self) -> bool:
        return self.pool.uid_source == "column" or self.runs is not None

    def blocks(self, shard: Shard, columns: tuple[str, ...] = (), embeddings: tuple[str, ...] = ()) -> Any:
        """Blocks with whatever ``uids`` needs of them; a column uid comes as text, since it may be malformed."""
        text = (UID_COLUMN,) if self.pool.uid_source == "column" and UID_COLUMN not in columns else ()
        made = self.pool.uid_source == "path" and self.runs is not None
        return shard.blocks((*columns, *text), embeddings, uids=made, block_rows=self.block_rows)

    def uids(self, block: Block) -> tuple[UidArray, NDArray[np.intp]]:
        """The well-formed uids of a block and their rows in it."""
        if self.pool.uid_source == "path":
            uids = np.empty(0, UID_DTYPE) if block.uids is None else block.uids
            return uids, np.arange(block.rows)
        text = block.columns[UID_COLUMN]
        try:
            return column_uids(text, block.shard, block.start), np.arange(block.rows)
        except PoolError:
            valid = pc.fill_null(pc.match_substring_regex(text.cast(pa.large_string()), _HEX_UID), False)
            return column_uids(text.filter(valid), block.shard, block.start), np.flatnonzero(np.asarray(valid))

    def _write_run(self, shard: str, uids: UidArray) -> None:
        path = self.run_path(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        sort_uids(uids, threads=self.threads)
        write_run(path, uids)


def _count(
    hits: dict[tuple[str, str], Hits], check: str, subject: str, mask: NDArray[np.bool_], start: int = 0
) -> None:
    rows = np.flatnonzero(mask)
    if len(rows):
        hits[check, subject] = hits.get((check, subject), Hits()).add(rows, start)


def _missing(values: pa.Array) -> NDArray[np.bool_]:
    if not values.null_count and not pa.types.is_floating(values.type):
        return np.zeros(len(values), np.bool_)
    return np.asarray(pc.is_null(values, nan_is_null=True))
