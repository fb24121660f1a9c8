"""``report.html``: one file that says what was kept and why, without network, scripts or links to outside.

Written as plain functions of the manifest, one a section: a template engine would take 120 ms of every run to load and
to compile its template. Whatever is put between tags or into an attribute goes through ``markup.text``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pycurate.report.charts import FUNNEL_WIDTH, HistogramChart, Segment, funnel_segments, histogram_chart
from pycurate.report.duplicates import duplicates_section
from pycurate.report.formats import format_bytes, format_seconds, format_share, format_value
from pycurate.report.manifest import (
    ExampleGroup,
    ExampleRow,
    Examples,
    Manifest,
    RuleRecord,
    ScoreRecord,
    StageRecord,
    StepRecord,
    UnjudgedRecord,
    read_examples,
    read_manifest,
)
from pycurate.report.markup import count, description_rows, page, picture, shortened, text

REPORT_NAME = "report.html"
RULE_TONES = 5  # colours of rules in a funnel bar, repeated after that
CAPTION_CHARS, URL_CHARS = 280, 120
LABELS = {"isa": "instruction set"}


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
    charts = [histogram_chart(score, rules) for score in manifest.scores]
    counts = manifest.counts
    title = f"{manifest.recipe.name}: {counts.kept:,} of {counts.rows:,} rows kept"
    sections = [
        _header(manifest),
        _funnel(manifest.steps, counts.rows),
        _scores(manifest.scores, charts),
        _examples(rules, (examples or Examples()).groups),
        duplicates_section(manifest.groups, (examples or Examples()).duplicates),
        _unjudged(manifest.unjudged),
        _run(manifest),
        _recipe(manifest),
    ]
    return page(title, "".join(sections))


def _header(manifest: Manifest) -> str:
    counts, pool = manifest.counts, manifest.pool
    created = manifest.created.replace("T", " ").replace("+00:00", " UTC")
    lead = f'<p class="lead">{text(manifest.recipe.description)}</p>\n' if manifest.recipe.description else ""
    seconds = sum(stage.seconds for stage in manifest.stages)
    facts = description_rows(
        [
            ("of rows", f"{counts.rows:,}"),
            ("share kept", text(format_share(counts.kept, counts.rows))),
            ("dropped", f"{counts.dropped:,}"),
            ("could not be judged", f"{counts.unjudged:,}"),
            ("took", text(format_seconds(seconds))),
        ]
    )
    return f"""<header>
<p class="brand">pycurate report <span class="quiet">{text(created)}</span></p>
<h1>{text(manifest.recipe.name)}</h1>
{lead}<dl class="headline">
<div class="main"><dt>kept</dt><dd>{counts.kept:,}</dd></div>
{facts}</dl>
<p class="files">Subset <code>{text(manifest.subset.path)}</code> ({manifest.subset.rows:,} rows), from
{count(pool.shards, "shard")} of the {text(pool.layout)} pool <code>{text(pool.root)}</code></p>
</header>

"""


def _funnel(steps: Sequence[StepRecord], rows: int) -> str:
    return f"""<section aria-labelledby="funnel">
<h2 id="funnel">What each step did</h2>
<p class="note">A row is counted at the first rule that drops it. Bars are drawn to the size of the whole pool.</p>
<p class="legend" aria-hidden="true"><span><i class="swatch kept"></i>kept</span>\
<span><i class="swatch tone0"></i>dropped, by rule</span>\
<span><i class="swatch unjudged"></i>could not be judged</span>\
<span><i class="swatch gone"></i>gone before</span></p>
<ol class="steps">
{"".join(_step(step, funnel_segments(step, rows)) for step in steps)}</ol>
</section>

