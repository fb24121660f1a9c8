"""Captions, links and pictures of the few rows that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycurate.engine import LocalEngine
from pycurate.errors import InputError
from pycurate.io.pool import Pool
from pycurate.report.manifest import ExampleGroup, ExampleRow, Examples, Side
from pycurate.report.outcome import Candidate
from pycurate.report.thumbnail import thumbnail

SHOWN_COLUMNS = ("caption", "url")


def collect_examples(
    pool: Pool, candidates: Mapping[tuple[str, Side], Sequence[Candidate]], engine: LocalEngine
) -> Examples:
    """Read what is shown of the candidate rows: one pass over the two text columns of each shard that has any."""
    wanted: dict[str, set[int]] = {}
    for rows in candidates.values():
        for candidate in rows:
            wanted.setdefault(candidate.shard, set()).add(candidate.row)
    columns = [name for name in SHOWN_COLUMNS if _has(pool, name)]
    facts: dict[tuple[str, int], dict[str, Any]] = {}
    for found in engine.ordered(lambda shard: _read(pool, shard, sorted(wanted[shard]), columns), list(wanted)):
        facts |= found
    groups = [
        ExampleGroup(rule=rule, side=side, rows=tuple(_row(c, facts[c.shard, c.row]) for c in rows))
        for (rule, side), rows in candidates.items()
        if rows
    ]
    return Examples(groups=tuple(groups))


def _has(pool: Pool, column: str) -> bool:
    try:
        pool.stored_name(column)
    except InputError:
        return False
    return True


def _read(pool: Pool, shard: str, rows: Sequence[int], columns: Sequence[str]) -> dict[tuple[str, int], dict[str, Any]]:
    source = pool.shard(shard)
    facts: dict[tuple[str, int], dict[str, Any]] = {(shard, row): {} for row in rows}
    if columns:
        last = rows[-1]
        for block in source.blocks(columns, (), uids=False, block_rows=1 << 14):
            for row in rows:
                if block.start <= row < block.start + block.rows:
                    facts[shard, row] |= {c: block.columns[c][row - block.start].as_py() for c in columns}
            if block.start + block.rows > last:
                break
    for row, encoded in source.images(rows).items():
        facts[shard, row] |= thumbnail(encoded)
    return facts


def _row(candidate: Candidate, facts: Mapping[str, Any]) -> ExampleRow:
    value = candidate.value
    return ExampleRow(
        uid=candidate.uid,
        shard=candidate.shard,
        row=candidate.row,
        value=None if value != value else value,
        **facts,
    )
