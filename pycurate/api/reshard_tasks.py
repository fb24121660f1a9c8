"""The tasks of `pycurate.api.reshard`: index one tar, write one tar, and the plan that stands between the two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycurate.api.uid_files import UidFile, mapped_uids
from pycurate.errors import PoolError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.fingerprint import fingerprint_files
from pycurate.io.reshard import TarIndex, TarUidSource, TarWriter, index_tar, nearby
from pycurate.io.store import Store
from pycurate.kernels.uid import format_hex
from pycurate.pipeline.workspace import digest, remove_marker, write_marker
from pycurate.types import UidArray

WORK = ".work"

_FORMAT = 1  # bumped when the same input gives other bytes
_SHOWN = 5
_SCAN_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class ReshardJob:
    """What every task shares; sent once to each worker process."""

    store: Store
    out: Path
    subset: UidFile
    uid_source: TarUidSource
    samples_per_shard: int
    first_of_repeated: bool
    key: str = ""  # of the whole output

    @property
    def index_key(self) -> str:
        return digest(_FORMAT, self.subset.checksum, self.uid_source)

    def index_path(self, tar: str) -> Path:
        return self.out / WORK / "index" / f"{tar}.npz"

    def repeats_path(self, tar: str) -> Path:
        return self.out / WORK / "repeats" / f"{tar}.npy"

    def load(self, tar: str) -> TarIndex:
        return TarIndex.load(self.index_path(tar))

    def tar_path(self, number: int) -> Path:
        return self.out / f"{number:08d}.tar"

    def stats_path(self, number: int) -> Path:
        return self.out / f"{number:08d}_stats.json"

    def marker_path(self, number: int) -> Path:
        return self.out / WORK / "done" / f"{number:08d}.json"

    def is_done(self, number: int) -> bool:
        try:
            marker = json.loads(self.marker_path(number).read_text())
            whole = self.tar_path(number).stat().st_size == marker["bytes"] and self.stats_path(number).exists()
            return bool(whole and marker["key"] == self.key)
        except (OSError, ValueError, KeyError, TypeError):
            return False


@dataclass(frozen=True, slots=True)
class TarPiece:
    """Copies ``begin`` to ``end - 1`` of one tar, counted over its wanted samples."""

    tar: str
    fingerprint: str
    begin: int
    end: int
    has_repeats: bool


@dataclass(frozen=True, slots=True)
class TarOutput:
    """One tar to write, and what goes into it."""

    number: int
    pieces: tuple[TarPiece, ...]

    @property
    def samples(self) -> int:
        return sum(piece.end - piece.begin for piece in self.pieces)


def index_task(job: ReshardJob, task: tuple[str, str]) -> tuple[int, int]:
    """Index one tar; its samples and bytes."""
    tar, fingerprint = task
    with nearby(job.store, tar, job.out / WORK / "fetched" / f"index-{digest(tar)}") as store:
        index = index_tar(store, tar, mapped_uids(job.subset.path), job.uid_source)
    path = job.index_path(tar)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_marker(path)
    with atomic_write(path) as file:
        index.save(file)
    write_marker(path, digest(job.index_key, fingerprint))
    return index.samples, job.store.info(tar).size


def write_task(job: ReshardJob, task: TarOutput) -> tuple[int, int]:
    """Write one tar; its samples and bytes."""
    path, marker = job.tar_path(task.number), job.marker_path(task.number)
    marker.unlink(missing_ok=True)  # a kill from here on must not leave this tar under another subset's marker
    with atomic_write(path) as file:
        writer = TarWriter(file)
        for piece in task.pieces:
            index = job.load(piece.tar)
            if piece.has_repeats:
                index = replace(index, copies=np.where(np.load(job.repeats_path(piece.tar)), 0, index.copies))
            scratch = job.out / WORK / "fetched" / f"write-{task.number}"
            with nearby(job.store, piece.tar, scratch) as store, store.reader(piece.tar) as reader:
                writer.copy(reader, piece.tar, index, piece.begin, piece.end)
            if fingerprint_files(job.store, [piece.tar]) != piece.fingerprint:
                raise PoolError(
                    f"{piece.tar}: changed while it was being read; run again when nobody writes to the pool"
                )
        writer.close()
    write_json_atomic(job.stats_path(task.number), {"successes": task.samples})
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(marker, {"key": job.key, "bytes": writer.bytes, "samples": task.samples})
    return task.samples, writer.bytes


def plan_outputs(
    tars: Sequence[str], fingerprints: Sequence[str], bounds: NDArray[np.int64], repeats: set[str], step: int
) -> Iterator[TarOutput]:
    """Cut the copies of all tars, in order, into tars of ``step``; ``bounds``: copies before each tar, (tars + 1,)."""
    total = int(bounds[-1])
    for number, begin in enumerate(range(0, total, step)):
        end = min(begin + step, total)
        first = int(np.searchsorted(bounds, begin, side="right")) - 1
        last = int(np.searchsorted(bounds, end, side="left"))
        pieces = (
            TarPiece(
                tars[i],
                fingerprints[i],
                max(begin, int(bounds[i])) - int(bounds[i]),
                min(end, int(bounds[i + 1])) - int(bounds[i]),
                tars[i] in repeats,
            )
            for i in range(first, last)
        )
        yield TarOutput(number, tuple(piece for piece in pieces if piece.begin < piece.end))


def mark_found(found: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Set the bits of the positions; True where one was set already, earlier or by an earlier one of these."""
    distinct, first = np.unique(positions, return_index=True)
    places, bits = distinct >> 3, np.left_shift(np.uint8(1), (distinct & 7).astype(np.uint8))
    again = np.ones(len(positions), np.bool_)
    again[first] = (found[places] & bits) != 0
    np.bitwise_or.at(found, places, bits)
    return again


def missing_uids(subset: UidArray, found: NDArray[np.uint8]) -> tuple[int, list[str]]:
    """How many different uids of the subset have no bit at their first row, and the first few of them."""
    words = subset.view(np.uint64).reshape(-1, 2)
    count = 0
    shown: list[str] = []
    for begin in range(0, len(words), _SCAN_ROWS):
        part = words[begin : begin + _SCAN_ROWS]
        absent = np.unpackbits(found[begin // 8 : begin // 8 + len(part) // 8 + 1], bitorder="little")[: len(part)] == 0
        absent[1:] &= (part[1:] != part[:-1]).any(axis=1)
        absent[0] &= begin == 0 or bool((part[0] != words[begin - 1]).any())
        count += int(absent.sum())
        rows = begin + np.flatnonzero(absent)[: _SHOWN - len(shown)]
        shown += [uid.decode() for uid in format_hex(subset[rows])]
    return count, shown
