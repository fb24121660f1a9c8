"""``plan_dedup``: what a search for duplicates takes, said before it is begun."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.api.dedup_rows import RowInput, Rows
from pycurate.api.dedup_run import HELD_ROW_BYTES
from pycurate.api.dedup_settings import Mode, Settings
from pycurate.engine import default_memory_bytes
from pycurate.engine.memory import BASE_BYTES
from pycurate.kernels.fused_similarity import count_above
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join.blocks import plan_blocks
from pycurate.report.formats import format_bytes, format_seconds
from pycurate.steps.duplicate_search import NPROBE

SAMPLE_ROWS = 8192
_PIECES = 8  # of the sample, spread over the rows
_STORED_ROW_BYTES = {"published": 12, "component": 20, "greedy": 8}
_PAIR_BYTES, _FOUND_PAIR_BYTES = 20, 40


@dataclass(frozen=True, slots=True)
class DedupPlan:
    """What a run takes. Rows with the same bits are compared once, so all of these are upper bounds.

    Attributes
    ----------
    similarities
        Pairs of rows to compare, and in clustered and index mode rows with centroids.
    products
        Multiplications of two elements that this would be without any bound; most are never done.
    read_bytes
        Of embeddings, over the whole search.
    disk_bytes
        At the most, in the output folder.
    memory_bytes
        The cap; ``block_rows`` of two blocks fit under it.
    seconds
        By the time that ``sampled_rows`` rows of the pool took; longer rows of similarities are screened better.
    """

    rows: int
    dimension: int
    element: str
    mode: Mode
    removal: Removal
    threshold: float
    floor: float
    similarities: int
    products: int
    read_bytes: int
    disk_bytes: int
    memory_bytes: int
    block_rows: int
    seconds: float
    sampled_rows: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def render(self) -> str:
        """For people."""
        return "\n".join(
            [
                f"rows     {self.rows:,} of {self.dimension} elements of {self.element}",
                f"search   {self.mode} mode, {self.removal} removal at cosine {self.threshold:g}, floor {self.floor:g}",
                f"compares {self.similarities:,} similarities, {self.products:.3g} products where no bound saves any",
                f"reads    {format_bytes(self.read_bytes)} of embeddings, in blocks of {self.block_rows:,} rows",
                f"memory   at most {format_bytes(self.memory_bytes)}",
                f"disk     at most {format_bytes(self.disk_bytes)}",
                f"time     about {format_seconds(self.seconds)} of comparing, by {self.sampled_rows:,} sampled rows",
            ]
        )


def plan_dedup(
    rows: Rows,
    *,
    embedding: str | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    **settings: Any,
) -> DedupPlan:
    """Check the arguments of `pycurate.dedup` and say what it would take; writes nothing, reads 8,192 rows.

    Parameters
    ----------
    rows, embedding, memory_bytes, threads
        As in `pycurate.dedup`.
    settings
        ``mode``, ``removal``, ``eps``, ``threshold``, ``floor``, ``strict``, ``priority``, ``clustering``,
        ``min_recall`` and ``max_pairs``, as there.

    Raises
    ------
    InputError, MemoryCapError, PoolError
        As `pycurate.dedup`.
    """
    asked = Settings(**settings)
    given = RowInput(rows, embedding)
    given.check_priority(asked.priority)
    n, d = given.rows, given.dimension
    cap = default_memory_bytes() if memory_bytes is None else memory_bytes
    row_bytes = d * np.dtype("uint16" if given.element == "bfloat16" else given.element).itemsize
    block_rows = plan_blocks(cap - BASE_BYTES - HELD_ROW_BYTES * n, n, d, row_bytes, 64).block_rows
    sampled, seconds_each = _measured(given, asked.default_floor, threads)
    similarities = n * (n - 1) // 2
    blocks = -(-n // block_rows)
    read_bytes = n * row_bytes * (1 + (blocks + 1) // 2)
    disk_bytes = given.copied_bytes + n * (24 + 2 * _STORED_ROW_BYTES[asked.removal])
    if asked.removal != "published":
        disk_bytes += min(asked.max_pairs, similarities) * (_PAIR_BYTES + _FOUND_PAIR_BYTES)
    if asked.mode == "clustered":
        asked.clusters.require_rows(n)
        clusters = asked.clusters.clusters_of(n)
        probes = clusters - 1 if asked.clusters.probes == "exact" else asked.clusters.probes
        similarities = min(similarities, n * clusters + n * n // (2 * clusters) * (1 + 2 * probes))
        read_bytes, disk_bytes = n * row_bytes * (4 + probes), disk_bytes + n * row_bytes
    elif asked.mode == "index":
        groups = max(1, math.isqrt(n))
        similarities = min(similarities, n * (groups + NPROBE * n // groups))
    return DedupPlan(
        n, d, given.element, asked.mode, asked.removal, asked.limit, asked.default_floor, similarities,
        similarities * d, read_bytes, disk_bytes, cap, block_rows, similarities * seconds_each, sampled,
    )  # fmt: skip


def _measured(given: RowInput, floor: float, threads: int | None) -> tuple[int, float]:
    """Sampled rows, and the seconds of one of their similarities."""
    pieces = list(_pieces(given))
    sample = np.concatenate(pieces) if pieces else np.empty((0, given.dimension), np.float32)
    if len(sample) < 2:
        return len(sample), 0.0
    dtype = given.element == "bfloat16"
    started = time.perf_counter()
    count_above(sample, floor, threads=threads, dtype="bfloat16" if dtype else None)
    return len(sample), (time.perf_counter() - started) / (len(sample) * (len(sample) - 1) / 2)


def _pieces(given: RowInput) -> Iterator[NDArray[Any]]:
    """The sample: the first rows of a few shards, or of equal parts of an array."""
    each = SAMPLE_ROWS // _PIECES
    if given.pool is None:
        array = given.array
        step = max(each, -(-len(array) // _PIECES))
        yield from (np.array(array[begin : begin + each]) for begin in range(0, len(array), step))
        return
    shards = given.pool.shards
    chosen = [shards[i * len(shards) // _PIECES] for i in range(_PIECES)] if len(shards) > _PIECES else shards
    wanted = SAMPLE_ROWS // len(chosen)
    for shard in chosen:
        for block in shard.blocks((), (given.embedding,), uids=False, block_rows=wanted):
            yield block.embeddings[given.embedding][:wanted].copy()
            break
