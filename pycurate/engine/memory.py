"""Memory as a contract: the default cap, what a run needs of it, and a meter of what it used."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pycurate.errors import MemoryCapError

BASE_BYTES = 160 << 20
"""The main process with NumPy, pyarrow and DuckDB loaded and their allocators warm: 120 to 150 MB measured."""
WORKER_BASE_BYTES = 96 << 20
"""A worker process likewise: 60 to 90 MB measured."""
SHARD_ROW_BYTES = 96
"""Per row of the shard in work, beside its score columns: uids, decisions and ledger buffers."""
MAX_BLOCK_ROWS = 1 << 16
MIN_BLOCK_ROWS = 1 << 10


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a cap is divided."""

    cap_bytes: int
    processes: int
    workers: int
    block_rows: int
    worker_bytes: int  # what one worker may use beyond its process's base


def default_memory_bytes() -> int:
    """Half of the cgroup's limit, or of the machine's memory where there is none."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits) // 2


def plan_memory(
    cap_bytes: int, *, workers: int, processes: bool, row_bytes: int, shard_rows: int, score_row_bytes: int
) -> MemoryPlan:
    """Rows per block such that every worker's buffers fit its share of the cap.

    Parameters
    ----------
    row_bytes
        Bytes of one row as it is read: embeddings and columns. Two blocks are in flight in a worker (one read ahead),
        and a step may hold a widened copy of one.
    shard_rows
        Rows of the largest shard; a worker holds the score columns of the shard it works on.
    """
    base = BASE_BYTES + (workers * WORKER_BASE_BYTES if processes else 0)
    held = shard_rows * (SHARD_ROW_BYTES + score_row_bytes)
    per_block_row = 4 * row_bytes + 64
    least = base + workers * (held + MIN_BLOCK_ROWS * per_block_row)
    if cap_bytes < least:
        plural = "s" if workers > 1 else ""
        raise MemoryCapError(
            f"memory: {_mib(cap_bytes)} is not enough for {workers} worker{plural} on shards of {shard_rows:,} rows; "
            f"give at least {_mib(least)}, or use fewer workers"
        )
    worker_bytes = (cap_bytes - base) // workers
    block_rows = min(MAX_BLOCK_ROWS, (worker_bytes - held) // per_block_row)
    block_rows = max(MIN_BLOCK_ROWS, block_rows // MIN_BLOCK_ROWS * MIN_BLOCK_ROWS)
    return MemoryPlan(cap_bytes, workers if processes else 0, workers, block_rows, worker_bytes)


def _mib(count: int) -> str:
    return f"{-(-count // (1 << 20)):,} MiB"


class MemoryMeter:
    """Peak of the summed proportional set size of this process and its descendants, less clean file pages.

    Sampled every ``interval_seconds`` on a thread; use as a context manager.
    """

    def __init__(self, interval_seconds: float = 0.2) -> None:
        self.peak_bytes = 0
        self._interval = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-meter", daemon=True)

    def __enter__(self) -> Self:
        self.peak_bytes = resident_bytes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        """Look once, now."""
        self.peak_bytes = max(self.peak_bytes, resident_bytes())

    def _sample(self) -> None:
        while not self._over.wait(self._interval):
            self.sample()


def resident_bytes(pid: int | None = None) -> int:
    """Present proportional set size of a process tree (default: this one) less clean file pages; 0 where unknown."""
    return sum(_process_bytes(p) for p in _descendants(os.getpid() if pid is None else pid))


def _process_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
    except (OSError, ValueError, IndexError):
        return 0
    # Pss_Dirty (Linux 6.0) counts what cannot be dropped; older kernels tell anonymous and shared memory.
    return fields.get("Pss_Dirty", fields.get("Pss_Anon", 0) + fields.get("Pss_Shmem", 0))


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
        except OSError:
            continue
    return found
