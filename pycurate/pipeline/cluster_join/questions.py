"""What is asked of each cluster, what its task leaves on disk, and how all of it becomes one answer.

A row that visits is compared in several clusters, and two rows that visit each other's clusters meet twice. A pair
found twice has the same canonical similarity both times, so maxima and components are as if it had been found once;
pairs are listed once when they are merged.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycurate.io.atomic import atomic_write
from pycurate.kernels.block_similarity import lowest_of_component
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.spanning_forest import heaviest_forest
from pycurate.pipeline.block_join.forest import FOREST_DTYPE
from pycurate.pipeline.block_join.pair_limit import require_at_most
from pycurate.pipeline.block_join.pair_runs import COLUMNS, PAIR_DTYPE, runs_of
from pycurate.pipeline.block_join.source import open_array
from pycurate.pipeline.block_join.sweep import Progress
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.cluster_join.batches import Batches, ClusterRows, Meeting
from pycurate.pipeline.cluster_join.segments import write_array

EARLIER_DTYPE = np.dtype([("place", "<i8"), ("rank", "<i8"), ("similarity", "<f4")])


# -- the most similar earlier row ------------------------------------------------------------------------------------


def sweep_earlier(
    batches: Batches, folder: TaskFolder, ranks: Indices, floor: float, progress: Progress
) -> tuple[Indices, Floats]:
    """(g,) rank and similarity of the most similar row of lower rank; -1 and NaN where none was met."""

    def ask(rows: ClusterRows, meetings: Iterator[Meeting]) -> NDArray[Any]:
        places = np.concatenate([rows.places, rows.visitor_places])
        state = np.empty(len(places), EARLIER_DTYPE)
        state["place"], state["rank"], state["similarity"] = places, -1, np.nan
        for meeting in meetings:
            sides = [meeting.left, _among_both(meeting, len(rows.places))]
            of_left, of_right = (ranks[places[side]] for side in sides)
            own = meeting.pair.right is None
            left, near, right, near_right = meeting.pair.max_earlier(
                (of_left, None if own else of_right), floor, meeting.progress
            )
            _keep_better(state[sides[0]], left, near)
            if right is not None and near_right is not None:
                _keep_better(state[sides[1]], right, near_right)
        return state[state["rank"] >= 0]

    def work(number: int, clusters: range, tell: Progress) -> None:
        found = [np.empty(0, EARLIER_DTYPE), *batches.each(clusters, ask, tell)]
        _finish(folder, number, np.concatenate(found))

    batches.run(lambda number: folder.facts(number, 0) is not None, work, progress)
    best_rank, best = np.full(len(ranks), -1), np.full(len(ranks), np.nan, np.float32)
    for number in range(len(batches.tasks())):
        found = open_array(folder.task_path(number, 0, "npy"))
        # The best of each row comes first, so that of a row's several finds only that is merged.
        ordered = found[np.lexsort((found["rank"], -found["similarity"], found["place"]))]
        first = np.ones(len(ordered), bool)
        first[1:] = ordered["place"][1:] != ordered["place"][:-1]
        found = ordered[first]
        state = np.empty(len(found), EARLIER_DTYPE)
        at = found["place"]
        state["rank"], state["similarity"] = best_rank[at], best[at]
        _keep_better(state, found["rank"], found["similarity"])
        best_rank[at], best[at] = state["rank"], state["similarity"]
    return best_rank, best


def _among_both(meeting: Meeting, members: int) -> slice:
    first = members if meeting.with_visitors else 0
    return slice(meeting.right.start + first, meeting.right.stop + first)


def _keep_better(state: NDArray[Any], rank: Indices, similarity: Floats) -> None:
    nearer = similarity > state["similarity"]
    as_near = (similarity == state["similarity"]) & (rank < state["rank"])
    better = nearer | as_near | ((state["rank"] < 0) & (rank >= 0))
    state["rank"][better], state["similarity"][better] = rank[better], similarity[better]


# -- components ------------------------------------------------------------------------------------------------------


def sweep_components(batches: Batches, folder: TaskFolder, rows: int, limit: float, progress: Progress) -> Indices:
    """(g,) the lowest place in each row's component, by all pairs that met at or above ``limit``."""

    def ask(of_cluster: ClusterRows, meetings: Iterator[Meeting]) -> NDArray[np.int64]:
        edges: list[NDArray[np.int64]] = []
        places = np.concatenate([of_cluster.places, of_cluster.visitor_places])
        for meeting in meetings:
            found = meeting.pair.forest_above(limit, meeting.progress)
            right = _among_both(meeting, len(of_cluster.places))
            edges.append(np.stack([found[0] + meeting.left.start, found[1] + right.start]))
            if sum(part.shape[1] for part in edges) > 2 * len(places):
                edges = [_spanning(edges, len(places))]
        return places[_spanning(edges, len(places))]

    def work(number: int, clusters: range, tell: Progress) -> None:
        edges = [np.empty((2, 0), np.int64), *batches.each(clusters, ask, tell)]
        _finish(folder, number, np.concatenate(edges, axis=1))

    batches.run(lambda number: folder.facts(number, 0) is not None, work, progress)
    lowest = np.arange(rows)
    for number in range(len(batches.tasks())):
        found = open_array(folder.task_path(number, 0, "npy"))
        if found.shape[1]:
            lowest = lowest_of_component(rows, lowest[found[0]], lowest[found[1]])[lowest]
    return lowest


