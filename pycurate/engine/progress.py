"""What a run tells its user while it works."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the stages of a run; every method is called from one thread."""

    def start(self, stage: str, shards: int) -> None:
        """A stage begins that will finish ``shards`` tasks."""

    def advance(self, rows: int, read_bytes: int = 0) -> None:
        """One task of the present stage is done."""

    def finish(self) -> None:
        """The present stage is over."""


class NoProgress:
    """Says nothing."""

    def start(self, stage: str, shards: int) -> None: ...
    def advance(self, rows: int, read_bytes: int = 0) -> None: ...
    def finish(self) -> None: ...
