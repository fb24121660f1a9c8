"""The scan: every score column that a recipe needs and the workspace lacks, in one streamed read of each shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pycurate.arrow import numpy_floats
from pycurate.errors import InputError, PoolError
from pycurate.io.pool import Pool, Shard
from pycurate.pipeline.exchange import sorted_pairs
from pycurate.pipeline.step import Needs, Pairs, Step
from pycurate.pipeline.workspace import Workspace, digest
from pycurate.types import Block, ScoreArray

UID_COLUMN = "uid"


class Uids(Step):
    """The uids of a shard, 16 bytes a row: what every ledger, tie and subset is keyed by."""

    kind: ClassVar[str] = "uid"
    name: str = "uid"

    def score_needs(self) -> Needs:
        return Needs(uids=True)

    def produces(self) -> tuple[str, ...]:
        return (UID_COLUMN,)

    def score(self, block: Block) -> dict[str, ScoreArray]:
        assert block.uids is not None
        return {UID_COLUMN: block.uids}


class StoredColumn(Step):
    """A numeric column of the pool, copied into the workspace so that deciding reads no pool file. Null becomes NaN."""

    kind: ClassVar[str] = "column"
    column: str

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.column,)

    def score_parameters(self) -> dict[str, Any]:
        return {"column": self.column}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        return {self.column: numeric_column(block, self.column)}


def numeric_column(block: Block, column: str) -> ScoreArray:
    """A stored column as float32 (float16 and float32 columns) or float64 (the rest), null as NaN."""
    values = block.columns[column]
    kind = values.type
    if pa.types.is_null(kind) or pa.types.is_float16(kind) or pa.types.is_float32(kind):
        return numpy_floats(values, np.float32)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return numpy_floats(values, np.float64)
    raise InputError(f"column {column!r}: expected numbers, got {kind}; name a numeric column")


@dataclass(frozen=True, slots=True)
class ColumnSet:
    """The score columns of one step, and the workspace folder that holds them."""

    step: Step
    folder: str
    columns: tuple[str, ...]
    needs: Needs

    def key(self, fingerprint: str, images: str) -> str:
        """What a finished (step, shard) is valid for; ``images`` is the fingerprint of those that lie outside of it."""
        return digest(self.folder, fingerprint, *([images] if images and self.needs.images else []))


def column_sets(steps: Sequence[Step]) -> list[ColumnSet]:
    """Column sets in the order they are computed: uids, stored columns that decisions read, then each scoring step."""
    sets: dict[str, ColumnSet] = {}
    folders: dict[str, str] = {}  # score column -> folder it lives in

    def add(step: Step) -> None:
        needs = step.score_needs()
        upstream = [folders[name] for name in needs.scores]
        key = digest(step.kind, step.version, step.score_parameters(), step.produces(), upstream)
        column_set = ColumnSet(step, f"{step.kind}-{key}", step.produces(), needs)
        sets.setdefault(column_set.folder, column_set)
        folders.update(dict.fromkeys(column_set.columns, column_set.folder))

    add(Uids())
    for step in steps:
        for column in (*step.score_needs().scores, *step.decide_needs().columns):
            if column not in folders:
                add(StoredColumn(name=f"column.{column}", column=column))
        if step.produces():
            add(step)
    return list(sets.values())


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One shard and the folders it lacks; small, so that it travels to a worker process cheaply."""

    shard: str
    fingerprint: str
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What one finished task read and wrote."""

    shard: str
    rows: int
    read_bytes: int
    written_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """What a task makes of one block: score columns by name, segments of pairs by the folder of their step."""

    block: Block
    scores: Mapping[str, ScoreArray]
    pairs: Mapping[str, Pairs]


@dataclass(frozen=True, slots=True)
class Scanner:
    """Scores shards into a workspace; holds nothing that changes, so threads and processes may share it."""

    pool: Pool
    workspace: Workspace
    sets: tuple[ColumnSet, ...]
    block_rows: int
    stop: Callable[[], bool] | None = None  # asked between blocks; None in a worker process, which is ended instead
    device: str | None = None  # where steps score that have kernels for a GPU; changes no key

    def missing(self, shard: Shard, fingerprint: str) -> ScanTask | None:
        """The task that completes a shard; None when the workspace has all of it."""
        folders = tuple(s.folder for s in self.sets if not self._has(s, shard.name, self.key(s, fingerprint)))
        return ScanTask(shard.name, fingerprint, folders) if folders else None

    def key(self, column_set: ColumnSet, fingerprint: str) -> str:
        """What the columns of a shard with this fingerprint are valid for."""
        return column_set.key(fingerprint, self.pool.images_fingerprint)

    def _has(self, column_set: ColumnSet, shard: str, key: str) -> bool:
        has_pairs = not column_set.step.exchanges or self.workspace.has_pairs(column_set.folder, shard, key)
        return has_pairs and self.workspace.has_columns(column_set.folder, shard, key)

    def read_needs(self, folders: Sequence[str]) -> Needs:
        """Everything of the pool that computing ``folders`` reads."""
        needs = [s.needs for s in self.sets if s.folder in folders]
        return Needs(
            columns=tuple(sorted({name for n in needs for name in n.columns})),
            embeddings=tuple(sorted({name for n in needs for name in n.embeddings})),
            uids=any(n.uids for n in needs),
            images=any(n.images for n in needs),
        )

    def scored_blocks(self, task: ScanTask) -> Generator[ScoredBlock, None, None]:
        """Each block of a shard with what ``task`` names, in one read; writes nothing."""
        missing = self.missing_sets(task)
        needs = self.read_needs(task.folders)
        stored = self._stored_scores(task, missing)
        blocks = self.pool.shard(task.shard).blocks(
            needs.columns, needs.embeddings, uids=needs.uids, images=needs.images, block_rows=self.block_rows
        )
        for block in blocks:
            if self.stop is not None and self.stop():
                raise KeyboardInterrupt
            scores = {name: values[block.start : block.start + block.rows] for name, values in stored.items()}
            made: dict[str, ScoreArray] = {}
            pairs: dict[str, Pairs] = {}
            for column_set in missing:
                known = replace(block, scores=scores | made)
                made |= self._score(column_set, known)
                if column_set.step.exchanges:
                    pairs[column_set.folder] = sorted_pairs(column_set.step.exchange(known), block.start)
            yield ScoredBlock(block, made, pairs)

    def missing_sets(self, task: ScanTask) -> list[ColumnSet]:
        """The column sets that ``task`` names, in the order they are computed."""
        return [s for s in self.sets if s.folder in task.folders]

    def missing_of(self, tasks: Sequence[ScanTask]) -> list[ColumnSet]:
        """Those that any of the tasks names."""
        return [s for s in self.sets if any(s.folder in task.folders for task in tasks)]

    def run(self, task: ScanTask) -> ScanResult:
        """Compute and write what ``task`` names, in one read of the shard."""
        started = time.perf_counter()
        shard = self.pool.shard(task.shard)
        missing = self.missing_sets(task)
        needs = self.read_needs(task.folders)
        if shard.rows == 0:
            return ScanResult(shard.name, 0, 0, 0, time.perf_counter() - started)
        outputs: dict[str, ScoreArray] = {}
        done = 0
        with ExitStack() as stack:
            writers = {
                s.folder: stack.enter_context(
                    self.workspace.pairs_writer(s.folder, shard.name, self.key(s, task.fingerprint))
                )
                for s in missing
                if s.step.exchanges
            }
            for scored in self.scored_blocks(task):
                block = scored.block
                for name, values in scored.scores.items():
                    if name not in outputs:
                        outputs[name] = np.empty(shard.rows, values.dtype)
                    outputs[name][block.start : block.start + block.rows] = _fits(values, outputs[name].dtype, name)
                for folder, pairs in scored.pairs.items():
                    writers[folder](pairs)
                done += block.rows
            if done != shard.rows:
                raise PoolError(
                    f"expected {shard.rows:,} rows, read {done:,}; the file changed while it was read", shard=shard.name
                )
        written = sum(
            self.workspace.write_columns(
                s.folder, shard.name, self.key(s, task.fingerprint), {name: outputs[name] for name in s.columns}
            )
            for s in missing
        )
        read = shard.bytes_to_read(needs.columns, needs.embeddings) + shard.image_bytes_to_read(
            needs.columns, needs.images
        )
        return ScanResult(shard.name, shard.rows, read, written, time.perf_counter() - started)

    def _stored_scores(self, task: ScanTask, missing: Sequence[ColumnSet]) -> dict[str, ScoreArray]:
        wanted = {name for s in missing for name in s.needs.scores}
        stored: dict[str, ScoreArray] = {}
        for column_set in self.sets:
            if column_set not in missing and wanted & set(column_set.columns):
                stored |= self.workspace.read_columns(column_set.folder, task.shard)
        return stored

    def _score(self, column_set: ColumnSet, block: Block) -> Mapping[str, ScoreArray]:
        made = column_set.step.score_on(block, self.device)
        if set(made) != set(column_set.columns):
            expected = sorted(column_set.columns)
            raise InputError(f"step {column_set.step.name!r}: expected score columns {expected}, got {sorted(made)}")
        for name, values in made.items():
            if values.shape != (block.rows,):
                raise InputError(
                    f"step {column_set.step.name!r}, column {name!r}: expected shape ({block.rows},), one value a row, "
                    f"got {values.shape} (shard {block.shard}, from row {block.start})"
                )
        return made


def scan_shard(scanner: Scanner, task: ScanTask) -> ScanResult:
    """One task of the scan, as a function of this module: a worker process imports no more than this layer."""
    return scanner.run(task)


def _fits(values: ScoreArray, dtype: np.dtype[Any], name: str) -> ScoreArray:
    if values.dtype != dtype:
        raise InputError(f"score column {name!r}: expected one dtype for all blocks, got {values.dtype} after {dtype}")
    return values
