from __future__ import annotations

import numpy as np
import pytest

from pycurate.engine import MemoryMeter, default_memory_bytes, plan_memory
from pycurate.engine.memory import BASE_BYTES, MAX_BLOCK_ROWS, MIN_BLOCK_ROWS, WORKER_BASE_BYTES
from pycurate.errors import MemoryCapError


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("row_bytes", [16, 1_024, 40_000])
def test_a_plan_stays_within_its_cap(workers: int, processes: bool, row_bytes: int) -> None:
    cap = 4 << 30
    plan = plan_memory(
        cap, workers=workers, processes=processes, row_bytes=row_bytes, shard_rows=490_000, score_row_bytes=24
    )
    base = BASE_BYTES + workers * WORKER_BASE_BYTES * processes
    used = base + workers * (490_000 * (96 + 24) + plan.block_rows * (4 * row_bytes + 64))
    assert used <= cap
    assert MIN_BLOCK_ROWS <= plan.block_rows <= MAX_BLOCK_ROWS


def test_a_cap_that_is_too_small_says_what_is_enough() -> None:
    arguments = {"workers": 2, "processes": True, "row_bytes": 2_048, "shard_rows": 490_000, "score_row_bytes": 24}
    with pytest.raises(MemoryCapError, match=r"memory: 300 MiB is not enough for 2 workers .* give at least") as error:
        plan_memory(300 << 20, **arguments)
    enough = int(str(error.value).split("at least ")[1].split(" MiB")[0].replace(",", "")) << 20
    plan_memory(enough, **arguments)


def test_the_default_cap_is_at_most_half_of_the_machine() -> None:
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) << 10
    assert 0 < default_memory_bytes() <= total // 2


def test_the_meter_sees_memory_that_is_written() -> None:
    with MemoryMeter(interval_seconds=0.01) as meter:
        before = meter.peak_bytes
        block = np.ones(200_000_000 // 8)
        meter.sample()
        del block
    assert meter.peak_bytes - before > 150_000_000