"""


def _step(step: StepRecord, segments: Sequence[Segment]) -> str:
    kind = f' <span class="quiet">{text(step.kind)}</span>' if step.kind != step.name else ""
    heading = f"<h3>{text(step.name)}{kind}</h3>\n"
    if not step.rules:
        return (
            f'<li class="scores-only">\n{heading}'
            f'<p class="flow quiet">scores {step.entering:,} rows, drops none</p>\n</li>\n'
        )
    dropped = step.entering - step.kept
    share = text(format_share(dropped, step.entering))
    label = f"{step.name}: {step.entering:,} rows in, {dropped:,} dropped, {step.kept:,} kept"
    bar = "".join(
        f'<rect class="{_tone(step, segment.rule)}" x="{segment.x:.3f}" width="{segment.width:.3f}" height="20"/>\n'
        for segment in segments
    )
    rules = "".join(
        _rule(step, number, rule) for number, rule in enumerate(step.rules) if rule.dropped or not rule.unjudged
    )
    return f"""<li>
{heading}<p class="flow"><span>{step.entering:,} in</span> <span class="arrow" aria-hidden="true">→</span> \
<strong>{step.kept:,} kept</strong> <span class="quiet">{dropped:,} dropped, {share}</span></p>
<svg class="bar" viewBox="0 0 {FUNNEL_WIDTH} 20" preserveAspectRatio="none" role="img" aria-label="{text(label)}">
<rect class="gone" width="{FUNNEL_WIDTH}" height="20"/>
{bar}</svg>
<table class="rules">
<thead><tr><th scope="col">rule</th><th scope="col" class="num">dropped</th>\
<th scope="col" class="num">of entering</th></tr></thead>
<tbody>
{rules}</tbody>
</table>
</li>
"""


def _tone(step: StepRecord, rule: int | None) -> str:
    """The CSS class of what a rule dropped, or of what was kept (None)."""
    if rule is None:
        return "kept"
    return "unjudged" if step.rules[rule].unjudged else f"tone{rule % RULE_TONES}"


def _rule(step: StepRecord, number: int, rule: RuleRecord) -> str:
    policy = f' <span class="tag">policy: {text(rule.policy)}</span>' if rule.policy else ""
    return f"""<tr{"" if rule.dropped else ' class="quiet"'}>
<th scope="row"><i class="swatch {_tone(step, number)}"></i><span>{text(rule.description)}{policy} \
<code>{text(rule.name)}</code></span></th>
<td class="num">{rule.dropped:,}</td>
<td class="num">{text(format_share(rule.dropped, step.entering))}</td>
</tr>
"""


def _scores(scores: Sequence[ScoreRecord], charts: Sequence[HistogramChart | None]) -> str:
    if not scores:
        return ""
    note = ""
    if any(chart is not None and chart.passing for chart in charts):
        note = " What lies outside the thresholds of a score is drawn in the colour of dropped rows."
    figures = [_figure(score, chart, index) for index, (score, chart) in enumerate(zip(scores, charts, strict=True), 1)]
    return f"""<section aria-labelledby="scores">
<h2 id="scores">Scores of the whole pool</h2>
<p class="note">Height is rows per unit of score.{note}</p>
<div class="grid">
{"".join(figures)}</div>
</section>

"""


def _figure(score: ScoreRecord, chart: HistogramChart | None, index: int) -> str:
    infinite = [("infinite", f"{score.infinite:,}")] if score.infinite else []
    facts = description_rows(
        [
            ("values", f"{score.count:,}"),
            ("missing", f"{score.missing:,}"),
            *infinite,
            ("min", text(format_value(score.minimum))),
            ("mean", text(format_value(score.mean))),
            ("max", text(format_value(score.maximum))),
        ]
    )
    tails = "" if chart is None else "".join(f'<p class="quiet tail">drawn apart: {text(t)}</p>\n' for t in chart.tails)
    return f"""<figure>
<figcaption>{text(score.name)}</figcaption>
{_histogram(score, chart, index) if chart else '<p class="quiet">no value</p>'}
<dl class="facts">
{facts}</dl>
{tails}</figure>
"""


def _histogram(score: ScoreRecord, chart: HistogramChart, index: int) -> str:
    told = f"{score.count:,} values from {format_value(score.minimum)} to {format_value(score.maximum)}"
    told += f", mean {format_value(score.mean)}" + "".join(f"; threshold {mark.label}" for mark in chart.thresholds)
    if chart.passing:
        left, right = chart.passing
        clip = f'<rect x="{left}" y="0" width="{max(right - left, 0)}" height="190"/>'
        bars = f"""<clipPath id="pass-{index}">{clip}</clipPath>
