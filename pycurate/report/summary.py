"""What a run kept and why, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from pycurate.report.formats import format_bytes, format_seconds, format_share
from pycurate.report.html import REPORT_NAME
from pycurate.report.manifest import GROUPS_NAME, MANIFEST_NAME, Manifest, StepRecord

HEADINGS = ("rows in", "dropped", "share", "kept")
NARROWEST_NAME = 24
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def render_summary(manifest: Manifest, out_dir: Path | str = "", *, width: int = 80, styled: bool = False) -> str:
    """The end of a run as lines of text: kept rows, a table of steps and rules, and where the files are.

    Parameters
    ----------
    manifest : Manifest
        Of a finished run.
    out_dir : Path or str
        Its output folder, put before the names of the files.
    width : int
        Characters of a line; long names of steps and rules are wrapped, numbers and paths are not.
    styled : bool
        Mark what matters with the escape sequences of a terminal.
    """
    counts, memory = manifest.counts, manifest.memory
    seconds = sum(stage.seconds for stage in manifest.stages)
    peak, cap = format_bytes(memory.peak_bytes), format_bytes(memory.cap_bytes)
    lines = [
        _styled(f"{counts.kept:,}", BOLD, styled)
        + f" of {counts.rows:,} rows kept ({format_share(counts.kept, counts.rows)}) by "
        + _styled(manifest.recipe.name, BOLD, styled),
        *_steps_table(manifest.steps, width, styled),
        _styled(f"{format_seconds(seconds)}, peak memory {peak} of {cap}", DIM, styled),
    ]
    out_dir = Path(out_dir)
    files = [("subset", out_dir / manifest.subset.path)]
    files += [
        (Path(n).stem, out_dir / n)
        for n in ("ledger", GROUPS_NAME, REPORT_NAME, MANIFEST_NAME)
        if (out_dir / n).exists()
    ]
    return "\n".join([*lines, *(f"{name:<10}{path}" for name, path in files)])


def _steps_table(steps: Sequence[StepRecord], width: int, styled: bool) -> list[str]:
    rows = [row for step in steps for row in _step_rows(step)]
    widths = [
        max(len(cell) for cell in cells) for cells in zip(HEADINGS, *(cells for _, cells, _ in rows), strict=True)
    ]
    name_width = max(width - sum(widths) - 2 * len(widths), NARROWEST_NAME)
    lines = []
    for name, cells, style in (("step and rule", HEADINGS, BOLD), *rows):
        indent = " " * (len(name) - len(name.lstrip()))
        first, *more = textwrap.wrap(name, name_width, initial_indent="", subsequent_indent=indent) or [""]
        numbers = "".join(f"  {cell:>{cell_width}}" for cell, cell_width in zip(cells, widths, strict=True))
        lines.append(_styled(f"{first:<{name_width}}{numbers}".rstrip(), style, styled))
        lines += [_styled(line, style, styled) for line in more]
    return lines


def _step_rows(step: StepRecord) -> list[tuple[str, tuple[str, ...], str]]:
    """Name, numbers and style of a step and of each of its rules that has something to say."""
    if not step.rules:
        return [(step.name, (f"{step.entering:,}", "–", "–", f"{step.kept:,}"), DIM)]
    dropped = step.entering - step.kept
    numbers = (f"{step.entering:,}", f"{dropped:,}", format_share(dropped, step.entering), f"{step.kept:,}")
    rows: list[tuple[str, tuple[str, ...], str]] = [(step.name, numbers, BOLD)]
    for rule in step.rules:
        if rule.dropped or not rule.unjudged:
            words = f"  {rule.description}" + (f" (policy: {rule.policy})" if rule.policy else "")
            rows.append((words, ("", f"{rule.dropped:,}", format_share(rule.dropped, step.entering), ""), DIM))
    return rows


def _styled(text: str, style: str, styled: bool) -> str:
    return f"{style}{text}{PLAIN}" if styled else text
