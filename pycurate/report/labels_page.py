"""``report.html`` of the ``labels`` commands: a heat map of classes, figures of each, rows to look at. No scripts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pycurate.report.formats import format_share, format_value
from pycurate.report.manifest import ExampleRow
from pycurate.report.markup import page, picture, shortened, text

MOST_CLASSES = 30  # of a heat map; of more, those with the most rows off the diagonal
_NUMBERED_CLASSES = 12  # of a heat map whose cells have room for numbers
_CELL, _LEAST_MARGIN, _CHAR = 34.0, 68.0, 6.4
_DARK = 0.75  # from which on a cell's number is light
_FAINTEST = 0.16  # of a cell with rows: a single one must be seen
_NAME_CHARS, _CAPTION_CHARS, _URL_CHARS, _THUMBNAIL = 17, 200, 100, 64


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Counts (K, K), rows against columns; each row is shown as shares of its sum."""

    title: str
    note: str
    row_kind: str  # "labelled"
    column_kind: str  # "likely"
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text; those of the first column are left-aligned, of the others figures."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ShownNeighbor:
    """A neighbour of a row: its label, None without one, and similarity."""

    label: str | None
    similarity: float


@dataclass(frozen=True, slots=True)
class SuspiciousRow:
    """A row to look at, with what it is labelled and what it likely is."""

    row: ExampleRow
    label: str
    suggested: str
    score: float
    neighbors: tuple[ShownNeighbor, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelsPage:
    """What a page shows, in order."""

    title: str
    lead: str
    figures: tuple[tuple[str, str], ...]  # name and value, the main one first
    notes: tuple[str, ...]
    heat_map: HeatMap | None
    class_names: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    rows: tuple[SuspiciousRow, ...] = field(default=())
    rows_note: str = ""


def render_labels(shown: LabelsPage) -> str:
    """The page as text. Names, captions and links are hostile input: all text is escaped."""
    figures = "".join(
        f"<div{' class=main' if i == 0 else ''}><dt>{text(name)}</dt><dd>{text(value)}</dd></div>\n"
        for i, (name, value) in enumerate(shown.figures)
    )
    notes = "".join(f'<p class="note">{text(note)}</p>\n' for note in shown.notes)
    body = f"""<p class="brand">pycurate <span class="quiet">labels</span></p>
<h1>{text(shown.title)}</h1>
<p class="lead">{text(shown.lead)}</p>
<dl class="headline">
{figures}</dl>
{notes}{_heat_map(shown)}
{"".join(_table(table, number) for number, table in enumerate(shown.tables))}
{_rows(shown)}"""
    return page(shown.title, body)


def shown_classes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The classes of a heat map, rising: all, or the 30 with the most rows off the diagonal."""
    off = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-off, kind="stable")[:MOST_CLASSES])


def _heat_map(shown: LabelsPage) -> str:
    heat = shown.heat_map
    if heat is None or not heat.counts.size:
        return ""
    classes = shown_classes(heat.counts)
    note = heat.note
    if len(classes) < len(heat.counts):
        note += f" Of {len(heat.counts):,} classes those {len(classes)} with the most rows off the diagonal."
    longest = max(len(shortened(shown.class_names[k], _NAME_CHARS)) for k in classes.tolist())
    margin = max(_LEAST_MARGIN, 16 + _CHAR * longest)
    width = margin + _CELL * len(classes) + 8 + 0.5 * _CHAR * longest  # the turned names lean over the last column
    height = margin + _CELL * len(classes) + 4
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width: {max(width * 1.25, 420):g}px"'
    parts = [
        f'<text class="tick" x="{margin - 8:g}" y="{margin - 8:g}" text-anchor="end">{text(heat.row_kind)} ↓</text>',
        f'<text class="tick" x="{margin - 8:g}" y="14" text-anchor="end">{text(heat.column_kind)} →</text>',
    ]
    for place, k in enumerate(classes.tolist()):
        middle = margin + _CELL * (place + 0.5)
        name = text(shortened(shown.class_names[k], _NAME_CHARS))
        parts.append(f'<text class="tick" x="{margin - 8:g}" y="{middle + 4:g}" text-anchor="end">{name}</text>')
        turned = f'transform="rotate(-60 {middle:g} {margin - 8:g})"'
        parts.append(f'<text class="tick" x="{middle:g}" y="{margin - 8:g}" {turned}>{name}</text>')
    for i, given in enumerate(classes.tolist()):
        total = int(heat.counts[given].sum())
        for j, other in enumerate(classes.tolist()):
            parts.append(
                _cell(shown, i, j, int(heat.counts[given, other]), total, (given, other), (margin, len(classes)))
            )
    cells = "\n".join(parts)
    return f"""<section aria-labelledby="heat">
<h2 id="heat">{text(heat.title)}</h2>
<p class="note">{text(note)}</p>
<figure>
<svg {size} role="img" aria-label="{text(heat.title)}">
{cells}
</svg>
</figure>
</section>"""


def _cell(
    shown: LabelsPage, i: int, j: int, rows: int, total: int, pair: tuple[int, int], frame: tuple[float, int]
) -> str:
    margin, classes = frame
    share = rows / total if total else 0.0
    x, y = margin + _CELL * j, margin + _CELL * i
    tone = "kept" if pair[0] == pair[1] else "dropped"
    # Square roots: one row in a hundred must still be seen beside the diagonal.
    strength = round(max(share**0.5, _FAINTEST), 3)
    names = f"{shown.class_names[pair[0]]} → {shown.class_names[pair[1]]}"
    told = f"{names}: {rows:,} of {total:,}, {format_share(rows, total)}"
    box = f'<rect x="{x + 1:g}" y="{y + 1:g}" width="{_CELL - 2:g}" height="{_CELL - 2:g}" rx="3"'
    parts = [f'<g><title>{text(told)}</title>{box} class="gone"/>']
    if rows:
        parts.append(f'{box} class="{tone}" fill-opacity="{strength:g}"/>')
        if classes <= _NUMBERED_CLASSES:
            middle = f'x="{x + _CELL / 2:g}" y="{y + _CELL / 2 + 3:g}" text-anchor="middle"'
            ink = "paper" if tone == "kept" and strength > _DARK else "ink"
            parts.append(
                f'<text class="tick" style="font-size: 9px; fill: var(--{ink})" {middle}>{_short(rows)}</text>'
            )
    return "".join(parts) + "</g>"


def _short(rows: int) -> str:
    """At most four characters."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if rows >= unit:
            return f"{rows / (1000 if letter == 'k' else unit):.3g}{letter}"
    return str(rows)


def _table(table: Table, number: int) -> str:
    if not table.rows:
        return ""
    header = "".join(f"<th{' class=num' if i else ''}>{text(name)}</th>" for i, name in enumerate(table.header))
    body = "".join(
        "<tr>" + "".join(f"<td{' class=num' if i else ''}>{text(cell)}</td>" for i, cell in enumerate(row)) + "</tr>\n"
        for row in table.rows
    )
    note = f'<p class="note">{text(table.note)}</p>\n' if table.note else ""
    return f"""<section aria-labelledby="table{number}">
<h2 id="table{number}">{text(table.title)}</h2>
{note}<div class="card">
<table>
<thead><tr>{header}</tr></thead>
<tbody>
{body}</tbody>
</table>
</div>
</section>
"""


def _rows(shown: LabelsPage) -> str:
    if not shown.rows:
        return ""
    body = "".join(_row(row) for row in shown.rows)
    return f"""<section aria-labelledby="rows">
<h2 id="rows">Most suspicious rows</h2>
<p class="note">{text(shown.rows_note)}</p>
<div class="card sides single">
<ul class="rows">
{body}</ul>
</div>
</section>
"""


def _row(shown: SuspiciousRow) -> str:
    row = shown.row
    image = picture(row.image, row.image_note, _THUMBNAIL) if row.image or row.image_note else ""
    caption = ""
    if row.caption is not None:
        caption = f'<p class="caption" dir="auto">{text(shortened(row.caption, _CAPTION_CHARS))}</p>\n'
    url = f' <span class="url">{text(shortened(row.url, _URL_CHARS))}</span>' if row.url else ""
    near = ""
    if shown.neighbors:
        told = ", ".join(f"{n.label or 'no label'} ({format_value(n.similarity, 3)})" for n in shown.neighbors)
        near = f'<p class="where">neighbours: {text(told)}</p>\n'
    return f"""<li>
{image}<div>
<p><span class="is-dropped">{text(shown.label)}</span> → <span class="is-kept">{text(shown.suggested)}</span></p>
{caption}<p class="where"><span class="figure">{format_value(shown.score)}</span><code>{text(row.uid)}</code>{url}</p>
{near}</div>
</li>
"""
