"""The folder of a join: whose rows it is about, which of them are distinct, and one folder for each question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import WorkspaceError
from pycurate.io.atomic import write_json_atomic
from pycurate.kernels.distinct import DistinctRows
from pycurate.kernels.rowwise import Metric
from pycurate.pipeline.block_join.distinct_rows import distinct_rows_of
from pycurate.pipeline.block_join.source import RowSource
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.workspace import Workspace, digest

_FORMAT = 1  # of the files below the folder; another number, and what an earlier version left is not looked at


class JoinFolder:
    """Answers about the rows of one source, or of two; a folder about other rows is refused."""

    def __init__(self, out: Path, sources: tuple[RowSource, ...], metric: Metric) -> None:
        self._workspace, self._sources, self._metric = Workspace(out), sources, metric
        self._rows = [f"{len(s)} {s.fingerprint()}" for s in sources]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises
        ------
        WorkspaceError
            It is about other rows, in use by another process, or cannot be written.
        """
        first = self._sources[0]
        with self._workspace.lock():
            path = self._workspace.root / "source.json"
            expected = {"rows": self._rows, "element": first.element, "dimension": first.d}
            if not path.exists():
                write_json_atomic(path, expected)
            elif json.loads(path.read_text()) != expected:
                raise WorkspaceError(
                    f"out: {self._workspace.root} holds answers about other rows than these; choose another folder, or "
                    "delete it"
                )
            yield

    @contextmanager
    def question(self, name: str, **parameters: Any) -> Iterator[TaskFolder]:
        """The folder of a question with these parameters, held."""
        with self.locked():
            yield self.task_folder(name, **parameters)

    def task_folder(self, name: str, **parameters: Any) -> TaskFolder:
        """Likewise for whoever holds it already."""
        facts: Mapping[str, Any] = {"question": name, "metric": self._metric, **parameters}
        facts = {key: str(value) if isinstance(value, float) else value for key, value in facts.items()}
        root = self._workspace.root / f"{name}-{digest(_FORMAT, self._rows, facts)}"
        root.mkdir(exist_ok=True)
        return TaskFolder(root, facts)

    def distinct_rows(self, threads: int) -> list[DistinctRows]:
        """Of each source; found once, then read back. Whoever asks holds the folder."""
        found = []
        for name, source, rows in zip(("x", "y"), self._sources, self._rows, strict=False):
            facts = {"question": "distinct rows", "of": name, "metric": self._metric}
            root = self._workspace.root / f"distinct-{name}-{digest(_FORMAT, rows, facts)}"
            root.mkdir(exist_ok=True)
            folder = TaskFolder(root, facts)
            if folder.answer() is None:
                distinct = distinct_rows_of(source, self._metric, threads)
                folder.write_answer({"copy_of": distinct.copy_of, "unjudged": distinct.unjudged})
            stored = answer_of(folder)
            found.append(DistinctRows(np.array(stored["copy_of"]), np.array(stored["unjudged"])))
        return found


def answer_of(folder: TaskFolder) -> dict[str, NDArray[Any]]:
    """The answer that was just written or seen, memory-mapped."""
    found = folder.answer()
    if found is None:
        raise WorkspaceError(f"{folder.root} was changed while it was in use; run again")
    return found
