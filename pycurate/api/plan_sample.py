"""A short measured sample of a scan, and the estimate of time that follows from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pycurate.api.plan_report import TimeEstimate
from pycurate.api.settings import PROCESS_START_SECONDS
from pycurate.engine import LocalEngine
from pycurate.errors import PoolError
from pycurate.pipeline.scan import Scanner, ScanTask

WARM_UP_ROWS = 1024
LEAST_SHARDS = 3
BLOCKS_PER_SHARD = 4
DECIDE_ROWS_PER_SECOND = 500_000
"""Rows a worker fits, decides, enters into the ledger and merges in a second: 0.4 to 0.9 million measured with three
recipes on 200,000 rows of a busy machine of two cores."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows that the recipe's steps scored in how many seconds of one worker; ``dtypes`` are of their columns.

    ``set_up_seconds`` is what the first block took: models are loaded, code is compiled, the first file is opened.
    """

    rows: int = 0
    seconds: float = 0.0
    set_up_seconds: float = 0.0
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    pair_bytes: int = 0  # of what steps exchange, for these rows


def sample_scan(scanner: Scanner, tasks: Sequence[ScanTask], workers: int, processes: bool, seconds: float) -> Sample:
    """Score the first rows of a few evenly spaced shards, for about ``seconds`` beside the set-up; write nothing.

    As many shards at a time as a run would score on threads, so that they share memory and disk as they will; one at a
    time where a run would use processes, which do not hold each other up.
    """
    if not tasks or seconds <= 0:
        return Sample()
    started = time.perf_counter()
    warm = _score(replace(scanner, block_rows=WARM_UP_ROWS), tasks[0], 0.0)
    set_up = time.perf_counter() - started
    together = 1 if processes else min(workers, len(tasks))
    chosen = min(len(tasks), max(together, LEAST_SHARDS))
    spaced = [tasks[i * len(tasks) // chosen] for i in range(chosen)]
    quota = seconds * together / chosen
    again = _score(replace(scanner, block_rows=WARM_UP_ROWS), tasks[0], 0.0)
    block_rows = int(quota / BLOCKS_PER_SHARD * again.rows / max(again.seconds, 1e-9))
    measured = replace(scanner, block_rows=max(WARM_UP_ROWS, min(scanner.block_rows, block_rows)))
    engine = LocalEngine(together, processes=False)
    parts = list(engine.ordered(lambda task: _score(measured, task, quota), spaced))
    dtypes = {name: dtype for part in (warm, *parts) for name, dtype in part.dtypes.items()}
    pair_bytes = sum(p.pair_bytes for p in parts)
    return Sample(sum(p.rows for p in parts), sum(p.seconds for p in parts), set_up, dtypes, pair_bytes)


def _score(scanner: Scanner, task: ScanTask, seconds: float) -> Sample:
    """The blocks of one shard from its beginning until ``seconds`` are over, one at least."""
    rows, dtypes, pair_bytes = 0, dict[str, np.dtype[Any]](), 0
    started = time.perf_counter()
    with closing(scanner.scored_blocks(task)) as blocks:
        for scored in blocks:
            rows += scored.block.rows
            dtypes |= {name: values.dtype for name, values in scored.scores.items()}
            pair_bytes += sum(values.nbytes for pairs in scored.pairs.values() for values in pairs)
            if time.perf_counter() - started >= seconds:
                break
    if not rows:
        raise PoolError("has no rows where the pool said it has; the file changed since", shard=task.shard)
    return Sample(rows, time.perf_counter() - started, 0.0, dtypes, pair_bytes)


def estimate_time(
    sample: Sample, rows: int, rows_left: int, workers: int, processes: bool, shards_left: int
) -> TimeEstimate:
    """Seconds of a run, were every worker and every shard like those of the sample."""
    rate = sample.rows / sample.seconds if sample.rows else None
    start = sample.set_up_seconds + (PROCESS_START_SECONDS if processes and shards_left > 1 else 0.0)
    scan = 0.0 if rate is None else start + rows_left / (rate * min(workers, shards_left))
    return TimeEstimate(
        scan_seconds=scan,
        decide_seconds=rows / (DECIDE_ROWS_PER_SECOND * workers),
        rows_per_second=rate,
        sampled_rows=sample.rows,
        sample_seconds=round(sample.seconds, 3),
    )