def _spanning(edges: list[NDArray[np.int64]], rows: int) -> NDArray[np.int64]:
    """(2, e) fewer edges than there are rows, with the same components."""
    ends = np.concatenate([np.empty((2, 0), np.int64), *edges], axis=1)
    lowest = lowest_of_component(rows, np.ascontiguousarray(ends[0]), np.ascontiguousarray(ends[1]))
    joined = np.flatnonzero(lowest != np.arange(rows))
    return np.stack([lowest[joined], joined])


# -- the heaviest spanning forest ------------------------------------------------------------------------------------


def sweep_forest(
    batches: Batches, folder: TaskFolder, rows: int, floor: float, progress: Progress
) -> tuple[Indices, Indices, Floats]:
    """Edges (place, place) of the forest of all pairs that met at or above ``floor``, heaviest first.

    Within a cluster, of equally similar pairs that of the lower (member, other) is the heavier, members before
    visitors; among clusters that of lower (row, col). Either order is complete, so that no block changes the forest.
    """

    def ask(of_cluster: ClusterRows, meetings: Iterator[Meeting]) -> NDArray[Any]:
        places = np.concatenate([of_cluster.places, of_cluster.visitor_places])
        edges = [np.empty(0, FOREST_DTYPE)]
        for meeting in meetings:
            rows, cols, similarities = meeting.pair.spanning_forest_above(floor, meeting.progress)
            right = _among_both(meeting, len(of_cluster.places))
            edges.append(_edges(rows + meeting.left.start, cols + right.start, similarities))
            if sum(map(len, edges)) > 2 * len(places):
                edges = [_heaviest(edges, len(places))]
        found = _heaviest(edges, len(places))
        ends = places[found["row"]], places[found["col"]]
        found["row"], found["col"] = np.minimum(*ends), np.maximum(*ends)
        return found

    def work(number: int, clusters: range, tell: Progress) -> None:
        edges = [np.empty(0, FOREST_DTYPE), *batches.each(clusters, ask, tell)]
        _finish(folder, number, np.concatenate(edges))

    batches.run(lambda number: folder.facts(number, 0) is not None, work, progress)
    forest = np.empty(0, FOREST_DTYPE)
    for number in range(len(batches.tasks())):
        forest = _heaviest([forest, open_array(folder.task_path(number, 0, "npy"))], rows)
    return forest["row"].copy(), forest["col"].copy(), forest["similarity"].copy()


def _heaviest(edges: list[NDArray[Any]], rows: int) -> NDArray[Any]:
    joined = np.concatenate(edges)
    found = heaviest_forest(
        rows, joined["row"].copy(), joined["col"].copy(), np.ascontiguousarray(joined["similarity"])
    )
    return _edges(*found)


def _edges(rows: Indices, cols: Indices, similarities: Floats) -> NDArray[Any]:
    edges = np.empty(len(rows), FOREST_DTYPE)
    edges["row"], edges["col"], edges["similarity"] = rows, cols, similarities
    return edges


# -- pairs -----------------------------------------------------------------------------------------------------------


