from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate.pipeline.decide import Decision
from pycurate.pipeline.groups import SHOWN_GROUPS, SHOWN_ROWS, DuplicateGroups, StepGroups
from pycurate.types import UID_DTYPE, Rule, UidArray


class Decisions:
    """A decider whose steps ``names`` each dropped some rows as duplicates of others, given by uid (f1)."""

    def __init__(self, shards: dict[str, list[int]], *names: str) -> None:
        self.uids = {shard: uid_array(values) for shard, values in shards.items()}
        self.shards = tuple(shards)
        self.fitted, self.rules = [], []
        for name in names:
            rules = (Rule(name, name, names_partner=True), Rule(f"{name}.unjudged", "", unjudged=True))
            self.fitted.append(
                SimpleNamespace(step=SimpleNamespace(name=name), rules=rules, first_reason=len(self.rules) + 1)
            )
            self.rules += rules
        starts = np.cumsum([0, *(len(uids) for uids in self.uids.values())]).tolist()
        self.starts = dict(zip(shards, starts, strict=False))

    def decision(self, shard: str, dropped: dict[int, tuple[str, int, float]]) -> Decision:
        """``dropped``: uid -> (rule, partner, similarity)."""
        uids = self.uids[shard]["f1"].tolist()
        reason, value = np.zeros(len(uids), np.uint16), np.full(len(uids), np.nan)
        partner = np.zeros(len(uids), UID_DTYPE)
        names = [rule.name for rule in self.rules]
        for row, uid in enumerate(uids):
            if uid in dropped:
                rule, other, value[row] = dropped[uid]
                reason[row], partner["f1"][row] = names.index(rule) + 1, other
        return Decision(reason, value, None, (), (), partner)


def uid_array(values: list[int]) -> UidArray:
    made = np.zeros(len(values), UID_DTYPE)
    made["f1"] = values
    return made


def written(
    tmp_path: Path, decider: Decisions, dropped: dict[int, tuple[str, int, float]], memory_bytes: int = 1 << 20
) -> tuple[list[dict[str, Any]], list[StepGroups], bytes]:
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    with DuplicateGroups(decider, folder) as groups:  # type: ignore[arg-type]
        assert groups
        for shard in reversed(decider.shards):
            groups.add(shard, decider.uids[shard], decider.decision(shard, dropped))
        found = groups.write(tmp_path / "groups.parquet", memory_bytes)
    assert not list(folder.iterdir())
    rows = pq.read_table(tmp_path / "groups.parquet").to_pylist()
    for row in rows:
        for name in ("uid", "keeper_uid", "partner_uid"):
            row[name] = None if row[name] is None else int(row[name], 16)
    return rows, found, (tmp_path / "groups.parquet").read_bytes()


def plainly(decider: Decisions, dropped: dict[int, tuple[str, int, float]]) -> list[tuple[Any, ...]]:
    """The definition: follow partners within a step to the row it kept; the keeper first, then rows by uid."""
    rows: list[tuple[Any, ...]] = []
    group = -1
    for fitted in decider.fitted:
        name = fitted.step.name
        mine = {uid: found for uid, found in dropped.items() if found[0] == name}
        members: dict[int, list[int]] = {}
        for uid in mine:
            keeper = uid
            while keeper in mine:
                keeper = mine[keeper][1]
            members.setdefault(keeper, []).append(uid)
        for keeper in sorted(members):
            group += 1
            rows.append((name, group, keeper, keeper, None, None, None))
            for uid in sorted(members[keeper]):
                rows.append((name, group, uid, keeper, mine[uid][1], np.float32(mine[uid][2]), name))
    return rows


