"""Pairs of blocks of rows as tasks of one or several GPUs, while rows stay in the CPU's memory.

Every GPU has a thread that asks the kernels about one pair of blocks, and one beside it that already moves and prepares
the rows of the next. Blocks that come again are kept. Answers are handed on in the order of tasks, whoever found them.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.device import cuda_kernels
from pycurate.kernels.host_matrix import HostMatrix

Integers = NDArray[np.int64]
Progress = Callable[[float], object] | None
Answer = TypeVar("Answer")

LEAST_BLOCK_ROWS = 1 << 15
"""Smaller blocks keep more GPUs busy at the end, but not one of them: its tiles are 128 x 128 and some 10,000 at a
time."""
_LEAST_ROWS = 1 << 10
# Bytes of a row on a GPU beside the row itself and its int8 form (docs/gpu.md): bounds, norms, places, a prefix; and of
# one block that is being prepared. 300 MB are queues and found pairs.
_ROW_BYTES, _PREPARING_BYTES, _FIXED_BYTES = 200, 544, 300 << 20
_STATE_BYTES = 1024  # at most: of 128 nearest rows
_USED_SHARE = 0.9
# Blocks on a GPU: a left and a right one that are compared, and as many that come next.
_BLOCKS_HELD = 4
_POLL_SECONDS = 0.1


class Matrix(HostMatrix):
    """(n, d) rows in the CPU's memory and the numbers of the GPUs on which they are compared."""

    def __init__(self, array: NDArray[Any], element: Any, gpus: tuple[int, ...]) -> None:
        super().__init__(array, element)
        self.gpus = gpus


class Operand:
    """The rows of a matrix that take part: rising row numbers, or all."""

    def __init__(self, x: Matrix, rows: Integers | None, metric: str, precision: str, screening: Any) -> None:
        self.x, self.metric, self.precision, self.screening = x, metric, precision, screening
        self.rows = np.arange(x.shape[0]) if rows is None else rows
        self._are_all = rows is None

    @property
    def n(self) -> int:
        return len(self.rows)

    def on_gpu(self, part: slice, gpu: int) -> Any:
        """Some of them, prepared."""
        kernels, x = cuda_kernels(), self.x
        if self._are_all:
            there = kernels.Matrix.upload(x.array[part], x.element, gpu)
        else:
            there = kernels.Matrix.upload(x.array, x.element, gpu, np.ascontiguousarray(self.rows[part]))
        return kernels.Operand(there, None, self.metric, self.precision, self.screening)


def fits(moved: list[NDArray[Any]], gpu: int) -> bool:
    """Whether matrices, and what a question holds of each row, have room in a GPU's memory together."""
    needed = sum(len(x) * (_row_bytes(x) + _PREPARING_BYTES + _STATE_BYTES) for x in moved)
    return not needed or bool(needed + _FIXED_BYTES <= _USED_SHARE * cuda_kernels().free_bytes(gpu))