def sweep_pairs(
    batches: Batches,
    folder: TaskFolder,
    row_of: Indices,
    limit: float,
    most_in_memory: int,
    max_pairs: int | None,
    progress: Progress,
) -> None:
    """Leave the pairs of each task in files of sorted runs; ``row_of`` (g,) numbers the distinct rows.

    Raises
    ------
    TooManyPairsError
        More than ``max_pairs`` in all; what was found stays, for a run that allows more.
    """
    done = {number for number in range(len(batches.tasks())) if folder.facts(number, 0) is not None}
    most = max(1, most_in_memory // batches.workers)
    total = sum(sum((folder.facts(number, 0) or {})["runs"]) for number in done)

    def work(number: int, clusters: range, tell: Progress) -> None:
        path, lock = folder.task_path(number, 0, "pairs"), threading.Lock()
        counts: list[int] = []
        waiting: list[NDArray[Any]] = []
        with atomic_write(path, "file") as file:

            def write() -> None:
                nonlocal total
                run = _once(np.concatenate(waiting))
                waiting.clear()
                total += len(run)
                require_at_most(max_pairs, (total + 1) // 2, limit)  # no pair is found more than twice
                folder.require_disk((total + len(run)) * PAIR_DTYPE.itemsize)
                file.write(run.view(np.uint8).data)
                counts.append(len(run))

            def ask(rows: ClusterRows, meetings: Iterator[Meeting]) -> None:
                for meeting in meetings:
                    right = (rows.visitor_places if meeting.with_visitors else rows.places)[meeting.right]
                    left = row_of[rows.places[meeting.left]]
                    for found in runs_of(meeting.pair, left, row_of[right], limit, most, meeting.progress):
                        with lock:
                            waiting.append(_oriented(found))
                            if sum(map(len, waiting)) >= most_in_memory:
                                write()

            batches.each(clusters, ask, tell)
            if waiting:
                write()
        folder.finish(number, 0, [path], runs=counts)

    batches.run(done.__contains__, work, progress)


def merge_pairs(
    batches: Batches, folder: TaskFolder, rows: int, limit: float, most_in_memory: int, max_pairs: int | None
) -> None:
    """Write all pairs once, sorted by (row, col), as the answer ``rows``, ``cols`` and ``similarities``.

    Raises
    ------
    TooManyPairsError
        More than ``max_pairs``.
    """
    runs: list[NDArray[Any]] = []
    before = np.zeros(rows + 1, np.int64)  # pairs of the rows before each, those found twice counted twice
    for number in range(len(batches.tasks())):
        facts, begin = folder.facts(number, 0), 0
        assert facts is not None  # the lock is held since the sweep
        for count in facts["runs"]:
            offset = begin * PAIR_DTYPE.itemsize
            runs.append(np.memmap(folder.task_path(number, 0, "pairs"), PAIR_DTYPE, "r", offset, (count,)))
            np.add.at(before, runs[-1]["row"] + 1, 1)
            begin += count
    np.cumsum(before, out=before)
    folder.require_disk(int(before[-1]) * PAIR_DTYPE.itemsize)
    total, start = 0, 0
    with contextlib.ExitStack() as stack:
        files = {c: stack.enter_context(atomic_write(folder.answer_path(name), "file")) for name, c in COLUMNS.items()}
        _write_headers(files, 0)
        while start < rows:
            stop = max(start + 1, int(np.searchsorted(before, before[start] + most_in_memory, side="right")) - 1)
            parts = [run[slice(*np.searchsorted(run["row"], (start, stop)))] for run in runs]
            pairs = _once(np.concatenate([np.empty(0, PAIR_DTYPE), *parts]))
            total += len(pairs)
            require_at_most(max_pairs, total, limit)
            for column, file in files.items():
                file.write(np.ascontiguousarray(pairs[column]).view(np.uint8).data)
            start = stop
        _write_headers(files, total)
    folder.declare_answer(list(COLUMNS))


def _write_headers(files: dict[str, BinaryIO], total: int) -> None:
    """NumPy leaves room in a header for any number of rows, so that it can be written again when that is known."""
    for column, file in files.items():
        file.seek(0)
        np.lib.format.write_array_header_1_0(
            file, {"descr": PAIR_DTYPE[column].str, "fortran_order": False, "shape": (total,)}
        )


def _oriented(pairs: NDArray[Any]) -> NDArray[Any]:
    """The lower row first."""
    swapped = pairs["row"] > pairs["col"]
    rows, cols = pairs["row"].copy(), pairs["col"]
    pairs["row"] = np.where(swapped, cols, rows)
    pairs["col"] = np.where(swapped, rows, cols)
    return pairs


def _once(pairs: NDArray[Any]) -> NDArray[Any]:
    """Sorted by (row, col), each once."""
    pairs = pairs[np.lexsort((pairs["col"], pairs["row"]))]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs["row"][1:] != pairs["row"][:-1]) | (pairs["col"][1:] != pairs["col"][:-1])
    return pairs[new]


def _finish(folder: TaskFolder, number: int, array: NDArray[Any]) -> None:
    path = folder.task_path(number, 0, "npy")
    folder.write_file(path, array.nbytes, functools.partial(write_array, array))
    folder.finish(number, 0, [path])
