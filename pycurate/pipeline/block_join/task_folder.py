"""The folder of one question: what its finished tasks left, and its answer.

``plan.json`` names the question, its parameters and the size of blocks. ``tasks/<i>-<j>.json`` says that a pair of
blocks is done and which files it left beside it; ``answer/`` is complete when it has an ``answer.json``, and then
``tasks/`` is removed. All are written under other names first, flushed and renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import WorkspaceError
from pycurate.io.atomic import TEMPORARY_SUFFIX, atomic_write, write_json_atomic
from pycurate.pipeline.block_join.source import open_array

_RESERVE_BYTES = 16 << 20


class TaskFolder:
    """See the module's description; whoever uses one holds the lock of the folder above."""

    def __init__(self, root: Path, question: Mapping[str, Any]) -> None:
        self.root = root
        self._question = dict(question)
        self._tasks, self._answer = root / "tasks", root / "answer"

    # -- the answer --------------------------------------------------------------------------------------------------

    def answer(self) -> dict[str, NDArray[Any]] | None:
        """The arrays of the answer, memory-mapped, or None where it is not complete."""
        facts = _read_json(self._answer / "answer.json")
        if facts is None:
            return None
        return {name: open_array(self._answer / f"{name}.npy") for name in facts["arrays"]}

    def answer_path(self, name: str) -> Path:
        """Where an array of the answer belongs."""
        self._answer.mkdir(parents=True, exist_ok=True)
        return self._answer / f"{name}.npy"

    def write_answer(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write arrays of the answer that are in memory, and declare it complete."""
        self.require_disk(sum(array.nbytes for array in arrays.values()))
        for name, array in arrays.items():
            with atomic_write(self.answer_path(name), "file") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        self.declare_answer(list(arrays))

    def declare_answer(self, names: list[str]) -> None:
        """The arrays of these names are written and flushed: drop what the tasks left."""
        write_json_atomic(self._answer / "answer.json", {**self._question, "arrays": names})
        shutil.rmtree(self._tasks, ignore_errors=True)

    # -- tasks -------------------------------------------------------------------------------------------------------

    def open_tasks(self, block_rows: int, fitting_rows: int = 0) -> int:
        """Rows of a block: those of an earlier run, unless they are more than fit now; then its tasks are dropped."""
        plan = _read_json(self.root / "plan.json")
        if plan is None or plan["block_rows"] > max(block_rows, fitting_rows):
            self.drop_tasks()
            self._tasks.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.root / "plan.json", {**self._question, "block_rows": block_rows})
            return block_rows
        self._tasks.mkdir(parents=True, exist_ok=True)
        for path in self._tasks.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink()
        return int(plan["block_rows"])

    def drop_tasks(self) -> None:
        """Forget all tasks."""
        shutil.rmtree(self._tasks, ignore_errors=True)

    def task_path(self, i: int, j: int, name: str) -> Path:
        """Where a file of a task belongs."""
        return self._tasks / f"{i:05d}-{j:05d}.{name}"

    def facts(self, i: int, j: int) -> dict[str, Any] | None:
        """What a finished task said of itself, or None where it is not done or a file of it is not whole."""
        facts = _read_json(self.task_path(i, j, "json"))
        if facts is None or any(_size(self._tasks / name) != size for name, size in facts["files"].items()):
            return None
        return facts

    def has_marker(self, i: int, j: int) -> bool:
        """Whether a task was finished; its files may be gone, because a later task's took their place."""
        return _read_json(self.task_path(i, j, "json")) is not None

    def is_whole(self, i: int, j: int, name: str) -> bool:
        """Whether one file of a finished task is there, as long as it was."""
        facts = _read_json(self.task_path(i, j, "json"))
        path = self.task_path(i, j, name)
        return facts is not None and facts["files"].get(path.name) == _size(path)

    def write_file(self, path: Path, size: int, write: Callable[[BinaryIO], None]) -> None:
        """One file of a task, after a look whether the disk has room for it."""
        self.require_disk(size)
        with atomic_write(path, "file") as file:
            write(file)

    def finish(self, i: int, j: int, paths: list[Path], **facts: Any) -> None:
        """Say that a task is done and these are its files."""
        files = {path.name: path.stat().st_size for path in paths}
        write_json_atomic(self.task_path(i, j, "json"), {"files": files, **facts}, "file")

    def require_disk(self, size: int) -> None:
        """WorkspaceError unless ``size`` more bytes and a reserve are free."""
        free = shutil.disk_usage(self.root).free
        if free < size + _RESERVE_BYTES:
            raise WorkspaceError(
                f"out: {size + _RESERVE_BYTES:,} more bytes are needed in {self.root}, but {free:,} are free; free "
                "some space there and run again: finished tasks are kept; or raise the threshold"
            )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
