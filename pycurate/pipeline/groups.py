"""``groups.parquet``: the groups of duplicates that the steps of a run found, written out of core.

Each dropped row names the row it duplicates. That row may itself have been dropped by the same step for another one
(as the published rule of SemDeDup does), so that a group is what hangs together: the rows whose chain of partners ends
at the same row, the *keeper* of the step. Rows are sorted by uid to follow the chains, and by keeper to be written.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import arrow_values
from pycurate.io.atomic import atomic_write
from pycurate.kernels.uid import find
from pycurate.pipeline.decide import Decider, Decision
from pycurate.pipeline.ledger import few_strings, hex_strings
from pycurate.pipeline.pool_rows import let_go, new_array
from pycurate.pipeline.record_sort import Records, RecordSort
from pycurate.types import UID_DTYPE, UidArray

ROW_GROUP_ROWS = 1 << 17
SHOWN_GROUPS, SHOWN_ROWS = 4, 5
"""Groups of a step that a report shows, of each choice, and dropped rows of each. Twice as many of the least similar
are chosen, as some are among the largest."""

SCHEMA = pa.schema(
    [
        pa.field("step", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("group", pa.int64(), nullable=False),  # from 0, over all steps
        pa.field("uid", pa.string(), nullable=False),  # 32 hex digits
        pa.field("keeper_uid", pa.string(), nullable=False),  # the row of the group that the step kept
        pa.field("partner_uid", pa.string()),  # the row in whose favour it was dropped; null for the keeper
        pa.field("similarity", pa.float32()),  # to the partner; null for the keeper
        pa.field("rule", pa.dictionary(pa.int16(), pa.string())),  # that dropped it; null for the keeper
    ]
)

_BY_UID_COLUMNS = 6  # of a record sorted by uid: uid, row, partner, facts
_KEEPER, _UID, _ROW, _PARTNER, _FACTS = slice(0, 2), slice(2, 4), 4, slice(5, 7), 7
_COLUMNS = 8
"""Of a record sorted by keeper. Facts are the number of the rule and the bits of the similarity."""
_PART_ROWS = 1 << 18
_MOST_ROUNDS = 64  # chains are halved in each: only repeated uids, which can make a circle, need more


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row of a group: its place in the pool and its similarity to its partner (NaN: the keeper, not placed)."""

    uid: UidArray  # (1,)
    row: int  # of the pool; -1: not known
    similarity: float


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """A group as a report shows it."""

    keeper: ShownRow
    size: int  # rows, with the keeper
    rows: tuple[ShownRow, ...]  # of those dropped, a few


@dataclass
class StepGroups:
    """The groups of one step."""

    step: str
    groups: int = 0
    removed: int = 0
    sizes: Counter[int] = field(default_factory=Counter)  # groups of 2**i up to 2**(i + 1) - 1 rows, by i
    largest: tuple[ShownGroup, ...] = ()  # largest first, then by uid of the keeper
    least_similar: tuple[ShownGroup, ...] = ()  # by the lowest similarity in it, then by uid of the keeper

    @property
    def rows(self) -> int:
        """Rows of the groups, with those kept."""
        return self.groups + self.removed


