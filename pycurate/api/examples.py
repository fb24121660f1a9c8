"""Captions, links and pictures of the few rows that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pycurate.engine import LocalEngine
from pycurate.errors import InputError
from pycurate.io.pool import Pool
from pycurate.kernels.uid import find, format_hex
from pycurate.pipeline.decide import Decider
from pycurate.pipeline.groups import SHOWN_GROUPS, ShownGroup, ShownRow, StepGroups
from pycurate.pipeline.pool_rows import row_place
from pycurate.report.manifest import DuplicateGroup, ExampleGroup, ExampleRow, Examples, GroupChoice, Side
from pycurate.report.outcome import Candidate
from pycurate.report.thumbnail import thumbnail
from pycurate.types import UID_DTYPE, UidArray

SHOWN_COLUMNS = ("caption", "url")


def collect_examples(
    pool: Pool,
    candidates: Mapping[tuple[str, Side], Sequence[Candidate]],
    duplicates: Sequence[StepGroups],
    decider: Decider,
    engine: LocalEngine,
) -> Examples:
    """Read what is shown of rows and of groups: one pass over the two text columns of each shard that has any."""
    shown = _shown_groups(duplicates, decider, engine)
    wanted: dict[str, set[int]] = {}
    for rows in candidates.values():
        for candidate in rows:
            wanted.setdefault(candidate.shard, set()).add(candidate.row)
    for group in shown:
        for row in (group.keeper, *group.rows):
            if row.shard:
                wanted.setdefault(row.shard, set()).add(row.row)
    columns = shown_columns(pool)
    facts: dict[tuple[str, int], dict[str, Any]] = {}
    for found in engine.ordered(lambda shard: read_shown(pool, shard, sorted(wanted[shard]), columns), list(wanted)):
        facts |= found
    groups = [
        ExampleGroup(rule=rule, side=side, rows=tuple(_row(c, facts[c.shard, c.row]) for c in rows))
        for (rule, side), rows in candidates.items()
        if rows
    ]
    return Examples(groups=tuple(groups), duplicates=tuple(_with_facts(group, facts) for group in shown))


def _shown_groups(duplicates: Sequence[StepGroups], decider: Decider, engine: LocalEngine) -> list[DuplicateGroup]:
    """The groups to show, once each, with the places of their rows but nothing of what these hold."""
    chosen: list[tuple[str, GroupChoice, ShownGroup]] = []
    for made in duplicates:
        seen: set[bytes] = set()
        choices: tuple[tuple[GroupChoice, tuple[ShownGroup, ...]], ...] = (
            ("largest", made.largest),
            ("least similar", made.least_similar),
        )
        for choice, groups in choices:
            others = [group for group in groups if group.keeper.uid.tobytes() not in seen][:SHOWN_GROUPS]
            chosen += [(made.step, choice, group) for group in others]
            seen |= {group.keeper.uid.tobytes() for group in others}
    keepers = _places([group.keeper.uid for _, _, group in chosen], decider, engine)
    starts = decider.starts

    def placed(row: ShownRow) -> ExampleRow:
        shard, place = row_place(decider.shards, starts, row.row)
        return ExampleRow(uid=format_hex(row.uid)[0].decode(), shard=shard, row=place, value=row.similarity)

    return [
        DuplicateGroup(step=step, choice=choice, size=group.size, keeper=keeper, rows=tuple(map(placed, group.rows)))
        for (step, choice, group), keeper in zip(chosen, keepers, strict=True)
    ]


def _places(uids: Sequence[UidArray], decider: Decider, engine: LocalEngine) -> list[ExampleRow]:
    """The first row of the pool that has each of a few uids, in one pass over all uids of the workspace.

    A step may name a partner that is not in this pool: its place is row -1 of no shard.
    """
    wanted = np.unique(np.concatenate([np.empty(0, UID_DTYPE), *uids]))

    def look(shard: str) -> list[tuple[int, tuple[str, int]]]:
        known = decider.uids(shard)
        near = np.zeros(len(known), np.bool_)
        for half in wanted["f0"]:  # a few, so that no sorted copy of all is made
            near |= known["f0"] == half
        rows = np.flatnonzero(near)
        which = find(wanted, known[rows])
        return [(i, (shard, row)) for i, row in zip(which.tolist(), rows.tolist(), strict=True) if i >= 0]

    first: dict[int, tuple[str, int]] = {}
    for found in engine.ordered(look, decider.shards if len(wanted) else ()):
        for which, place in found:
            first.setdefault(which, place)
    places = [first.get(int(find(wanted, uid)[0]), ("", -1)) for uid in uids]
    return [
        ExampleRow(uid=format_hex(uid)[0].decode(), shard=shard, row=row, value=None)
        for uid, (shard, row) in zip(uids, places, strict=True)
    ]


def _with_facts(group: DuplicateGroup, facts: Mapping[tuple[str, int], Mapping[str, Any]]) -> DuplicateGroup:
    keeper, *rows = (
        row.model_copy(update=dict(facts.get((row.shard, row.row), {}))) for row in (group.keeper, *group.rows)
    )
    return group.model_copy(update={"keeper": keeper, "rows": tuple(rows)})


def _has(pool: Pool, column: str) -> bool:
    try:
        pool.stored_name(column)
    except InputError:
        return False
    return True


def shown_columns(pool: Pool) -> list[str]:
    """The text columns that the pool has of those that are shown."""
    return [name for name in SHOWN_COLUMNS if _has(pool, name)]


def read_shown(
    pool: Pool, shard: str, rows: Sequence[int], columns: Sequence[str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """What is shown of some rows of a shard, rising: fields of an ``ExampleRow``."""
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
