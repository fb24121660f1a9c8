"""``dedup_curve``: how many rows each threshold of a stored search keeps, with pairs that it just still joins."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pycurate.api.dedup_outputs import MANIFEST, hex_of
from pycurate.api.dedup_store import DuplicateStore
from pycurate.api.examples import read_shown, shown_columns
from pycurate.errors import PoolError
from pycurate.io.atomic import atomic_write
from pycurate.io.pool import Pool, open_pool
from pycurate.kernels.distinct import Floats, Indices
from pycurate.ops.dedup.removal import reaches
from pycurate.report.dedup_page import CurvePoint, PairExample, render_curve, share_floor
from pycurate.report.formats import format_share, format_value
from pycurate.report.manifest import ExampleRow

if TYPE_CHECKING:
    from rich.console import RenderableType

CURVE = "curve.html"
POINTS = 64
SHOWN = 8
_BAR = 40  # characters


@dataclass(frozen=True, slots=True, eq=False)
class DedupCurve:
    """Kept rows by threshold."""

    page: Path
    rows: int
    removal: str
    points: tuple[CurvePoint, ...]  # eps rising
    shown: tuple[CurvePoint, ...]  # of them those that people are told
    chosen: CurvePoint | None  # of the last run in the folder
    pairs: tuple[PairExample, ...]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        pairs = [
            {
                "threshold": pair.threshold,
                "similarity": pair.similarity,
                "later": pair.later.model_dump(include={"uid", "caption", "url"}),
                "earlier": pair.earlier.model_dump(include={"uid", "caption", "url"}),
            }
            for pair in self.pairs
        ]
        points = [{"eps": p.eps, "threshold": p.threshold, "kept": p.kept} for p in self.points]
        return {"rows": self.rows, "removal": self.removal, "note": self.note, "points": points, "pairs": pairs}

    def render(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("eps", "similarity", "kept", "of all"):
            table.add_column(name, justify="right", no_wrap=True)
        low = share_floor(self.rows, self.points)
        table.add_column(f"{100 * low:g} %" + "100 %".rjust(_BAR - len(f"{100 * low:g} %")), no_wrap=True)
        for p in self.shown:
            filled = round(_BAR * (p.kept / max(self.rows, 1) - low) / (1 - low))
            bar = Text("█" * filled, style="cyan" if p == self.chosen else "") + Text("·" * (_BAR - filled), "dim")
            share = format_share(p.kept, self.rows)
            table.add_row(format_value(p.eps), format_value(p.threshold), f"{p.kept:,}", share, bar)
        parts: list[RenderableType] = [Text(self.note, style="dim"), table]
        for p in self.shown:
            mine = [pair for pair in self.pairs if pair.threshold == p.threshold]
            if mine:
                parts.append(Text(f"\nleast similar pairs at eps {format_value(p.eps)}", style="bold"))
            for pair in mine:
                parts.append(Text(f"  {pair.similarity:.4f}  {_told(pair.later)}\n     like  {_told(pair.earlier)}"))
        return Group(*parts, Text(f"\npage     {self.page}"))


def dedup_curve(
    out: str | os.PathLike[str], thresholds: Sequence[float] | None = None, *, examples: int = 2
) -> DedupCurve:
    """Count what each threshold of a finished `pycurate.dedup` keeps, and write ``curve.html`` beside it.

    Reads no embedding; of the pool only the captions, links and pictures of the few rows that are shown.

    Parameters
    ----------
    out
        Folder of the run.
    thresholds
        Similarities at or above the floor. Default: 64 steps from 1 down to the floor, of which 8 are shown.
    examples
        Pairs to show at each threshold: the least similar that it still joins.

    Raises
    ------
    InputError
        There is no finished search, or a threshold is below its floor.
    """
    folder = Path(out)
    store = DuplicateStore(folder)
    last = _last_threshold(folder)
    limits, shown_limits = _limits(store, thresholds, last)
    kept = dict(zip(limits, store.curve(limits).tolist(), strict=True))
    points = tuple(CurvePoint(limit, kept[limit]) for limit in limits)
    shown = tuple(CurvePoint(limit, kept[limit]) for limit in shown_limits)
    chosen = None if last is None or last not in kept else CurvePoint(last, kept[last])
    pairs = _examples(store, shown, examples)
    facts = store.facts
    sign = "above" if store.strict else "at or above"
    note = f"{len(store):,} rows, {facts['mode']} mode, {store.removal} removal of rows with a cosine {sign} 1 - eps."
    if store.only_threshold is not None:
        note += (
            f" Greedy removal went by blocks, since there were more than {facts['max_pairs']:,} pairs: only "
            f"eps {format_value(round(1 - store.only_threshold, 9))} is known."
        )
    title = "Duplicates by threshold"
    page = folder / CURVE
    with atomic_write(page, "file") as file:
        file.write(render_curve(title, note, len(store), points, shown, chosen, pairs).encode())
    return DedupCurve(page, len(store), store.removal, points, shown, chosen, pairs, note)


def _limits(
    store: DuplicateStore, thresholds: Sequence[float] | None, last: float | None
) -> tuple[list[float], list[float]]:
    """All thresholds and those to show, falling."""
    if thresholds is not None:
        chosen = sorted(set(map(float, thresholds)), reverse=True)
        return chosen, chosen
    if store.only_threshold is not None:
        return [store.only_threshold], [store.only_threshold]
    span = 1 - store.floor
    steps = [round(1 - span * i / POINTS, 9) for i in range(POINTS)] + [store.floor]
    shown = [steps[i * POINTS // SHOWN] for i in range(SHOWN + 1)]
    known = [] if last is None else [last]
    return sorted({*steps, *known}, reverse=True), sorted({*shown, *known}, reverse=True)


def _last_threshold(folder: Path) -> float | None:
    try:
        value = json.loads((folder / MANIFEST).read_text())["threshold"]
    except (OSError, ValueError, KeyError):
        return None
    return float(value)


def _examples(store: DuplicateStore, shown: Sequence[CurvePoint], count: int) -> tuple[PairExample, ...]:
    """For each threshold the least similar pairs from it on that no threshold before it has shown."""
    rows, partners, near = _joined(store)
    chosen: list[tuple[float, int, int, float]] = []
    above = np.zeros(len(near), bool)
    for point in shown:
        reached = reaches(near, point.threshold, store.strict)
        new = np.flatnonzero(reached & ~above)
        above = reached
        if len(new) > count:
            new = new[np.argpartition(near[new], count)[:count]]
        for i in new[np.lexsort((rows[new], near[new]))].tolist():
            earlier, later = sorted((int(rows[i]), int(partners[i])), key=lambda row: int(store.rank[row]))
            chosen.append((point.threshold, later, earlier, float(near[i])))
    wanted = sorted({row for _, row, partner, _ in chosen for row in (row, partner)})
    told = _told_rows(store, wanted)
    return tuple(PairExample(limit, value, told[row], told[partner]) for limit, row, partner, value in chosen)


def _joined(store: DuplicateStore) -> tuple[Indices, Indices, Floats]:
    """Pairs that remove a row or link two; memory maps where they may be many."""
    if store.removal == "published" or store.only_threshold is not None:
        partners = store.array("earlier" if store.removal == "published" else "duplicate_of")
        rows = np.flatnonzero(partners >= 0)
        return rows, partners[rows], store.array("similarity")[rows]
    if store.removal == "greedy":
        a, b, near = store.array("pair_rows"), store.array("pair_cols"), store.array("pair_similarities")
    else:
        last = len(store.facts["batches"]) - 1
        a, b, near = (store.array(f"forest{last}_{name}") for name in ("rows", "cols", "similarities"))
    return a, b, near


def _told_rows(store: DuplicateStore, rows: Sequence[int]) -> dict[int, ExampleRow]:
    """What people are shown of rows: captions, links and pictures where their pool can be opened, else uids only."""
    told: dict[int, ExampleRow] = {}
    begin = 0
    for batch in store.facts["batches"]:
        end = begin + int(batch["rows"])
        mine = [row for row in rows if begin <= row < end]
        pool = _pool_of(batch) if mine else None
        if pool is not None:
            told |= _read_rows(store, pool, mine, begin)
        begin = end
    return {row: told.get(row) or _bare_row(store, row) for row in rows}


def _read_rows(store: DuplicateStore, pool: Pool, rows: Sequence[int], begin: int) -> dict[int, ExampleRow]:
    starts = begin + np.cumsum([0, *(shard.rows for shard in pool.shards)])
    columns = shown_columns(pool)
    told: dict[int, ExampleRow] = {}
    for number, shard in enumerate(pool.shards):
        first = int(starts[number])
        mine = [row - first for row in rows if first <= row < starts[number + 1]]
        for (_, row), facts in read_shown(pool, shard.name, mine, columns).items() if mine else ():
            uid = hex_of(store.uids, first + row)
            told[first + row] = ExampleRow(uid=uid, shard=shard.name, row=row, value=None, **facts)
    return told


def _pool_of(batch: dict[str, Any]) -> Pool | None:
    if "pool" not in batch:
        return None
    try:
        pool = open_pool(batch["pool"], layout=batch["layout"])
    except PoolError:
        return None
    return pool if pool.rows == batch["rows"] else None


def _bare_row(store: DuplicateStore, row: int) -> ExampleRow:
    return ExampleRow(uid=hex_of(store.uids, row), shard="", row=row, value=None)


def _told(row: ExampleRow) -> str:
    return f"{row.uid}  {row.caption or ''}".rstrip()
