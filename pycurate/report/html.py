"""``report.html``: one file that says what was kept and why, without network, scripts or links to outside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pycurate.report.charts import (
    FUNNEL_WIDTH,
    HistogramChart,
    Segment,
    funnel_segments,
    histogram_chart,
)
from pycurate.report.formats import format_bytes, format_seconds, format_share, format_value
from pycurate.report.manifest import (
    ExampleGroup,
    Examples,
    Manifest,
    RuleRecord,
    ScoreRecord,
    StepRecord,
    read_examples,
    read_manifest,
)

REPORT_NAME = "report.html"
RULE_TONES = 5  # colours of rules in a funnel bar, repeated after that


@dataclass(frozen=True, slots=True)
class _StepView:
    record: StepRecord
    segments: tuple[Segment, ...]

    @property
    def dropped(self) -> int:
        return self.record.entering - self.record.kept


@dataclass(frozen=True, slots=True)
class _ScoreView:
    record: ScoreRecord
    chart: HistogramChart | None


@dataclass(frozen=True, slots=True)
class _SideView:
    heading: str
    dropped: bool
    group: ExampleGroup


@dataclass(frozen=True, slots=True)
class _ExampleView:
    rule: RuleRecord
    sides: tuple[_SideView, ...]


def write_report(out_dir: Path | str) -> Path:
    """Write ``report.html`` from the ``manifest.json`` and ``examples.json`` of a finished run.

    Parameters
    ----------
    out_dir : Path or str
        The output folder of ``pycurate run``.

    Returns
    -------
    Path
        The report: one self-contained page.

    Raises
    ------
    InputError
        Where the manifest is missing or was written by another version.
    """
    out_dir = Path(out_dir)
    page = render_report(read_manifest(out_dir), read_examples(out_dir))
    path, draft = out_dir / REPORT_NAME, out_dir / f"{REPORT_NAME}.{os.getpid()}.tmp"
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    return path


def render_report(manifest: Manifest, examples: Examples | None = None) -> str:
    """The page as text. Whatever comes from the pool is escaped: captions and links are hostile input."""
    rules = [rule for step in manifest.steps for rule in step.rules]
    return _template().render(
        manifest=manifest,
        steps=[_StepView(step, funnel_segments(step, manifest.counts.rows)) for step in manifest.steps],
        scores=[_ScoreView(score, histogram_chart(score, rules)) for score in manifest.scores],
        examples=_example_views(rules, (examples or Examples()).groups),
        longest=max((stage.seconds for stage in manifest.stages), default=0.0) or 1.0,
        seconds=sum(stage.seconds for stage in manifest.stages),
        funnel_width=FUNNEL_WIDTH,
        tones=RULE_TONES,
    )


def _example_views(rules: Sequence[RuleRecord], groups: Sequence[ExampleGroup]) -> list[_ExampleView]:
    views = []
    for rule in rules:
        mine = sorted((g for g in groups if g.rule == rule.name and g.rows), key=lambda group: group.side)
        sides = [_side(rule, group) for group in mine]
        if sides:
            views.append(_ExampleView(rule, tuple(sides)))
    return views


def _side(rule: RuleRecord, group: ExampleGroup) -> _SideView:
    if rule.threshold is None or rule.score is None:
        return _SideView("Dropped", True, group)
    dropped = group.side == (rule.drops or "below")
    touches = "at or " if any(row.value == rule.threshold for row in group.rows) else ""
    place = f"{touches}just {group.side} {format_value(rule.threshold)}"
    return _SideView(f"{place[0].upper()}{place[1:]}: {'dropped' if dropped else 'passed'}", dropped, group)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda count: f"{count:,}",
        "percent": format_share,
        "value": format_value,
        "fine": lambda value: format_value(value, 6),
        "bytes": format_bytes,
        "seconds": format_seconds,
    }
    return environment.get_template("report.html.j2")
