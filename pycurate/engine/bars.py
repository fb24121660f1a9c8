"""Progress bars for a terminal; apart, so that a quiet run does not load them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed or 0.0
        if elapsed <= 0:
            return Text("")
        rows, read = task.fields["rows"], task.fields["read_bytes"]
        text = f"{rows / elapsed:,.0f} rows/s"
        return Text(text + (f", {read / elapsed / 1e6:,.0f} MB/s" if read else ""), style="dim")


class RichProgress:
    """Bars with rate and time left, on standard error; use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = RichBars(
            TextColumn("{task.description:>9}"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("shards"),
            _Rate(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, stage: str, shards: int) -> None:
        self._task = self._bars.add_task(stage, total=shards, rows=0, read_bytes=0)

    def advance(self, rows: int, read_bytes: int = 0) -> None:
        assert self._task is not None
        fields = next(task for task in self._bars.tasks if task.id == self._task).fields
        rows, read_bytes = rows + fields["rows"], read_bytes + fields["read_bytes"]
        self._bars.update(self._task, advance=1, rows=rows, read_bytes=read_bytes)

    def finish(self) -> None:
        assert self._task is not None
        task = next(task for task in self._bars.tasks if task.id == self._task)
        self._bars.update(self._task, completed=task.total)
        self._task = None