@pytest.mark.parametrize("memory_bytes", [1, 3_000, 1 << 20])
def test_groups_are_what_hangs_together_by_partners(tmp_path: Path, memory_bytes: int) -> None:
    random = np.random.default_rng(4)
    uids = random.permutation(400).tolist()
    decider = Decisions({"a": uids[:150], "b": uids[150:150], "c": uids[150:]}, "one", "two")
    dropped: dict[int, tuple[str, int, float]] = {}
    for place in range(1, 400):  # a random forest: partners come earlier, and may be dropped themselves
        fate = random.integers(0, 4)
        if fate:
            partner = uids[random.integers(0, min(place, 60))]
            dropped[uids[place]] = ("one" if fate < 3 else "two", partner, float(random.random()))
    rows, found, data = written(tmp_path, decider, dropped, memory_bytes)
    expected = plainly(decider, dropped)
    assert [tuple(row.values()) for row in rows] == expected
    assert written(tmp_path, decider, dropped)[2] == data
    for made in found:
        sizes = Counter(row[1] for row in expected if row[0] == made.step)
        assert (made.groups, made.removed) == (len(sizes), sum(sizes.values()) - len(sizes))
        assert made.sizes == Counter(size.bit_length() - 1 for size in sizes.values())
        keepers = {row[1]: row[2] for row in expected if row[4] is None}
        largest = sorted(sizes, key=lambda group: (-sizes[group], keepers[group]))[:SHOWN_GROUPS]
        assert [(int(g.keeper.uid["f1"][0]), g.size) for g in made.largest] == [(keepers[g], sizes[g]) for g in largest]
        for shown, group in zip(made.largest, largest, strict=True):
            members = [row for row in expected if row[1] == group and row[4] is not None][:SHOWN_ROWS]
            assert [int(row.uid["f1"][0]) for row in shown.rows] == [row[2] for row in members]
            assert [row.row for row in shown.rows] == [uids.index(row[2]) for row in members]
        weakest = {g: min(row[5] for row in expected if row[1] == g and row[5] is not None) for g in sizes}
        least = sorted(sizes, key=lambda group: (weakest[group], keepers[group]))[: 2 * SHOWN_GROUPS]
        assert [int(g.keeper.uid["f1"][0]) for g in made.least_similar] == [keepers[g] for g in least]
        assert [g.rows[0].similarity for g in made.least_similar] == [weakest[g] for g in least]


def test_a_long_chain_is_one_group(tmp_path: Path) -> None:
    rows = 3000
    decider = Decisions({"a": list(range(rows))}, "one")
    dropped = {uid: ("one", uid - 1, 0.9) for uid in range(1, rows)}
    found = written(tmp_path, decider, dropped, 1 << 16)[0]
    assert {row["keeper_uid"] for row in found} == {0}
    assert {row["group"] for row in found} == {0}
    assert len(found) == rows


def test_rows_of_other_rules_are_in_no_group(tmp_path: Path) -> None:
    decider = Decisions({"a": [1, 2, 3]}, "one", "two")
    rows, found, _ = written(tmp_path, decider, {2: ("one.unjudged", 0, np.nan)})
    assert rows == []
    assert [(made.groups, made.removed, made.largest, made.rows) for made in found] == [(0, 0, (), 0)] * 2


def test_repeated_uids_that_name_each_other_end(tmp_path: Path) -> None:
    decider = Decisions({"a": [1, 1, 2, 2, 3]}, "one")
    dropped = {1: ("one", 2, 1.0), 2: ("one", 1, 1.0), 3: ("one", 3, 1.0)}
    rows = written(tmp_path, decider, dropped)[0]
    assert sorted(row["uid"] for row in rows if row["partner_uid"] is not None) == [1, 1, 2, 2, 3]


def test_row_groups_do_not_depend_on_memory(tmp_path: Path) -> None:
    rows = 200_000
    decider = Decisions({"a": list(range(rows))}, "one")
    partner = np.zeros(rows, UID_DTYPE)
    partner["f1"] = np.arange(rows) // 2 * 2
    reason = (np.arange(rows) % 2).astype(np.uint16)
    decision = Decision(reason, np.ones(rows), None, (), (), partner)
    data = []
    for memory_bytes in (4_000_000, 1 << 30):
        with DuplicateGroups(decider, tmp_path) as groups:  # type: ignore[arg-type]
            groups.add("a", decider.uids["a"], decision)
            (made,) = groups.write(tmp_path / "groups.parquet", memory_bytes)
        assert (made.groups, made.removed, made.sizes) == (100_000, 100_000, Counter({1: 100_000}))
        data.append((tmp_path / "groups.parquet").read_bytes())
    assert data[0] == data[1]
    assert pq.ParquetFile(tmp_path / "groups.parquet").num_row_groups == 2
