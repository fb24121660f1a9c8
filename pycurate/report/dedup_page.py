"""``curve.html``: how many rows each threshold keeps, and pairs that it just still joins. One file without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pycurate.report.formats import format_share, format_value
from pycurate.report.manifest import ExampleRow
from pycurate.report.markup import page

WIDTH, HEIGHT = 760.0, 288.0
LEFT, RIGHT, TOP, BASE = 52.0, 744.0, 26.0, 236.0
_CAPTION_CHARS, _URL_CHARS = 200, 100


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Rows that are kept at one threshold."""

    threshold: float
    kept: int

    @property
    def eps(self) -> float:
        """1 - threshold, without the noise of the subtraction."""
        return round(1 - self.threshold, 9)


@dataclass(frozen=True, slots=True)
class PairExample:
    """Two rows at or above a threshold: the later one may go in favour of the earlier one."""

    threshold: float
    similarity: float
    later: ExampleRow
    earlier: ExampleRow


def render_curve(
    title: str, note: str, rows: int, points: Sequence[CurvePoint], shown: Sequence[CurvePoint],
    chosen: CurvePoint | None, pairs: Sequence[PairExample],
) -> str:  # fmt: skip
    """The page as text. Captions and links are hostile input: all text is escaped.

    Parameters
    ----------
    title, note
        What was looked for, and what a reader must know of it.
    rows
        Of the pool.
    points
        Of the curve, eps rising.
    shown
        Those of the table.
    chosen
        The threshold of the last run.
    pairs
        Examples, by threshold.
    """
    body = f"""<p class="brand">pycurate <span class="quiet">duplicates</span></p>
<h1>{escape(title)}</h1>
<p class="lead">{escape(note)}</p>
<section aria-labelledby="curve">
<h2 id="curve">Rows kept at each threshold</h2>
<p class="note">Any eps on this curve is one command and no new search.</p>
<figure>
{_chart(rows, points, chosen)}
</figure>
</section>
<section aria-labelledby="table">
<h2 id="table">In numbers</h2>
<div class="card">
{_table(rows, shown, chosen)}
</div>
</section>
{_examples(shown, pairs)}"""
    return page(title, body)


def share_floor(rows: int, points: Sequence[CurvePoint]) -> float:
    """Where the chart's axis of kept shares begins: 0, or a round share below the least."""
    least = min((point.kept for point in points), default=rows) / max(rows, 1)
    for step in (0.001, 0.01, 0.05, 0.1, 0.25):
        low = math.floor(least / step - 0.2) * step
        if 1 - low <= 5 * step:
            return max(0.0, low)
    return 0.0


