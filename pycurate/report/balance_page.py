"""``balance.html``: how many rows each class has, before and after balancing. One file without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pycurate.ops.selection.imbalance import COMMON, RARE, ClassImbalance
from pycurate.report.formats import format_share, format_value
from pycurate.report.markup import page, text

WIDTH, HEIGHT = 760.0, 288.0
LEFT, RIGHT, TOP, BASE = 62.0, 744.0, 26.0, 236.0
_POINTS = 240


def figures(imbalance: ClassImbalance) -> list[tuple[str, str]]:
    """Names and values of the figures, for people."""
    labelled = imbalance.rows - imbalance.unlabelled
    return [
        ("rows with a label", f"{labelled:,}"),
        ("rows without one", f"{imbalance.unlabelled:,}"),
        ("classes", f"{imbalance.classes:,}"),
        ("rows of the largest", f"{imbalance.largest:,} ({format_share(imbalance.largest, labelled)})"),
        ("rows of the median", format_value(imbalance.median)),
        ("rows of the smallest", f"{imbalance.smallest:,}"),
        ("largest / smallest", format_value(imbalance.ratio)),
        ("effective classes, exp(entropy)", format_value(imbalance.effective_classes)),
        ("evenness, entropy / ln(classes)", format_value(imbalance.evenness)),
        ("inverse Simpson", format_value(imbalance.inverse_simpson)),
        ("Gini", format_value(imbalance.gini)),
        ("classes that hold half of the rows", f"{imbalance.half:,}"),
        ("rows in the largest tenth of classes", f"{100 * imbalance.top_tenth_share:.1f} %"),
        (f"classes of at most {RARE} rows", f"{imbalance.rare:,}"),
        (f"classes of {RARE + 1} to {COMMON} rows", f"{imbalance.common:,}"),
        (f"classes of more than {COMMON} rows", f"{imbalance.frequent:,}"),
    ]


def render_balance(
    title: str,
    note: str,
    before: ClassImbalance,
    sizes: Sequence[int],
    after: ClassImbalance | None = None,
    after_sizes: Sequence[int] | None = None,
) -> str:
    """The page as text. Class names are hostile input: all text is escaped.

    Parameters
    ----------
    title, note
        What was counted, and by which rule rows were kept.
    before, after
        Figures of all rows, and of those kept; None where nothing was chosen.
    sizes, after_sizes
        Rows of each class, in any order.
    """
    labels = ["all rows"] + (["kept"] if after is not None else [])
    legend = "".join(
        f'<span><span class="swatch {shade}"></span>{name}</span>'
        for name, shade in zip(labels, ("tone0", "kept"), strict=False)
    )
    body = f"""<p class="brand">pycurate <span class="quiet">classes</span></p>
<h1>{text(title)}</h1>
<p class="lead">{text(note)}</p>
<section aria-labelledby="curve">
<h2 id="curve">Rows of each class, largest first</h2>
<p class="note">Both axes are logarithmic: a straight line is a power law, a level one is balance.</p>
<p class="legend">{legend}</p>
<figure>
{_chart(sizes, after_sizes)}
</figure>
</section>
<section aria-labelledby="figures">
<h2 id="figures">In figures</h2>
<div class="card">
{_table(before, after)}
</div>
</section>
<section aria-labelledby="ends">
<h2 id="ends">Largest and smallest classes</h2>
<div class="sides">
{_ends("All rows", before)}{"" if after is None else _ends("Kept", after)}</div>
</section>
"""
    return page(title, body)


def _chart(sizes: Sequence[int], after: Sequence[int] | None) -> str:
    falling = sorted((size for size in sizes if size), reverse=True)
    most, classes = falling[0], len(falling)

    def x(rank: int) -> float:
        return round(LEFT + (RIGHT - LEFT) * (math.log(rank) / math.log(classes) if classes > 1 else 0.5), 2)

    def y(rows: int) -> float:
        return round(BASE - (BASE - TOP) * (math.log(rows) / math.log(most) if most > 1 else 0.0), 2)

    parts = []
    for power in range(math.floor(math.log10(most)) + 1):
        height = y(10**power)
        parts.append(f'<path class="grid-line" d="M{LEFT} {height}H{RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{height + 4}" text-anchor="end">{10**power:,}</text>')
    for power in range(math.floor(math.log10(classes)) + 1):
        parts.append(f'<path class="axis" d="M{x(10**power)} {BASE}v5"/>')
        parts.append(f'<text class="tick" x="{x(10**power)}" y="{BASE + 20}" text-anchor="middle">{10**power:,}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {BASE}H{RIGHT}"/>')
    parts.append(
        f'<text class="tick" x="{(LEFT + RIGHT) / 2}" y="{BASE + 44}" text-anchor="middle">rank of the class</text>'
    )
    for shade, values in (("curve before", falling), ("curve", sorted((s for s in after or () if s), reverse=True))):
        if values:
            points = [(x(rank), y(values[rank - 1])) for rank in _ranks(len(values))]
            path = "".join(f"{'L' if i else 'M'}{px} {py}" for i, (px, py) in enumerate(points))
            parts.append(f'<path class="{shade}" d="{path}h0.01"/>')  # a single class is a dot
    told = f"From {falling[0]:,} rows in the largest class to {falling[-1]:,} in the smallest of {classes:,}."
    body = "\n".join(parts)
    return f"""<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-labelledby="curve-title curve-desc">
<title id="curve-title">Rows of each class by its rank</title>
<desc id="curve-desc">{told}</desc>
{body}
</svg>"""


def _ranks(count: int) -> list[int]:
    """Ranks from 1 to ``count`` that look evenly spaced on a logarithmic axis."""
    if count <= _POINTS:
        return list(range(1, count + 1))
    return sorted({round(count ** (i / (_POINTS - 1))) for i in range(_POINTS)})


def _table(before: ClassImbalance, after: ClassImbalance | None) -> str:
    kept = [""] * len(figures(before)) if after is None else [value for _, value in figures(after)]
    rows = "".join(
        f'<tr><td>{text(name)}</td><td class="num">{text(value)}</td>'
        + ("" if after is None else f'<td class="num">{text(new)}</td>')
        + "</tr>\n"
        for (name, value), new in zip(figures(before), kept, strict=True)
    )
    head = "" if after is None else '<th class="num">kept</th>'
    return f"""<table>
<thead><tr><th></th><th class="num">all rows</th>{head}</tr></thead>
<tbody>
{rows}</tbody>
</table>"""


def _ends(title: str, imbalance: ClassImbalance) -> str:
    def listed(classes: Sequence[tuple[str, int]]) -> str:
        return "".join(f"<div><dt>{text(name)}</dt><dd>{rows:,}</dd></div>\n" for name, rows in classes)

    parts = f'<dl class="list">\n{listed(imbalance.head)}</dl>'
    if imbalance.classes > len(imbalance.head):
        parts += f'<h3>smallest</h3><dl class="list">\n{listed(imbalance.tail)}</dl>'
    return f'<div class="card"><h3>{text(title)}: largest</h3>{parts}</div>\n'
