"""What `decontaminate` says: per pack and rule, per item, and of every row that was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pycurate.api.contamination_shards import FoundInShard, summed
from pycurate.arrow import arrow_texts, arrow_values
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.pack import Pack
from pycurate.io.pool import Shard
from pycurate.steps.contamination import Measure

_SHOWN_ITEMS = 5

FOUND = pa.schema(
    [
        pa.field("shard", pa.large_string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # of the shard
        pa.field("pack", pa.large_string(), nullable=False),
        pa.field("rule", pa.large_string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),  # cosine, n-grams in common, or 1 for what is equal
        pa.field("item", pa.large_string(), nullable=False),  # id of the nearest item
        pa.field("item_row", pa.int64(), nullable=False),  # its row in the pack
    ]
)
"""Columns of ``contamination.parquet``: one row for each row of the pool, pack and rule that finds it."""

ITEMS = pa.schema(
    [
        pa.field("pack", pa.large_string(), nullable=False),
        pa.field("rule", pa.large_string(), nullable=False),
        pa.field("item", pa.large_string(), nullable=False),
        pa.field("item_row", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),  # of the pool that are near it
        pa.field("best", pa.float64(), nullable=False),  # the largest value
        pa.field("caption", pa.large_string()),
    ]
)
"""Columns of ``items.parquet``: one row for each pack, rule and item that any row is near, most rows first."""


@dataclass(frozen=True, slots=True)
class RuleCount:
    """What one measure found in the whole pool."""

    pack: str
    rule: str
    threshold: float
    rows: int  # near any item
    items: int  # that any row is near


@dataclass(frozen=True, slots=True, eq=False)
class ContaminationReport:
    """What a finished `decontaminate` found.

    Attributes
    ----------
    rows, removed
        Rows of the pool, and those that are near an item.
    counts
        Of each measure; a row that several find is counted by each.
    removed_by_pack
        Pack -> rows that it alone would remove.
    unjudged
        Rule -> rows that it cannot judge; they are not removed by it.
    not_compared
        What was left out, in words.
    examples
        (pack, rule, item, rows, best) of the items that most rows are near.
    """

    out: Path
    rows: int
    removed: int
    counts: tuple[RuleCount, ...]
    removed_by_pack: dict[str, int]
    pack_items: dict[str, int]
    unjudged: dict[str, int]
    not_compared: tuple[str, ...]
    examples: tuple[tuple[str, str, str, int, float], ...]

    @property
    def kept(self) -> int:
        """Rows that remain."""
        return self.rows - self.removed

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "kept": self.kept,
            "removed": self.removed,
            "packs": [
                {"name": name, "items": items, "removed": self.removed_by_pack[name]}
                for name, items in self.pack_items.items()
            ],
            "rules": [
                {"pack": c.pack, "rule": c.rule, "threshold": c.threshold, "rows": c.rows, "items": c.items}
                for c in self.counts
            ],
            "unjudged": self.unjudged,
            "not_compared": list(self.not_compared),
        }

    def render(self) -> str:
        """For people."""
        wide = max(len(name) for name in ["pack", *self.pack_items])
        lines = [f"{'pack':<{wide}} {'items':>8}  {'rule':<12} {'threshold':>9} {'rows near':>10} {'items hit':>9}"]
        for count in self.counts:
            lines.append(
                f"{count.pack:<{wide}} {self.pack_items[count.pack]:>8,}  {count.rule:<12} {count.threshold:>9g} "
                f"{count.rows:>10,} {count.items:>9,}"
            )
        if self.examples:
            lines += ["", "items that most rows are near"]
            lines += [
                f"  {pack}: {item} ({rule}): {rows:,} rows, nearest {best:.4g}"
                for pack, rule, item, rows, best in self.examples
            ]
        lines.append("")
        lines += [
            f"unjudged  {rows:,} rows by {rule}: nothing to compare; not removed by it"
            for rule, rows in self.unjudged.items()
            if rows
        ]
        lines += [f"left out  {what}" for what in self.not_compared]
        share = self.removed / self.rows if self.rows else 0.0
        lines.append(f"removed   {self.removed:,} of {self.rows:,} rows ({share:.3%}); {self.kept:,} remain")
        lines.append(f"to        {self.out}")
        return "\n".join(lines)


def write_report_files(
    out: Path,
    packs: Sequence[Pack],
    measures: Sequence[Measure],
    shards: Iterable[tuple[Shard, FoundInShard]],
    not_compared: Sequence[str],
) -> ContaminationReport:
    """Write ``contamination.parquet``, ``items.parquet`` and ``report.json`` from what was found in every shard."""
    rows, removed = 0, 0
    by_measure = np.zeros(len(measures), np.int64)
    by_pack = np.zeros(len(packs), np.int64)
    pack_of = np.array([measure.pack for measure in measures], np.int64)
    unjudged: Counter[str] = Counter()
    none = np.empty(0, np.int64)
    touched = (none, none, none, none.astype(np.float64))
    with atomic_write(out / "contamination.parquet") as file, pq.ParquetWriter(file, FOUND) as writer:
        for shard, found in shards:
            rows += shard.rows
            removed += len(found.first)
            unjudged.update(found.unjudged)
            by_measure += np.bincount(found.measure, minlength=len(measures))
            by_pack += _rows_by_pack(found, pack_of, len(packs))
            new = (found.touched_measure, found.touched_item, found.touched_rows, found.touched_best)
            touched = summed(*(np.concatenate(both) for both in zip(touched, new, strict=True)))
            writer.write_table(_found_table(shard, found, packs, measures))
    order = np.lexsort((touched[1], touched[0], -touched[2]))
    measure, item, near, best = (column[order] for column in touched)
    with atomic_write(out / "items.parquet") as file:
        pq.write_table(_items_table(measure, item, near, best, packs, measures), file)
    items_hit = np.bincount(measure, minlength=len(measures))
    report = ContaminationReport(
        out=out,
        rows=rows,
        removed=removed,
        counts=tuple(
            RuleCount(packs[m.pack].name, m.rule, m.threshold, int(by_measure[number]), int(items_hit[number]))
            for number, m in enumerate(measures)
        ),
        removed_by_pack={pack.name: int(by_pack[number]) for number, pack in enumerate(packs)},
        pack_items={pack.name: pack.rows for pack in packs},
        unjudged=dict(unjudged),
        not_compared=tuple(not_compared),
        examples=tuple(
            (
                packs[measures[m].pack].name,
                measures[m].rule,
                packs[measures[m].pack].ids[i],
                int(near[place]),
                float(best[place]),
            )
            for place, (m, i) in enumerate(
                zip(measure[:_SHOWN_ITEMS].tolist(), item[:_SHOWN_ITEMS].tolist(), strict=True)
            )
        ),
    )
    write_json_atomic(out / "report.json", report.to_dict())
    return report


def _rows_by_pack(found: FoundInShard, pack_of: Any, packs: int) -> Any:
    """(packs,) rows that are near any item of each."""
    pairs = np.unique(np.stack([found.row, pack_of[found.measure]]), axis=1)
    return np.bincount(pairs[1], minlength=packs)


def _found_table(shard: Shard, found: FoundInShard, packs: Sequence[Pack], measures: Sequence[Measure]) -> pa.Table:
    hit = [measures[m] for m in found.measure.tolist()]
    return pa.Table.from_arrays(
        [
            arrow_texts([shard.name] * len(hit)),
            arrow_values(found.row),
            arrow_texts([packs[m.pack].name for m in hit]),
            arrow_texts([m.rule for m in hit]),
            arrow_values(found.value),
            arrow_texts([packs[m.pack].ids[i] for m, i in zip(hit, found.item.tolist(), strict=True)]),
            arrow_values(found.item),
        ],
        schema=FOUND,
    )


def _items_table(
    measure: Any, item: Any, rows: Any, best: Any, packs: Sequence[Pack], measures: Sequence[Measure]
) -> pa.Table:
    hit = [(measures[m], i) for m, i in zip(measure.tolist(), item.tolist(), strict=True)]
    captions = [packs[m.pack].items["caption"][i].as_py() for m, i in hit]
    return pa.Table.from_arrays(
        [
            arrow_texts([packs[m.pack].name for m, _ in hit]),
            arrow_texts([m.rule for m, _ in hit]),
            arrow_texts([packs[m.pack].ids[i] for m, i in hit]),
            arrow_values(item),
            arrow_values(rows),
            arrow_values(best),
            arrow_texts(captions),
        ],
        schema=ITEMS,
    )
