"""``dedup_groups``: the largest groups of duplicates of the last run in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pycurate.api.dedup_outputs import GROUPS
from pycurate.arrow import numpy_values
from pycurate.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_ROWS = 8
"""Of each group."""


@dataclass(frozen=True, slots=True)
class DedupGroups:
    """Some groups, the largest first, of each the first rows."""

    groups: int
    shown: tuple[tuple[int, tuple[dict[str, Any], ...]], ...]  # rows there are, and those shown

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"groups": self.groups, "shown": [{"rows": size, "first": list(rows)} for size, rows in self.shown]}

    def render(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(f"{self.groups:,} groups", style="bold")]
        for size, rows in self.shown:
            parts.append(Text(f"\ngroup {rows[0]['group']}: {size:,} rows", style="bold"))
            for row in rows:
                if row["uid"] == row["keeper_uid"]:
                    parts.append(Text(f"  {row['uid']}  kept", style="green"))
                else:
                    near = row["keeper_similarity"]
                    parts.append(Text(f"  {row['uid']}  removed" + ("" if near is None else f"  {near:.4f}")))
            if size > len(rows):
                parts.append(Text(f"  and {size - len(rows):,} more", style="dim"))
        return Group(*parts)


def dedup_groups(out: str | os.PathLike[str], count: int = 5) -> DedupGroups:
    """Read the largest groups of ``groups.parquet``.

    Parameters
    ----------
    out
        Folder of a finished `pycurate.dedup`.
    count
        Groups to read.

    Raises
    ------
    InputError
        There is no such file.
    """
    path = Path(out) / GROUPS
    if not path.exists():
        raise InputError(f"{out} has no {GROUPS}; give the folder that pycurate dedup wrote")
    sizes = np.zeros(0, np.int64)
    for batch in _batches(path, ["group"]):
        numbers = numpy_values(batch.column(0))
        grown = np.bincount(numbers, minlength=len(sizes))
        grown[: len(sizes)] += sizes
        sizes = grown
    chosen = np.lexsort((np.arange(len(sizes)), -sizes))[:count].tolist()
    rows: dict[int, list[dict[str, Any]]] = {number: [] for number in chosen}
    starts = np.cumsum(sizes) - sizes
    begin = 0
    for batch in _batches(path, None):
        for number in chosen:
            first, last = int(starts[number]), int(starts[number]) + min(SHOWN_ROWS, int(sizes[number]))
            here = range(max(first, begin), min(last, begin + len(batch)))
            rows[number] += batch.slice(here.start - begin, len(here)).to_pylist() if len(here) else []
        begin += len(batch)
    return DedupGroups(len(sizes), tuple((int(sizes[number]), tuple(rows[number])) for number in chosen))


def _batches(path: Path, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(columns=columns)