<path class="bars dropped" d="{chart.path}"/>
<path class="bars kept" d="{chart.path}" clip-path="url(#pass-{index})"/>"""
    else:
        bars = f'<path class="bars plain" d="{chart.path}"/>'
    ticks = "".join(
        f'<path class="axis" d="M{tick.x} 164.5v4"/>\n'
        f'<text class="tick" x="{tick.x}" y="181" text-anchor="middle">{text(tick.label)}</text>\n'
        for tick in chart.ticks
    )
    marks = "".join(
        f'<path class="threshold" d="M{mark.x} {18 + 14 * mark.row}V164"/>\n'
        f'<text class="mark" x="{mark.x}" y="{13 + 14 * mark.row}" '
        f'text-anchor="{mark.anchor}">{text(mark.label)}</text>\n'
        for mark in chart.thresholds
    )
    return f"""<svg viewBox="0 0 360 190" role="img" aria-labelledby="hist-{index}-title hist-{index}-desc">
<title id="hist-{index}-title">Histogram of {text(score.name)}</title>
<desc id="hist-{index}-desc">{text(told)}.</desc>
{bars}
<path class="axis" d="M6 164.5H354"/>
{ticks}{marks}</svg>"""


def _examples(rules: Sequence[RuleRecord], groups: Sequence[ExampleGroup]) -> str:
    articles = []
    for rule in rules:
        mine = sorted((g for g in groups if g.rule == rule.name and g.rows), key=lambda group: group.side)
        if mine:
            sides = "".join(_side(rule, group) for group in mine)
            articles.append(f"""<article>
<h3>{text(rule.description)} <code>{text(rule.name)}</code></h3>
<div class="sides{" single" if len(mine) == 1 else ""}">
{sides}</div>
</article>
""")
    if not articles:
        return ""
    return f"""<section aria-labelledby="examples">
<h2 id="examples">Rows on either side</h2>
<p class="note">Of a sample of the pool: the rows nearest to each threshold, or a few that a rule without threshold \
dropped. Pictures are shown where the pool has them.</p>
{"".join(articles)}</section>

"""


def _side(rule: RuleRecord, group: ExampleGroup) -> str:
    heading, dropped = _side_heading(rule, group)
    return f"""<div>
<h4 class="{"is-dropped" if dropped else "is-kept"}">{text(heading)}</h4>
<ul class="rows">
{"".join(_example(row) for row in group.rows)}</ul>
</div>
"""


def _side_heading(rule: RuleRecord, group: ExampleGroup) -> tuple[str, bool]:
    """What is said above the rows of one side, and whether the rule drops them."""
    if rule.threshold is None or rule.score is None:
        return "Dropped", True
    dropped = group.side == (rule.drops or "below")
    touches = "at or " if any(row.value == rule.threshold for row in group.rows) else ""
    place = f"{touches}just {group.side} {format_value(rule.threshold)}"
    return f"{place[0].upper()}{place[1:]}: {'dropped' if dropped else 'passed'}", dropped


def _example(row: ExampleRow) -> str:
    if row.caption is None:
        caption = '<p class="caption quiet">no caption</p>'
    else:
        caption = f'<p class="caption" dir="auto">{text(shortened(row.caption, CAPTION_CHARS))}</p>'
    value = "" if row.value is None else f'<span class="figure">{text(format_value(row.value, 6))}</span> '
    url = f' <span class="url">{text(shortened(row.url, URL_CHARS))}</span>' if row.url else ""
    return f"""<li>
{picture(row.image, row.image_note, 64)}
<div>
{caption}
<p class="where">{value}<code>{text(row.uid)}</code>{url}</p>
</div>
</li>
"""


def _unjudged(records: Sequence[UnjudgedRecord]) -> str:
    if records:
        body = f"""<table class="wide">
<thead><tr><th scope="col">rule</th><th scope="col">reason</th><th scope="col" class="num">rows</th>\
<th scope="col">policy</th><th scope="col">first seen</th></tr></thead>
<tbody>
{"".join(_unjudged_row(record) for record in records)}</tbody>
</table>
"""
    else:
        body = '<p class="note">Every row that reached a rule could be judged by it.</p>\n'
    return f"""<section aria-labelledby="unjudged">
