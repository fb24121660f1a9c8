"""What ``doctor`` found: facts of the pool, findings, and how people and machines read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import RenderableType

Severity: TypeAlias = Literal["error", "warning", "note"]

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was seen: the row counts within the shard, from 0; None means the whole shard."""

    shard: str
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    severity
        ``error``: a run would stop or its result would be wrong. ``warning``: rows or shards will not be judged as one
        might expect. ``note``: worth knowing.
    check
        A stable name for machines, such as ``uid_malformed``.
    count
        Rows, or shards where whole shards are concerned.
    places
        The first few, in the pool's order (of ``uid_duplicate``: in the order of uids).
    sentence, remedy
        What is the matter, and what to do.
    """

    severity: Severity
    check: str
    count: int
    sentence: str
    remedy: str
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """One embedding of the pool. Norms are Euclidean, of the ``sound_rows``: finite and not zero; None without any."""

    name: str
    dimension: int
    dtype: str
    sound_rows: int
    norm_minimum: float | None
    norm_mean: float | None
    norm_maximum: float | None


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """A pool looked over.

    Attributes
    ----------
    shards, rows
        Of the pool, without shards that could not be opened.
    examined_rows
        Rows of the shards that could be read to their end.
    uids_compared
        Whether all uids were compared with each other.
    scratch_bytes
        Disk that comparing them took while it ran.
    """

    root: str
    layout: str
    shards: int
    rows: int
    columns: Mapping[str, str]
    uid_source: str
    embeddings: tuple[EmbeddingFacts, ...]
    recipe: str | None
    findings: tuple[Finding, ...]
    examined_rows: int
    uids_compared: bool
    read_bytes: int
    scratch_bytes: int
    seconds: float

    @property
    def ok(self) -> bool:
        """True without an error among the findings."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {"ok": self.ok, **asdict(self)}

    def render(self) -> RenderableType:
        """For a terminal, through rich."""
        from rich.console import Group
        from rich.text import Text

        parts = [self._facts(), Text()]
        if self.embeddings:
            parts += [self._embeddings(), Text()]
        if self.findings:
            parts += [self._findings(), Text()]
        return Group(*parts, self._verdict())

    def _facts(self) -> Any:
        from rich.filesize import decimal
        from rich.table import Table
        from rich.text import Text

        facts = {
            "pool": f"{self.root} ({self.layout})",
            "rows": f"{self.rows:,} in {self.shards:,} shard{'' if self.shards == 1 else 's'}",
            "columns": ", ".join(self.columns) or "none",
            "uids": "column uid" if self.uid_source == "column" else "made from path and row",
            "read": f"{self.examined_rows:,} rows, {decimal(self.read_bytes)} in {self.seconds:.1f} s",
        }
        if self.scratch_bytes:
            facts["compared"] = f"all uids, through {decimal(self.scratch_bytes)} of temporary disk"
        if self.recipe is not None:
            facts["recipe"] = self.recipe
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        for name, value in facts.items():
            table.add_row(name, Text(value))
        return table

    def _embeddings(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("embedding")
        for heading in ("dimension", "dtype", "sound rows", "norm min", "mean", "max"):
            table.add_column(heading, justify="right")
        for e in self.embeddings:
            norms = ["-" if norm is None else f"{norm:.4g}" for norm in (e.norm_minimum, e.norm_mean, e.norm_maximum)]
            table.add_row(e.name, str(e.dimension), e.dtype, f"{e.sound_rows:,}", *norms)
        return table

    def _findings(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 1, 0))
        for finding in self.findings:
            text = Text(finding.sentence)
            if finding.places:
                more = ", ..." if finding.count > len(finding.places) else ""
                text.append(f"\nat {_listed(finding.places)}{more}", style="dim")
            text.append(f"\n{finding.remedy}", style="italic")
            table.add_row(Text(finding.severity, style=_STYLES[finding.severity]), text)
        return table

    def _verdict(self) -> Any:
        from rich.text import Text

        errors = sum(finding.severity == "error" for finding in self.findings)
        warnings = sum(finding.severity == "warning" for finding in self.findings)
        if errors:
            return Text(f"{errors} error{'s' * (errors > 1)}: a run would stop or go wrong.", style="bold red")
        if warnings:
            return Text(f"Fit to run; {warnings} warning{'s' * (warnings > 1)} above.", style="bold yellow")
        return Text("Fit to run.", style="bold green")


def _listed(places: tuple[Place, ...]) -> str:
    """``a rows 1, 2; b row 3``, each shard named once in a row."""
    parts = []
    for shard, group in groupby(places, key=lambda place: place.shard):
        rows = [f"{place.row:,}" for place in group if place.row is not None]
        parts.append(f"{shard} row{'s' * (len(rows) > 1)} {', '.join(rows)}" if rows else shard)
    return "; ".join(parts)
