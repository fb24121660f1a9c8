"""Geometry of the report's charts, in the units of their SVG view boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from pycurate.report.formats import format_value
from pycurate.report.manifest import HistogramRecord, RuleRecord, ScoreRecord, Side, StepRecord

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BASE = 10.0, 350.0, 40.0, 164.0
TAIL_WIDTH, TAIL_GAP = 10.0, 6.0
FUNNEL_WIDTH = 1000.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a funnel bar; ``rule`` is the number of the rule that dropped these rows, None for those kept."""

    x: float
    width: float
    rule: int | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled place on the x axis; ``anchor`` is SVG's text-anchor, ``row`` the line that its label stands on."""

    x: float
    label: str
    anchor: str = "middle"
    row: int = 0


@dataclass(frozen=True, slots=True)
class HistogramChart:
    """An area per histogram (SVG path), its axis, thresholds, and the x range of what the thresholds let pass."""

    path: str
    ticks: tuple[Mark, ...]
    thresholds: tuple[Mark, ...]
    passing: tuple[float, float] | None
    tails: tuple[str, ...]


def funnel_segments(step: StepRecord, rows: int) -> tuple[Segment, ...]:
    """The bar of one step: kept rows first, then those that each rule dropped; the pool's ``rows`` fill its width."""
    scale = FUNNEL_WIDTH / max(rows, 1)
    segments = [Segment(0.0, step.kept * scale, None)]
    for number, rule in enumerate(step.rules):
        start = segments[-1].x + segments[-1].width
        segments.append(Segment(start, rule.dropped * scale, number))
    return tuple(segment for segment in segments if segment.width > 0)


def histogram_chart(score: ScoreRecord, rules: Sequence[RuleRecord]) -> HistogramChart | None:
    """The chart of one score column, None where it has no values.

    Bars show density (rows per unit of score), since bins differ in width. An end bin much wider than the others is
    drawn apart, as if it were as wide as they are, so that a few far values do not press the rest together.
    """
    if score.histogram is None or not score.histogram.counts:
        return None
    axis, bars, tails = _layout(score.histogram)
    highest = max(height for _, _, height in bars) or 1.0
    pieces = [_bar(x0, x1, min(height / highest, 1.0)) for x0, x1, height in bars]
    whole = _is_whole(score.histogram)
    sides = {rule.threshold: rule.drops for rule in rules if rule.score == score.name}
    borders = {value: _border(value, sides.get(value), whole) for value in sorted(set(score.thresholds))}
    marks = tuple(
        _threshold_mark(axis.place(border), value, row) for row, (value, border) in enumerate(borders.items())
    )
    low = max((b for value, b in borders.items() if sides.get(value) == "below"), default=-math.inf)
    high = min((b for value, b in borders.items() if sides.get(value) == "above"), default=math.inf)
    passing = None
    if low > -math.inf or high < math.inf:
        passing = (axis.place(low), axis.place(high))
    ticks = tuple(Mark(axis.place(value), format_value(value)) for value in _nice_ticks(axis.low, axis.high))
    return HistogramChart("".join(pieces), ticks, marks, passing, tails)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    x0: float
    x1: float

    def place(self, value: float) -> float:
        if value <= self.low:
            return self.x0 if value == self.low else LEFT
        if value >= self.high:
            return self.x1 if value == self.high else RIGHT
        return round(self.x0 + (value - self.low) / (self.high - self.low) * (self.x1 - self.x0), 2)


def _layout(histogram: HistogramRecord) -> tuple[_Axis, list[tuple[float, float, float]], tuple[str, ...]]:
    edges, counts = histogram.edges, histogram.counts
    widths = [b - a for a, b in pairwise(edges)]
    usual = median(widths) or 1.0
    first = 1 if len(widths) > 2 and widths[0] > 4 * usual else 0
    last = len(widths) - (1 if len(widths) > 2 and widths[-1] > 4 * usual else 0)
    axis = _Axis(
        edges[first],
        edges[last],
        LEFT + (TAIL_WIDTH + TAIL_GAP) * first,
        RIGHT - (TAIL_WIDTH + TAIL_GAP) * (len(widths) - last),
    )
    bars = [
        (axis.place(edges[i]), axis.place(edges[i + 1]), counts[i] / (widths[i] or 1.0)) for i in range(first, last)
    ]
    tails = []
    if first:
        bars.insert(0, (LEFT, LEFT + TAIL_WIDTH, counts[0] / usual))
        tails.append(f"{counts[0]:,} rows below {format_value(edges[1])}, down to {format_value(edges[0])}")
    if last < len(widths):
        bars.append((RIGHT - TAIL_WIDTH, RIGHT, counts[-1] / usual))
        tails.append(f"{counts[-1]:,} rows above {format_value(edges[-2])}, up to {format_value(edges[-1])}")
    core = max((height for _, _, height in bars[first : first + last]), default=0.0) or 1.0
    return axis, [(a, b, min(height, core)) for a, b, height in bars], tuple(tails)


def _bar(x0: float, x1: float, height: float) -> str:
    top = BASE - (BASE - TOP) * height
    return f"M{x0:.2f} {BASE:g}V{top:.2f}H{x1:.2f}V{BASE:g}Z" if height > 0 else ""


def _is_whole(histogram: HistogramRecord) -> bool:
    """True for the bins of whole numbers, which begin and end halfway between two of them."""
    return all(edge % 1 == 0.5 for edge in histogram.edges)


def _border(threshold: float, drops: Side | None, whole: bool) -> float:
    """Where what passes ends: beside the bar of the threshold's own number, which always passes."""
    if not whole or threshold % 1 or drops is None:
        return threshold
    return threshold - 0.5 if drops == "below" else threshold + 0.5


def _threshold_mark(x: float, value: float, row: int) -> Mark:
    anchor = "start" if x < WIDTH / 4 else "end" if x > WIDTH * 3 / 4 else "middle"
    return Mark(x, format_value(value), anchor, row % 2)


def _nice_ticks(low: float, high: float) -> list[float]:
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
