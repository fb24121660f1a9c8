from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from pycurate.engine import LocalEngine
from pycurate.errors import PoolError, PycurateError


def _square(context: int, task: int) -> tuple[int, int]:
    return context + task * task, os.getpid()


def _fail(context: int, task: int) -> int:
    if task == 3:
        raise PoolError("is broken; mend it", shard="00003", row=7)
    return task


def _die(context: int, task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_runs_once(workers: int, processes: bool) -> None:
    results = list(LocalEngine(workers, processes=processes).unordered(_square, 100, list(range(20))))
    assert sorted(value for value, _ in results) == [100 + i * i for i in range(20)]
    pids = {pid for _, pid in results}
    assert (os.getpid() in pids) != processes


@pytest.mark.parametrize("processes", [False, True])
def test_an_error_keeps_its_shard_and_row(processes: bool) -> None:
    with pytest.raises(PoolError, match="shard 00003, row 7: is broken; mend it") as error:
        list(LocalEngine(2, processes=processes).unordered(_fail, 0, list(range(50))))
    assert (error.value.shard, error.value.row) == ("00003", 7)


def test_a_killed_worker_is_told_in_a_sentence() -> None:
    with pytest.raises(PycurateError, match=r"a worker process ended before its work: .* shards are kept"):
        list(LocalEngine(2, processes=True).unordered(_die, 0, [1, 2]))


def test_ordered_results_come_in_order_whatever_finishes_first() -> None:
    def task(i: int) -> int:
        time.sleep(0.02 * (i % 3 == 0))
        return i

    assert list(LocalEngine(4, processes=False).ordered(task, range(30))) == list(range(30))


def test_an_error_stops_what_has_not_started() -> None:
    engine = LocalEngine(1, processes=False)
    ran: list[int] = []
    lock = threading.Lock()

    def task(i: int) -> int:
        with lock:
            ran.append(i)
        if i == 1:
            raise ValueError("one")
        return i

    with pytest.raises(ValueError, match="one"):
        list(engine.ordered(task, range(1_000)))
    assert len(ran) < 10
    assert engine.stop()
