"""Greedy removal without pairs: blocks of rows in order of priority, each compared with the rows kept so far.

Memory is that of two blocks and a few numbers a row, however many pairs there are. Arithmetic is that of every row with
every kept row before it, so the more duplicates there are the less there is to do.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.io.atomic import write_json_atomic
from pycurate.kernels.block_similarity import SAMPLE_ROWS, BlockPair, LeftBlock
from pycurate.kernels.distinct import Floats, Indices
from pycurate.pipeline.block_join.blocks import BlockPlan, plan_blocks
from pycurate.pipeline.block_join.row_states import EARLIER_DTYPE
from pycurate.pipeline.block_join.source import RowSource, open_array
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.workspace import digest

State: TypeAlias = NDArray[Any]
KeptOf: TypeAlias = Callable[[int, Indices, Indices], NDArray[np.bool_]]
"""(n, rows, cols): which of n rows greedy removal keeps, given the pairs that reach the threshold; earlier is lower."""


@dataclass(frozen=True, eq=False)
class OrderedRows:
    """Judged rows of a source, no two with the same bits, the earliest first."""

    source: RowSource
    rows: Indices  # (g,)
    known_kept: int = 0  # so many of the first are kept, whatever they are like

    def read(self, places: Indices) -> NDArray[Any]:
        """(len(places), d) the rows at these places, in this order."""
        numbers = self.rows[places]
        order = np.argsort(numbers, kind="stable")
        taken = np.empty((len(places), self.source.d), self.source.shards[0].dtype)
        taken[order] = self.source.take(numbers[order])
        return taken


def keep_greedily(
    ordered: OrderedRows, limit: float, folder: Path, kept_of: KeptOf, how: How, memory_bytes: int
) -> tuple[Indices, Floats]:
    """Remove each row that an earlier kept row reaches; goes on where an earlier call in ``folder`` stopped.

    Parameters
    ----------
    ordered
        The rows.
    limit
        The least similarity that removes a row.
    folder
        For what each finished block was decided to be: 12 bytes a row.
    kept_of
        Decides the rows of a part of a block whose pairs fit in memory.
    how
        As a similarity join is told.
    memory_bytes
        Cap on what is allocated.

    Returns
    -------
    (g,) place of the most similar earlier kept row, of equally similar ones the earliest, -1 where a row is kept; and
    (g,) the similarity, NaN where it is kept.
    """
    rows, source = len(ordered.rows), ordered.source
    plan = plan_blocks(memory_bytes, rows, source.d, source.row_bytes, 64 + source.row_bytes)
    sweep = _Sweep(ordered, limit, plan, kept_of, how)
    folder.mkdir(parents=True, exist_ok=True)
    block_rows = _block_rows(folder, ordered, limit, how, plan.block_rows)
    tasks = TaskFolder(folder, {"question": "greedy blocks"})
    places, best = np.full(rows, -1, np.int64), np.full(rows, np.nan, np.float32)
    for number, begin in enumerate(range(ordered.known_kept, rows, block_rows)):
        span = slice(begin, min(begin + block_rows, rows))
        path = folder / f"block-{number:05d}.npy"
        state = open_array(path) if path.exists() else None
        if state is None:
            state = sweep.decide(span, np.flatnonzero(places[:begin] < 0))
            tasks.write_file(path, state.nbytes, functools.partial(_write_array, state))
        places[span], best[span] = state["rank"], state["similarity"]
        if how.progress is not None:
            how.progress(span.stop / rows)
    return places, best


@dataclass(frozen=True, eq=False)
class _Sweep:
    ordered: OrderedRows
    limit: float
    plan: BlockPlan
    kept_of: KeptOf
    how: How

    def decide(self, span: slice, kept: Indices) -> State:
        """The rows of one block, given the places that are kept before it."""
        places = np.arange(span.start, span.stop)
        rows = self.ordered.read(places)
        state = _nothing(len(places))
        block = self._left(rows)
        for begin in range(0, len(kept), self.plan.block_rows):
            part = kept[begin : begin + self.plan.block_rows]
            _improve(state, self._earlier(block, places, self.ordered.read(part), part))
        del block
        open_places = np.flatnonzero(state["rank"] < 0)
        is_kept = np.zeros(len(places), bool)
        is_kept[open_places] = self._keep(rows[open_places], places[open_places])
        removed, stays = np.flatnonzero(~is_kept), np.flatnonzero(is_kept)
        if len(removed) and len(stays):  # those that earlier blocks removed may be more like a row kept in this one
            found = self._earlier(self._left(rows[removed]), places[removed], rows[stays], places[stays])
            of_removed = state[removed]
            _improve(of_removed, found)
            state[removed] = of_removed
        return state

    def _keep(self, rows: NDArray[Any], places: Indices) -> NDArray[np.bool_]:
        """(n,) which of some rows are kept by themselves; halves them while they have more pairs than fit."""
        if len(rows) < 2:
            return np.ones(len(rows), bool)
        found = BlockPair(self._left(rows), None).pairs_above(self.limit, self.plan.most_pairs, None)
        if found is not None:
            return self.kept_of(len(rows), found[0], found[1])
        kept, half = np.zeros(len(rows), bool), len(rows) // 2
        kept[:half] = self._keep(rows[:half], places[:half])
        stays = np.flatnonzero(kept)
        reached = self._earlier(self._left(rows[half:]), places[half:], rows[stays], places[stays])
        rest = half + np.flatnonzero(reached["rank"] < 0)
        kept[rest] = self._keep(rows[rest], places[rest])
        return kept

    def _earlier(self, block: LeftBlock, places: Indices, others: NDArray[Any], of_others: Indices) -> State:
        pair = BlockPair(block, others)
        ranks, best, _, _ = pair.max_earlier((places, of_others), self.limit, None)
        state = np.empty(len(places), EARLIER_DTYPE)
        state["rank"], state["similarity"] = ranks, best
        return state

    def _left(self, rows: NDArray[Any]) -> LeftBlock:
        element, how = self.ordered.source.element, self.how
        step = max(1, len(rows) // SAMPLE_ROWS)
        return LeftBlock(rows, element, how.metric, how.precision, how.threads, rows[::step][:SAMPLE_ROWS], len(rows))


def _improve(state: State, other: State) -> None:
    """Where ``other`` has a row that is more similar, or as similar and earlier, take it."""
    nearer = other["similarity"] > state["similarity"]
    as_near = (other["similarity"] == state["similarity"]) & (other["rank"] < state["rank"])
    better = nearer | as_near | ((state["rank"] < 0) & (other["rank"] >= 0))
    state[better] = other[better]


def _nothing(rows: int) -> State:
    state = np.empty(rows, EARLIER_DTYPE)
    state["rank"], state["similarity"] = -1, np.nan
    return state


def _block_rows(folder: Path, ordered: OrderedRows, limit: float, how: How, most: int) -> int:
    """Rows of a block: those of an earlier call about the same rows, unless more than fit now; else all begins anew."""
    path = folder / "plan.json"
    question = {"limit": str(limit), "metric": how.metric, "known_kept": ordered.known_kept, "rows": len(ordered.rows)}
    question["order"] = digest(ordered.source.fingerprint(), _checksum(ordered.rows))
    if path.exists():
        found = json.loads(path.read_text())
        if {**found, "block_rows": 0} == {**question, "block_rows": 0} and found["block_rows"] <= most:
            return int(found["block_rows"])
        shutil.rmtree(folder)
        folder.mkdir()
    write_json_atomic(path, {**question, "block_rows": most})
    return most


def _checksum(rows: Indices) -> str:
    import xxhash

    return str(xxhash.xxh3_128_hexdigest(np.ascontiguousarray(rows).data))


def _write_array(array: NDArray[Any], file: BinaryIO) -> None:
    np.lib.format.write_array(file, array, allow_pickle=False)