def _row_bytes(x: NDArray[Any]) -> int:
    """Of a prepared row."""
    d: int = x.shape[1]
    return d * x.itemsize + -(-d // 64) * 64 + _ROW_BYTES


def block_rows_of(a: Operand, b: Operand | None, state_bytes: int, *, by_row: bool = False) -> int:
    """As many as fit in every GPU's memory, fewer where there would be too few tasks to share.

    Raises
    ------
    MemoryError
        Not even some fit.
    """
    gpus = a.x.gpus
    per_row = _BLOCKS_HELD * _row_bytes(a.x.array) + _PREPARING_BYTES + 2 * state_bytes
    free = min(_USED_SHARE * cuda_kernels().free_bytes(gpu) / gpus.count(gpu) for gpu in set(gpus))
    fitting = int((free - _FIXED_BYTES) // per_row)
    if fitting < _LEAST_ROWS:
        raise MemoryError(
            f"device: expected room for {_BLOCKS_HELD} blocks of {_LEAST_ROWS:,} rows, which take "
            f"{_FIXED_BYTES + _LEAST_ROWS * per_row >> 20:,} MiB of a GPU's memory, but {int(free) >> 20:,} MiB are "
            "free; free some, or pass device='cpu'"
        )
    longest = max(a.n, 0 if b is None else b.n)
    if len(gpus) == 1:
        return min(fitting, max(1, longest))
    # Eight tasks a GPU, or four rows of them, so that the last to end does not keep the others waiting for long.
    blocks = 4 * len(gpus) if by_row else math.isqrt((16 if b is None else 8) * len(gpus)) + 1
    return min(fitting, max(LEAST_BLOCK_ROWS, -(-longest // blocks)))


def asked(
    a: Operand,
    b: Operand | None,
    state_bytes: int,
    progress: Progress,
    question: Callable[[Grid], Answer],
    *,
    by_row: bool = False,
) -> Answer:
    """What a question finds; where a GPU's memory is not enough it is asked anew of smaller blocks.

    ``by_row``: a block of a meets all blocks on one GPU, those before it, too, where there is no b.
    """
    if b is not None and (a.x.shape[1], a.x.element, a.metric) != (b.x.shape[1], b.x.element, b.metric):
        raise InputError("b: expected an operand prepared like a: same dimension, dtype and metric")
    rows = block_rows_of(a, b, state_bytes, by_row=by_row)
    while True:
        try:
            return question(Grid(a, b, rows, progress, by_row=by_row))
        except MemoryError:
            if rows <= _LEAST_ROWS:
                raise
            rows = -(-rows // 2)


@dataclass(frozen=True, slots=True)
class Task:
    """A pair of blocks; ``right`` is None where a block is compared with itself."""

    left: slice
    right: slice | None


class _Stopped(Exception):
    """The join ends: another worker failed, the answer is known, or the user interrupted."""


class Grid:
    """Every block of a with every block of b, or without b every two of a and each with itself."""

    def __init__(
        self, a: Operand, b: Operand | None, block_rows: int, progress: Progress, *, by_row: bool = False
    ) -> None:
        self.a, self.b, self._progress = a, b, progress
        lefts, rights = _even(a.n, block_rows), _even(a.n if b is None else b.n, block_rows)
        # Row by row: the left block of a row is moved once to each GPU.
        self.tasks = [
            Task(left, None if b is None and left == right else right)
            for left in lefts
            for right in rights
            if b is not None or by_row or left.start <= right.start
        ]
        numbers = range(len(self.tasks))
        runs = itertools.groupby(numbers, lambda number: self.tasks[number].left if by_row else number)
        self._runs = iter([list(run) for _, run in runs])
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._fractions = np.zeros(len(self.tasks))
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def each(self, ask: Callable[[Any, Any, Task, Progress], Answer], take: Callable[[Task, Answer], object]) -> None:
        """Ask about all tasks; ``take`` gets the answers in their order, in this thread. True from it ends the join.

        ``ask`` gets the operands on the GPU that the kernels take, the second None as that of the task's ``right``.
        """
        threads = [threading.Thread(target=self._work, args=(gpu, ask), daemon=True) for gpu in self.a.x.gpus]
        for thread in threads:
            thread.start()
        waiting: dict[int, Answer] = {}
        turn = 0
        try:
            while turn < len(self.tasks):
                self._tell()
                try:
                    number, answer = self._answers.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                waiting[number] = answer
                while turn in waiting:
                    if take(self.tasks[turn], waiting.pop(turn)):
                        return
                    turn += 1
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(float(self._fractions.mean()))

    def _claimed(self) -> Iterator[int]:
        """Numbers of tasks for one worker."""
        while not self._stop.is_set():
            with self._lock:
                run = next(self._runs, None)
            if run is None:
                return
            yield from run

    def _work(self, gpu: int, ask: Callable[[Any, Any, Task, Progress], Any]) -> None:
        """Tasks on one GPU until there are no more; an error goes to the thread that waits for answers."""
        number: int | None = None
        try:
            with ThreadPoolExecutor(1) as ahead:
                blocks, numbers = _BlocksOnGpu(self, gpu), self._claimed()
                number = next(numbers, None)
                coming = None if number is None else ahead.submit(blocks.of, number, None)
                while number is not None and coming is not None:
                    left, right = coming.result()
                    following = next(numbers, None)
                    coming = None if following is None else ahead.submit(blocks.of, following, number)
                    answer = ask(left, right, self.tasks[number], self._poll_of(number))
                    del left, right
                    self._fractions[number] = 1
                    self._answers.put((number, answer))
                    number = following
        except _Stopped:
            return
        except BaseException as error:
            self._answers.put((-1 if number is None else number, error))

    def _poll_of(self, number: int) -> Callable[[float], object]:
        def poll(fraction: float) -> None:
            if self._stop.is_set():
                raise _Stopped
            self._fractions[number] = fraction

        return poll


class _BlocksOnGpu:
    """The prepared blocks that a GPU holds: those of the present task and of the next."""

    def __init__(self, grid: Grid, gpu: int) -> None:
        self._grid, self._gpu = grid, gpu
        self._held: dict[tuple[bool, int], Any] = {}  # of the right side?, first row

    def of(self, number: int, present: int | None) -> tuple[Any, Any]:
        """The operands of a task; others than its own and those of the present task are dropped before."""
        wanted = self._keys(number)
        kept = {*wanted, *(self._keys(present) if present is not None else ())}
        self._held = {key: block for key, block in self._held.items() if key in kept}
        for key, part in wanted.items():
            if key not in self._held:
                operand = self._grid.b if key[0] else self._grid.a
                assert operand is not None
                self._held[key] = operand.on_gpu(part, self._gpu)
        left, *right = (self._held[key] for key in wanted)
        return left, right[0] if right else None

    def _keys(self, number: int) -> dict[tuple[bool, int], slice]:
        task, is_right = self._grid.tasks[number], self._grid.b is not None
        keys = {(False, task.left.start): task.left}
        if task.right is not None:
            keys[is_right, task.right.start] = task.right
        return keys


def _even(n: int, most: int) -> list[slice]:
    """Ranges of at most so many rows, as many in each as in the others but one."""
    size = -(-n // max(1, -(-n // most)))
    return [slice(begin, min(begin + size, n)) for begin in range(0, n, max(1, size))]