class DuplicateGroups:
    """Collects what the steps of a run dropped as duplicates, then writes the groups.

    Parameters
    ----------
    folder
        For temporary files: 168 bytes for every row that was dropped as a duplicate.
    """

    def __init__(self, decider: Decider, folder: Path) -> None:
        self._steps = [step for step in decider.fitted if any(rule.names_partner for rule in step.rules)]
        self._rules = decider.rules
        self._folder = folder
        self._stack = ExitStack()
        self._starts = decider.starts

    def __bool__(self) -> bool:
        """True when a step of the run names partners."""
        return bool(self._steps)

    def __enter__(self) -> Self:
        self._sorts = [
            self._stack.enter_context(RecordSort(self._folder / f"step_{number}.records", _BY_UID_COLUMNS, 3))
            for number in range(len(self._steps))
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, shard: str, uids: UidArray, decision: Decision) -> None:
        """The duplicates among the rows of one shard; called from any thread, in any order of shards."""
        if decision.partner is None:
            return
        for step, records in zip(self._steps, self._sorts, strict=True):
            last = step.first_reason + len(step.rules)
            rows = np.flatnonzero((decision.reason >= step.first_reason) & (decision.reason < last))
            named = np.array([rule.names_partner for rule in step.rules])
            rows = rows[named[decision.reason[rows] - step.first_reason]]
            for begin in range(0, len(rows), _PART_ROWS):
                part = rows[begin : begin + _PART_ROWS]
                found = np.empty((len(part), _BY_UID_COLUMNS), np.uint64)
                found[:, 0], found[:, 1] = uids["f0"][part], uids["f1"][part]
                found[:, 2] = part + self._starts[shard]
                found[:, 3], found[:, 4] = decision.partner["f0"][part], decision.partner["f1"][part]
                bits = decision.value[part].astype(np.float32).view(np.uint32)
                found[:, 5] = bits | (decision.reason[part].astype(np.uint64) << np.uint64(32))
                records.append(found)

    def write(self, path: Path, memory_bytes: int) -> list[StepGroups]:
        """Write ``groups.parquet`` atomically: by step in the recipe's order, keeper, then uid; the keeper first.

        The bytes depend on the decisions only. Every group has one row of its keeper and one for each dropped row.
        """
        found = []
        with (
            atomic_write(path) as file,
            pq.ParquetWriter(file, SCHEMA, compression="zstd", write_statistics=False) as parquet,
            _RowGroups(parquet) as writer,
        ):
            groups = 0
            for number, (step, records) in enumerate(zip(self._steps, self._sorts, strict=True)):
                made = StepGroups(step.step.name)
                with RecordSort(self._folder / f"keepers_{number}.records", _COLUMNS, 5) as by_keeper:
                    _append_with_keepers(records, by_keeper, self._folder, memory_bytes)
                    tally = _Tally(made)
                    for part in by_keeper.ranges(memory_bytes // 2):  # half for a range as Arrow
                        writer.append(self._batch(number, part, groups, tally))
                    tally.finish()
                groups += made.groups
                found.append(made)
        return found

    def _batch(self, step: int, part: Records, first_group: int, tally: _Tally) -> pa.RecordBatch:
        """The rows of one range, with a row for the keeper of every group that begins in it."""
        begins = np.append(not tally.continues(part), (part[1:, _KEEPER] != part[:-1, _KEEPER]).any(axis=1))
        group = np.repeat(first_group + tally.made.groups - 1 + np.cumsum(begins), 1 + begins)
        tally.add(part, begins)
        source = np.repeat(np.arange(len(part)), 1 + begins)
        is_keeper = np.zeros(len(source), np.bool_)
        is_keeper[(np.arange(len(part)) + np.cumsum(begins) - begins)[begins]] = True
        keeper = _uids(part, _KEEPER)[source]
        uid = np.where(is_keeper, keeper, _uids(part, _UID)[source])
        facts = part[source, _FACTS]
        rule = (facts >> np.uint64(32)).astype(np.int16) - np.int16(1)
        return pa.RecordBatch.from_arrays(
            [
                pa.DictionaryArray.from_arrays(
                    arrow_values(np.full(len(source), step, np.int16)),
                    few_strings([fitted.step.name for fitted in self._steps]),
                ),
                arrow_values(group),
                hex_strings(uid),
                hex_strings(keeper),
                hex_strings(_uids(part, _PARTNER)[source], ~is_keeper),
                arrow_values(_similarity(part)[source], ~is_keeper),
                pa.DictionaryArray.from_arrays(
                    arrow_values(rule, ~is_keeper), few_strings([rule.name for rule in self._rules])
                ),
            ],
            schema=SCHEMA,
        )


class _RowGroups:
    """Writes batches in row groups of a fixed number of rows, however the rows come."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._table = SCHEMA.empty_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._table.num_rows:
            self._writer.write_table(self._table.combine_chunks(), ROW_GROUP_ROWS)

    def append(self, batch: pa.RecordBatch) -> None:
        self._table = pa.concat_tables([self._table, pa.Table.from_batches([batch])])
        while self._table.num_rows >= ROW_GROUP_ROWS:
            first = self._table.slice(0, ROW_GROUP_ROWS).combine_chunks()  # pages end where chunks do
            self._writer.write_table(first, ROW_GROUP_ROWS)
            self._table = self._table.slice(ROW_GROUP_ROWS)


def _append_with_keepers(records: RecordSort, by_keeper: RecordSort, folder: Path, memory_bytes: int) -> None:
    """Follow the partners of dropped rows to the row that was not dropped, and sort by it."""
    rows = records.rows
    if not rows:
        return
    paths = [folder / f"{name}.bin" for name in ("uids", "rest", "roots")]
    uids = new_array(paths[0], UID_DTYPE, (rows,))
    rest = new_array(paths[1], np.uint64, (rows, 4))
    roots = new_array(paths[2], np.int64, (rows,))
    done = 0
    for part in records.ranges(memory_bytes):
        uids[done : done + len(part)], rest[done : done + len(part)] = _uids(part, slice(0, 2)), part[:, 2:]
        done += len(part)
        let_go(uids)
        let_go(rest)
    chained = False
    for begin in range(0, rows, _PART_ROWS):
        own = np.arange(begin, min(begin + _PART_ROWS, rows))
        parents = find(uids, _uids(rest[own], slice(1, 3)))
        followed = (parents >= 0) & (uids[parents] != uids[own])
        chained |= bool(followed.any())
        roots[own] = np.where(followed, parents, own)
    let_go(roots)
    for _ in range(_MOST_ROUNDS if chained else 0):
        changed = False
        for begin in range(0, rows, _PART_ROWS):
            before = roots[begin : begin + _PART_ROWS].copy()
            after = roots[before]
            roots[begin : begin + _PART_ROWS] = after
            changed |= bool((after != before).any())
        if not changed:
            break
    for begin in range(0, rows, _PART_ROWS):
        own = np.arange(begin, min(begin + _PART_ROWS, rows))
        found = np.empty((len(own), _COLUMNS), np.uint64)
        found[:, _KEEPER] = rest[roots[own], 1:3]
        found[:, _UID] = uids[own].view(np.uint64).reshape(-1, 2)
        found[:, _ROW], found[:, _PARTNER], found[:, _FACTS] = rest[own, 0], rest[own, 1:3], rest[own, 3]
        by_keeper.append(found)
    for path in paths:
        path.unlink()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a group or all of it: how many rows were dropped, the first of them by uid, and the least similar."""

    keeper: tuple[int, int]
    removed: int
    first: tuple[ShownRow, ...]
    weakest: tuple[ShownRow, ...]

    @classmethod
    def of(cls, run: Records) -> _Piece:
        """Records of one keeper, sorted by uid."""
        similarity = _similarity(run)
        weakest = np.argsort(similarity, kind="stable")[:SHOWN_ROWS].tolist()

        def shown(place: int) -> ShownRow:
            uid = _uids(run[place : place + 1], _UID)
            return ShownRow(uid, int(run[place, _ROW]), float(similarity[place]))

        keeper = (int(run[0, 0]), int(run[0, 1]))
        first = range(min(SHOWN_ROWS, len(run)))
        return cls(keeper, len(run), tuple(map(shown, first)), tuple(map(shown, weakest)))

    def followed_by(self, other: _Piece) -> _Piece:
        """With rows of higher uids."""
        weakest = sorted((*self.weakest, *other.weakest), key=lambda row: row.similarity)  # stable: ties by uid
        first = (*self.first, *other.first)[:SHOWN_ROWS]
        return _Piece(self.keeper, self.removed + other.removed, first, tuple(weakest[:SHOWN_ROWS]))

    def group(self, rows: tuple[ShownRow, ...]) -> ShownGroup:
        return ShownGroup(ShownRow(np.array([self.keeper], UID_DTYPE), -1, np.nan), self.removed + 1, rows)


class _Tally:
    """Counts the groups of one step as its sorted records pass by, in any parts."""

    def __init__(self, made: StepGroups) -> None:
        self.made = made
        self._last: _Piece | None = None  # may go on in the next part
        self._largest: list[_Piece] = []
        self._least_similar: list[_Piece] = []

    def continues(self, part: Records) -> bool:
        """Whether the first record belongs to the group that the part before ended with."""
        return self._last is not None and self._last.keeper == (int(part[0, 0]), int(part[0, 1]))

    def add(self, part: Records, begins: NDArray[np.bool_]) -> None:
        """The next records; ``begins`` is True where a group begins."""
        self.made.groups += int(np.count_nonzero(begins))
        self.made.removed += len(part)
        starts = np.flatnonzero(begins)
        if not begins[0]:
            assert self._last is not None
            end = int(starts[0]) if len(starts) else len(part)
            self._last = self._last.followed_by(_Piece.of(part[:end]))
        if not len(starts):
            return
        self._flush()
        self._last = _Piece.of(part[starts[-1] :])
        if len(starts) > 1:
            sizes = np.diff(starts)
            self._count(sizes)
            weakest = np.minimum.reduceat(_similarity(part[: starts[-1]]), starts[:-1])
            chosen = {*np.argsort(-sizes, kind="stable")[:SHOWN_GROUPS].tolist()}
            chosen |= {*np.argsort(weakest, kind="stable")[: 2 * SHOWN_GROUPS].tolist()}
            self._consider([_Piece.of(part[starts[i] : starts[i + 1]]) for i in sorted(chosen)])

    def finish(self) -> None:
        """After the last records."""
        self._flush()
        self.made.largest = tuple(piece.group(piece.first) for piece in self._largest)
        self.made.least_similar = tuple(piece.group(piece.weakest) for piece in self._least_similar)

    def _flush(self) -> None:
        if self._last is not None:
            self._count(np.array([self._last.removed]))
            self._consider([self._last])
        self._last = None

    def _count(self, removed: NDArray[np.int64]) -> None:
        powers, counts = np.unique(np.frexp(removed + 1.0)[1] - 1, return_counts=True)
        self.made.sizes.update(dict(zip(powers.tolist(), counts.tolist(), strict=True)))

    def _consider(self, pieces: list[_Piece]) -> None:
        largest = sorted([*self._largest, *pieces], key=lambda piece: (-piece.removed, piece.keeper))
        weakest = sorted([*self._least_similar, *pieces], key=lambda p: (p.weakest[0].similarity, p.keeper))
        self._largest, self._least_similar = largest[:SHOWN_GROUPS], weakest[: 2 * SHOWN_GROUPS]


def _uids(records: Records, columns: slice) -> UidArray:
    uids: UidArray = np.ascontiguousarray(records[:, columns]).reshape(-1).view(UID_DTYPE)
    return uids


def _similarity(records: Records) -> NDArray[np.float32]:
    return (records[:, _FACTS] & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