def _chart(rows: int, points: Sequence[CurvePoint], chosen: CurvePoint | None) -> str:
    low = share_floor(rows, points)
    widest = max((point.eps for point in points), default=0.0) or 1.0

    def x(eps: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * eps / widest, 2)

    def y(share: float) -> float:
        return round(BASE - (BASE - TOP) * (share - low) / (1 - low), 2)

    total = max(rows, 1)
    path = "".join(f"{'L' if i else 'M'}{x(p.eps)} {y(p.kept / total)}" for i, p in enumerate(points))
    parts = []
    for i in range(6):
        share = low + (1 - low) * i / 5
        parts.append(f'<path class="grid-line" d="M{LEFT} {y(share)}H{RIGHT}"/>')
        label = f"{100 * share:.4g} %"
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(share) + 4}" text-anchor="end">{label}</text>')
    for i in range(6):
        eps = widest * i / 5
        anchor = "end" if i == 5 else "middle"
        parts.append(f'<path class="axis" d="M{x(eps)} {BASE}v5"/>')
        parts.append(f'<text class="tick" x="{x(eps)}" y="{BASE + 20}" text-anchor="{anchor}">{eps:.4g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {BASE}H{RIGHT}"/>')
    parts.append(
        f'<text class="tick" x="{(LEFT + RIGHT) / 2}" y="{BASE + 44}" text-anchor="middle">'
        "eps = 1 − similarity at which a row is removed</text>"
    )
    if len(points) > 1:
        parts.append(f'<path class="curve" d="{path}"/>')
    if chosen is not None:
        px, py = x(chosen.eps), y(chosen.kept / total)
        anchor = "start" if px < WIDTH * 0.7 else "end"
        shift = 10 if anchor == "start" else -10
        label = f"eps {format_value(chosen.eps)}: {format_share(chosen.kept, rows)} kept"
        parts.append(f'<path class="threshold" d="M{px} {TOP - 8}V{BASE}"/>')
        parts.append(f'<circle class="kept ringed" cx="{px}" cy="{py}" r="5"/>')
        parts.append(f'<text class="mark" x="{px + shift}" y="{TOP - 12}" text-anchor="{anchor}">{label}</text>')
    told = "; ".join(
        f"eps {format_value(p.eps)}: {format_share(p.kept, rows)}" for p in points[:: max(1, len(points) // 8)]
    )
    body = "\n".join(parts)
    return f"""<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-labelledby="curve-title curve-desc">
<title id="curve-title">Share of rows kept, by eps</title>
<desc id="curve-desc">{escape(told)}.</desc>
{body}
</svg>"""


def _table(rows: int, shown: Sequence[CurvePoint], chosen: CurvePoint | None) -> str:
    body = "".join(
        f"<tr><td>{format_value(p.eps)}{' <span class=tag>last run</span>' if p == chosen else ''}</td>"
        f'<td class="num">{format_value(p.threshold)}</td><td class="num">{p.kept:,}</td>'
        f'<td class="num">{rows - p.kept:,}</td><td class="num">{format_share(p.kept, rows)}</td></tr>\n'
        for p in shown
    )
    return f"""<table>
<thead><tr><th>eps</th><th class="num">similarity</th><th class="num">kept</th><th class="num">removed</th>
<th class="num">kept of all</th></tr></thead>
<tbody>
{body}</tbody>
</table>"""


def _examples(shown: Sequence[CurvePoint], pairs: Sequence[PairExample]) -> str:
    articles = []
    for point in shown:
        mine = [pair for pair in pairs if pair.threshold == point.threshold]
        if mine:
            body = "".join(_pair(pair) for pair in mine)
            articles.append(
                f"<article>\n<h3>eps {format_value(point.eps)} <code>similarity from "
                f"{format_value(point.threshold)} on</code></h3>\n{body}</article>\n"
            )
    if not articles:
        return ""
    return f"""<section aria-labelledby="pairs">
<h2 id="pairs">The least similar pairs that each threshold still joins</h2>
<p class="note">If these are not duplicates to you, eps is too large.</p>
{"".join(articles)}</section>
"""


def _pair(pair: PairExample) -> str:
    return f"""<div class="sides">
<div><h4 class="is-dropped">later row, at {format_value(pair.similarity, 5)}</h4>
<ul class="rows">{_row(pair.later)}</ul></div>
<div><h4 class="is-kept">earlier row</h4>
<ul class="rows">{_row(pair.earlier)}</ul></div>
</div>
"""


def _row(row: ExampleRow) -> str:
    if row.image:
        picture = f'<img src="data:image/jpeg;base64,{escape(row.image)}" alt="" width="64" height="64">'
    else:
        picture = f'<span class="no-image">{escape(row.image_note or "no picture")}</span>'
    caption = '<p class="caption quiet">no caption</p>'
    if row.caption is not None:
        caption = f'<p class="caption" dir="auto">{escape(row.caption[:_CAPTION_CHARS])}</p>'
    url = f' <span class="url">{escape(row.url[:_URL_CHARS])}</span>' if row.url else ""
    return (
        f'<li>\n{picture}\n<div>\n{caption}\n<p class="where"><code>{escape(row.uid)}</code>{url}</p>\n</div>\n</li>\n'
    )
