"""A plan: the facts of a run to come, and how people and machines read them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pycurate.engine import MemoryPlan

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What of the pool is read: stored columns, embeddings, and their stored bytes.

    ``total_bytes`` is what a run into an empty folder reads, ``left_bytes`` what remains given the stored scores of an
    earlier run, in ``left_shards`` shards. ``fit_bytes`` is what fits read of the pool after that, in one pass each
    over the embeddings ``fit_embeddings``; a fit that an earlier run has stored reads nothing.
    """

    columns: tuple[str, ...]
    embeddings: tuple[str, ...]
    total_bytes: int
    left_bytes: int
    left_shards: int
    fit_embeddings: tuple[str, ...] = ()
    fit_bytes: int = 0

    @property
    def reused_bytes(self) -> int:
        """Bytes that need not be read again."""
        return self.total_bytes - self.left_bytes


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """What is written, in bytes.

    Scores and uids are what an earlier run has not left in ``folder``; ledger, runs (sorted uids before they are
    merged) and subset are upper bounds, as if every row were kept and had a reason. ``scratch_bytes`` is gone after
    the fit. ``artefact_bytes`` is what fits leave for each row of the pool, ``groups_bytes`` is ``groups.parquet`` as
    if every row were a duplicate. ``free_bytes`` is what the disk of ``folder`` has; None without a folder.
    """

    uid_bytes: int
    score_bytes: int
    ledger_bytes: int
    run_bytes: int
    subset_bytes: int
    scratch_bytes: int
    folder: str | None
    free_bytes: int | None
    artefact_bytes: int = 0
    groups_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        kept = self.uid_bytes + self.score_bytes + self.ledger_bytes + self.run_bytes + self.subset_bytes
        return kept + self.scratch_bytes + self.artefact_bytes + self.groups_bytes


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """An estimate, not a promise: a sample of the first rows of a few shards, which the system may have had in memory.

    ``rows_per_second`` is of one worker, while others work; None where nothing is left to score.
    """

    scan_seconds: float
    decide_seconds: float
    rows_per_second: float | None
    sampled_rows: int
    sample_seconds: float

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.scan_seconds + self.decide_seconds


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step: what it reads of the pool and of earlier scores, makes, and decides by.

    ``rules`` is empty where they are known only after the fit.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    uses: tuple[str, ...]
    makes: tuple[str, ...]
    fits: bool
    decides: bool
    decides_by: tuple[str, ...]
    rules: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """In words."""
        parts = []
        if self.reads or self.uses:
            parts.append(f"reads {', '.join((*self.reads, *self.uses))}")
        if self.makes:
            parts.append(f"makes {', '.join(self.makes)}")
        by = f" {', '.join(self.decides_by)}" if self.decides_by else ""
        if self.fits:
            parts.append(f"looks at all of{by or ' the pool'} to find its rule")
        if self.decides and self.rules:
            parts.append(f"keeps rows where {' and '.join(self.rules)}")
        elif self.decides:
            parts.append("keeps or drops by it" if self.fits else f"keeps or drops by{by or ' uid'}")
        return "; ".join(parts) or "does nothing"


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to come. ``rows`` and ``shards`` are the pool's; ``time`` is None where no sample was taken."""

    recipe: str
    root: str
    layout: str
    shards: int
    rows: int
    read: ReadPlan
    memory: MemoryPlan
    disk: DiskPlan
    time: TimeEstimate | None
    steps: tuple[PlanStep, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold, sums included."""
        values = asdict(self)
        values["read"]["reused_bytes"] = self.read.reused_bytes
        values["disk"]["total_bytes"] = self.disk.total_bytes
        if self.time is not None:
            values["time"]["seconds"] = self.time.seconds
        for step, made in zip(self.steps, values["steps"], strict=True):
            made["sentence"] = step.sentence
        return values

    def render(self) -> RenderableType:
        """For a terminal, through rich."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim")
        facts.add_column()
        for name, value in self._facts().items():
            facts.add_row(name, Text(value))
        steps = Table.grid(padding=(0, 2))
        for number, step in enumerate(self.steps, start=1):
            steps.add_row(Text(f"{number}.", style="dim"), Text(step.name, style="bold"), Text(step.sentence))
        notes = [Text(f"Note: {note}", style="dim") for note in self.notes]
        warnings = [Text(f"Warning: {warning}", style="bold yellow") for warning in self.warnings]
        return Group(facts, Text(), steps, *([Text()] if notes or warnings else []), *notes, *warnings)

    def _facts(self) -> dict[str, str]:
        from rich.filesize import decimal

        read, disk, memory = self.read, self.disk, self.memory
        reused = f" ({decimal(read.reused_bytes)} more reused from an earlier run)" if read.reused_bytes else ""
        what = ", ".join((*read.columns, *read.embeddings)) or "nothing"
        fits = f"; then {decimal(read.fit_bytes)} by fits: {', '.join(read.fit_embeddings)}" if read.fit_bytes else ""
        how = f"{memory.workers} {'processes' if memory.processes else 'threads'}"
        free = "" if disk.free_bytes is None else f"; {decimal(disk.free_bytes)} free at {disk.folder}"
        return {
            "recipe": self.recipe,
            "pool": f"{self.root} ({self.layout}): {self.rows:,} rows in {self.shards:,} shards",
            "to read": f"{decimal(read.left_bytes)} in {read.left_shards:,} shards{reused}: {what}{fits}",
            "memory": f"at most {decimal(memory.cap_bytes)}: {how}, blocks of up to {memory.block_rows:,} rows",
            "disk": (
                f"up to {decimal(disk.total_bytes)}{free}: uids {decimal(disk.uid_bytes)}, scores "
                f"{decimal(disk.score_bytes)}, ledger {decimal(disk.ledger_bytes)}, subset and its runs "
                f"{decimal(disk.subset_bytes + disk.run_bytes)}"
                + (f", fits {decimal(disk.artefact_bytes)}" if disk.artefact_bytes else "")
                + (f", groups of duplicates {decimal(disk.groups_bytes)}" if disk.groups_bytes else "")
                + (f", scratch {decimal(disk.scratch_bytes)}" if disk.scratch_bytes else "")
            ),
            "time": self._time(),
        }

    def _time(self) -> str:
        if self.time is None:
            return "not estimated: no sample was taken"
        if self.time.rows_per_second is None:
            return f"about {_duration(self.time.seconds)}: nothing to score, only to decide and write"
        return (
            f"about {_duration(self.time.seconds)}, an estimate from {self.time.sampled_rows:,} rows: "
            f"{self.time.rows_per_second:,.0f} rows/s a worker"
        )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:,.1f} h"
