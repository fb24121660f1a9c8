"""The local scheduler: the same tasks on threads of this process or on worker processes."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from pycurate.errors import InputError, PycurateError
from pycurate.kernels import thread_count

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

T = TypeVar("T")
R = TypeVar("R")

_context: Any = None  # of a worker process: what every task of the run shares, sent once


def worker_count(workers: int | None) -> int:
    """The number asked for, or by default the processors that this process may use."""
    if workers is not None and workers < 1:
        raise InputError(f"workers: expected at least 1, got {workers}")
    return thread_count(0) if workers is None else workers


class LocalEngine:
    """Runs tasks on ``workers`` threads or processes. Results never depend on which.

    Ctrl-C and the first error cancel what has not started; ``stop`` tells running threads to end at their next block.
    """

    def __init__(self, workers: int, *, processes: bool) -> None:
        self.workers = workers
        self.processes = processes
        self._stop = threading.Event()

    def stop(self) -> bool:
        """True once the run is to end; tasks on threads ask between blocks."""
        return self._stop.is_set()

    def unordered(self, function: Callable[[Any, T], R], context: Any, tasks: Sequence[T]) -> Iterator[R]:
        """``function(context, task)`` for every task; results as they finish."""
        if not self.processes or len(tasks) < 2:
            with ThreadPoolExecutor(self.workers) as threads:
                yield from self._drain(threads, lambda task: threads.submit(function, context, task), tasks)
            return
        import multiprocessing  # here: most runs stay in one process
        from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

        pool = ProcessPoolExecutor(
            min(self.workers, len(tasks)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(), context),
        )
        try:
            with pool:
                yield from self._drain(pool, lambda task: pool.submit(_run_in_worker, function, task), tasks)
        except BrokenProcessPool as error:
            raise PycurateError(
                "a worker process ended before its work: killed, most likely for want of memory, or never started, in "
                "a script without 'if __name__ == \"__main__\":'. Finished shards are kept: run again with fewer "
                "workers or on threads (--threads, processes=False)"
            ) from error

    def ordered(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """``function(task)`` on threads; results in the order of ``tasks``, few more in flight than workers."""
        with ThreadPoolExecutor(self.workers) as threads:
            pending: list[Future[R]] = []
            try:
                for task in tasks:
                    pending.append(threads.submit(function, task))
                    if len(pending) > 2 * self.workers:
                        yield pending.pop(0).result()
                while pending:
                    yield pending.pop(0).result()
            except BaseException:
                self._stop.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _drain(
        self, executor: ThreadPoolExecutor | ProcessPoolExecutor, submit: Callable[[T], Future[R]], tasks: Sequence[T]
    ) -> Iterator[R]:
        waiting = iter(tasks)
        running: set[Future[R]] = set()
        try:
            while True:
                while len(running) < 2 * self.workers and (task := next(waiting, None)) is not None:
                    running.add(submit(task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            self._stop.set()
            if not isinstance(executor, ThreadPoolExecutor):
                _terminate(executor)
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _terminate(pool: ProcessPoolExecutor) -> None:
    """End workers wherever they are: files are renamed into place, so only unfinished shards are lost."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _start_worker(parent: int, context: Any) -> None:
    global _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)  # a parent killed -9 takes its workers along
    if os.getppid() != parent:
        os._exit(1)
    _context = context


def _run_in_worker(function: Callable[[Any, T], R], task: T) -> R:
    return function(_context, task)
