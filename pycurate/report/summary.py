"""What a run kept and why, for the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pycurate.report.formats import format_bytes, format_seconds, format_share
from pycurate.report.html import REPORT_NAME
from pycurate.report.manifest import MANIFEST_NAME, Manifest, StepRecord


def render_summary(manifest: Manifest, out_dir: Path | str = "") -> RenderableType:
    """The end of a run as a rich renderable: kept rows, a table of steps and rules, and where the files are.

    Parameters
    ----------
    manifest : Manifest
        Of a finished run.
    out_dir : Path or str
        Its output folder, put before the names of the files.
    """
    counts = manifest.counts
    headline = Text.assemble(
        (f"{counts.kept:,}", "bold green"),
        f" of {counts.rows:,} rows kept ({format_share(counts.kept, counts.rows)}) by ",
        (manifest.recipe.name, "bold"),
    )
    out_dir = Path(out_dir)
    files = Table.grid(padding=(0, 2))
    files.add_row("subset", str(out_dir / manifest.subset.path))
    for name in ("ledger", REPORT_NAME, MANIFEST_NAME):
        if (out_dir / name).exists():
            files.add_row(Path(name).stem, str(out_dir / name))
    memory = manifest.memory
    seconds = sum(stage.seconds for stage in manifest.stages)
    peak = format_bytes(memory.peak_bytes)
    cost = f"{format_seconds(seconds)}, peak memory {peak} of {format_bytes(memory.cap_bytes)}"
    return Group(headline, _steps_table(manifest), Text(cost, style="dim"), files)


def _steps_table(manifest: Manifest) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("step and rule", overflow="fold")
    for heading in ("rows in", "dropped", "share", "kept"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step in manifest.steps:
        _add_step(table, step)
    return table


def _add_step(table: Table, step: StepRecord) -> None:
    if not step.rules:
        table.add_row(Text(step.name), f"{step.entering:,}", "–", "–", f"{step.kept:,}", style="dim")
        return
    dropped = step.entering - step.kept
    table.add_row(
        Text(step.name, style="bold"),
        f"{step.entering:,}",
        f"{dropped:,}",
        format_share(dropped, step.entering),
        f"{step.kept:,}",
    )
    for rule in step.rules:
        if rule.dropped or not rule.unjudged:
            words = f"  {rule.description}" + (f" (policy: {rule.policy})" if rule.policy else "")
            share = format_share(rule.dropped, step.entering)
            table.add_row(Text(words), "", f"{rule.dropped:,}", share, "", style="dim")