<h2 id="unjudged">What could not be judged</h2>
{body}</section>

"""


def _unjudged_row(record: UnjudgedRecord) -> str:
    place = "–"
    if record.first is not None:
        place = f"row {record.first.row:,} of <code>{text(record.first.shard)}</code>"
    return f"""<tr>
<th scope="row" data-label="rule"><code>{text(record.rule)}</code></th>
<td data-label="reason">{text(record.reason)}</td>
<td data-label="rows" class="num">{record.count:,}</td>
<td data-label="policy"><span class="tag">{text(record.policy)}</span></td>
<td data-label="first seen"><span>{place}</span></td>
</tr>
"""


def _run(manifest: Manifest) -> str:
    memory, pool = manifest.memory, manifest.pool
    longest = max((stage.seconds for stage in manifest.stages), default=0.0) or 1.0
    memory_facts = description_rows(
        [
            ("peak", text(format_bytes(memory.peak_bytes))),
            ("cap", text(format_bytes(memory.cap_bytes))),
            ("workers", f"{memory.workers}"),
        ]
    )
    memory_bar = ""
    if memory.peak_bytes is not None:
        used = min(100 * memory.peak_bytes / max(memory.cap_bytes, 1), 100)
        memory_bar = (
            '<svg class="bar" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" '
            f'aria-label="peak memory is {used:.0f} percent of the cap"><rect class="gone" width="100" height="20"/>'
            f'<rect class="plain" width="{used:.2f}" height="20"/></svg>\n'
        )
    sha256 = manifest.subset.sha256
    inputs = description_rows(
        [
            ("layout", text(pool.layout)),
            ("rows", f"{pool.rows:,} in {count(pool.shards, 'shard')}"),
            ("uids", "stored in the pool" if pool.uid_source == "column" else "made from shard path and row"),
            ("fingerprint", f"<code>{text(pool.fingerprint)}</code>"),
            *([("subset sha256", f"<code>{text(sha256)}</code>")] if sha256 else []),
        ]
    )
    versions = description_rows(
        [
            ("pycurate", text(manifest.pycurate)),
            *((LABELS.get(name, name), text(value)) for name, value in manifest.environment),
        ]
    )
    return f"""<section aria-labelledby="run">
<h2 id="run">The run</h2>
<div class="grid">
<div class="card">
<h3>Time</h3>
<table>
<thead><tr><th scope="col">stage</th><th scope="col" class="num">seconds</th>\
<th scope="col" class="num">read or written</th><th scope="col" class="num">reused</th></tr></thead>
<tbody>
{"".join(_stage(stage, longest) for stage in manifest.stages)}</tbody>
</table>
</div>
<div class="card">
<h3>Memory</h3>
<dl class="list">
{memory_facts}</dl>
{memory_bar}<h3>Input</h3>
<dl class="list">
{inputs}</dl>
</div>
<div class="card">
<h3>Versions</h3>
<dl class="list">
{versions}</dl>
</div>
</div>
</section>

"""


def _stage(stage: StageRecord, longest: float) -> str:
    return f"""<tr>
<th scope="row">{text(stage.name)}<svg class="bar thin" viewBox="0 0 100 4" preserveAspectRatio="none" \
aria-hidden="true"><rect class="gone" width="100" height="4"/>\
<rect class="plain" width="{100 * stage.seconds / longest:.2f}" height="4"/></svg></th>
<td class="num">{text(format_seconds(stage.seconds))}</td>
<td class="num">{text(format_bytes(stage.bytes)) if stage.bytes else "–"}</td>
<td class="num">{f"{stage.reused:,}" if stage.reused else "–"}</td>
</tr>
"""


def _recipe(manifest: Manifest) -> str:
    return f"""<section aria-labelledby="recipe">
<h2 id="recipe">The recipe</h2>
<p class="note">Its hash is <code>{text(manifest.recipe.hash)}</code>. Saved as a YAML file it repeats this run.</p>
<pre tabindex="0" aria-label="Recipe as YAML">{text(manifest.recipe.yaml)}</pre>
</section>
"""
