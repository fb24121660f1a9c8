"""Greedy removal without pairs: blocks of rows in order of priority, each compared with the rows kept so far.

Memory is that of two blocks and a few numbers a row, however many pairs there are. Arithmetic is that of every row with
every kept row before it that it meets, so the more duplicates there are the less there is to do.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

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
        return self.source.take_any(self.rows[places])


class Comparison(Protocol):
    """Which rows meet, and how those that do are compared."""

    def earlier(self, places: Indices, others: Indices) -> State:
        """(len(places),) of each the most similar of ``others`` that is earlier and reaches the limit."""
        ...

    def pairs(self, places: Indices, most: int) -> tuple[Indices, Indices] | None:
        """The pairs that reach the limit, numbered by their rows in ``places``; None where there are more than most."""
        ...


def keep_greedily(
    ordered: OrderedRows, limit: float, folder: Path, kept_of: KeptOf, how: How, memory_bytes: int,
    compare: Callable[[BlockPlan], Comparison] | None = None,
) -> tuple[Indices, Floats]:  # fmt: skip
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
    compare
        Which rows meet, told what fits; default: all.

    Returns
    -------
    (g,) place of the most similar earlier kept row, of equally similar ones the earliest, -1 where a row is kept; and
    (g,) the similarity, NaN where it is kept.
    """
    rows, source = len(ordered.rows), ordered.source
    plan = plan_blocks(memory_bytes, rows, source.d, source.row_bytes, 64 + source.row_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    block_rows = _block_rows(folder, ordered, limit, how, plan.block_rows)
    comparison = AllRows(ordered, limit, plan.block_rows, how) if compare is None else compare(plan)
    sweep = _Sweep(comparison, plan.most_pairs, kept_of)
    tasks = TaskFolder(folder, {"question": "greedy blocks"})
    places, best = np.full(rows, -1, np.int64), np.full(rows, np.nan, np.float32)
    for number, begin in enumerate(range(ordered.known_kept, rows, block_rows)):
        span = slice(begin, min(begin + block_rows, rows))
        path = folder / f"block-{number:05d}.npy"
        state = open_array(path) if path.exists() else None
        if state is None:
            state = sweep.decide(np.arange(span.start, span.stop), np.flatnonzero(places[:begin] < 0))
            tasks.write_file(path, state.nbytes, functools.partial(_write_array, state))
        places[span], best[span] = state["rank"], state["similarity"]
        if how.progress is not None:
            how.progress(span.stop / rows)
    return places, best


@dataclass(frozen=True, eq=False)
class _Sweep:
    comparison: Comparison
    most_pairs: int
    kept_of: KeptOf

    def decide(self, places: Indices, kept: Indices) -> State:
        """The rows of one block, given the places that are kept before it."""
        state = self.comparison.earlier(places, kept)
        open_places = np.flatnonzero(state["rank"] < 0)
        is_kept = np.zeros(len(places), bool)
        is_kept[open_places] = self._keep(places[open_places])
        removed = np.flatnonzero(~is_kept)  # those that earlier blocks removed may be more like a row kept in this one
        of_removed = state[removed]
        improve(of_removed, self.comparison.earlier(places[removed], places[is_kept]))
        state[removed] = of_removed
        return state

    def _keep(self, places: Indices) -> NDArray[np.bool_]:
        """(n,) which of some rows are kept by themselves; halves them while they have more pairs than fit."""
        if len(places) < 2:
            return np.ones(len(places), bool)
        found = self.comparison.pairs(places, self.most_pairs)
        if found is not None:
            return self.kept_of(len(places), *found)
        kept, half = np.zeros(len(places), bool), len(places) // 2
        kept[:half] = self._keep(places[:half])
        reached = self.comparison.earlier(places[half:], places[np.flatnonzero(kept)])
        rest = half + np.flatnonzero(reached["rank"] < 0)
        kept[rest] = self._keep(places[rest])
        return kept


@dataclass(frozen=True, eq=False)
class AllRows:
    """Every two rows meet."""

    ordered: OrderedRows
    limit: float
    block_rows: int
    how: How

    def earlier(self, places: Indices, others: Indices) -> State:
        """As `Comparison`."""
        state = nothing(len(places))
        if len(places) and len(others):
            left = left_block(self.ordered.read(places), self.ordered.source.element, self.how)
            for begin in range(0, len(others), self.block_rows):
                part = others[begin : begin + self.block_rows]
                ranks, best, _, _ = BlockPair(left, self.ordered.read(part)).max_earlier(
                    (places, part), self.limit, None
                )
                improve(state, state_of(ranks, best))
        return state

    def pairs(self, places: Indices, most: int) -> tuple[Indices, Indices] | None:
        """As `Comparison`."""
        left = left_block(self.ordered.read(places), self.ordered.source.element, self.how)
        found = BlockPair(left, None).pairs_above(self.limit, most, None)
        return None if found is None else found[:2]


def left_block(rows: NDArray[Any], element: str, how: How) -> LeftBlock:
    """Rows to compare with others like them."""
    step = max(1, len(rows) // SAMPLE_ROWS)
    return LeftBlock(
        rows, element, how.metric, how.precision, how.threads, rows[::step][:SAMPLE_ROWS], len(rows), how.device
    )


def state_of(ranks: Indices, best: Floats) -> State:
    """Of each row the place of another and the similarity."""
    state = np.empty(len(ranks), EARLIER_DTYPE)
    state["rank"], state["similarity"] = ranks, best
    return state


def improve(state: State, other: State) -> None:
    """Where ``other`` has a row that is more similar, or as similar and earlier, take it."""
    nearer = other["similarity"] > state["similarity"]
    as_near = (other["similarity"] == state["similarity"]) & (other["rank"] < state["rank"])
    better = nearer | as_near | ((state["rank"] < 0) & (other["rank"] >= 0))
    state[better] = other[better]


def nothing(rows: int) -> State:
    """No other row."""
    return state_of(np.full(rows, -1), np.full(rows, np.nan, np.float32))


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
