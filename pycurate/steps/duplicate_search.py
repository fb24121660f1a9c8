"""What each removal semantics needs to know of the rows, asked of whatever finds similar ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import TooManyPairsError
from pycurate.index.kmeans import assign
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.fused_similarity import MostSimilarEarlier, Pairs
from pycurate.ops.dedup import removal
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join import RowSource, SimilarityJoin
from pycurate.pipeline.block_join.sweep import How, Progress
from pycurate.pipeline.cluster_join import ClusteredJoin
from pycurate.pipeline.greedy_blocks import OrderedRows, keep_greedily
from pycurate.pipeline.index_join import IndexedJoin

Arrays = dict[str, NDArray[Any]]


Candidates: TypeAlias = SimilarityJoin | ClusteredJoin | IndexedJoin
"""Finds similar rows of one matrix: everywhere, or only where they are likely."""

MAX_PAIRS = 20_000_000
"""Of greedy removal: 800 MB of disk while they are found, 400 MB after."""
NEIGHBORS, NPROBE, EF = 32, 16, 128
"""Of index mode, as `pycurate.indexed_join` has them."""


def indexed(
    source: RowSource, folder: Path, memory_bytes: int, threads: int, progress: Progress, device: str | None
) -> IndexedJoin:
    """The join of index mode."""
    return IndexedJoin(source, folder, "ivf", NEIGHBORS, NPROBE, EF, 0, memory_bytes, threads, progress, device)


def centroid_similarities(join: ClusteredJoin, source: RowSource, threads: int | None, device: str | None) -> Floats:
    """(n,) of each row with its centroid, NaN where it cannot be judged."""
    pieces = (piece for _, piece in source.pieces())
    return assign(pieces, join.centroids, threads=threads, dtype=source.dtype, device=device).similarities


def search(candidates: Candidates, kind: Removal, rank: Indices, floor: float, max_pairs: int) -> Arrays | None:
    """The arrays of a store, by the names that `DuplicateStore` reads; None where greedy has too many pairs."""
    if kind == "published":
        order = np.empty(len(rank), np.int64)
        order[rank] = np.arange(len(rank))
        best = candidates.most_similar_earlier(order, floor)
        return {"earlier": best.indices, "similarity": best.similarities}
    if kind == "component":
        return forest_arrays(0, *spanning_forest(candidates, floor))
    pairs = pairs_or_none(candidates, floor, max_pairs)
    if pairs is None:
        return None
    return {
        "pair_rows": pairs.rows,
        "pair_cols": pairs.cols,
        "pair_similarities": pairs.similarities,
        "copy_of": judged_copies(candidates),
    }


def forest_arrays(batch: int, rows: Indices, cols: Indices, similarities: Floats) -> Arrays:
    """The edges of one batch's forest as a store names them."""
    return {
        f"forest{batch}_rows": rows,
        f"forest{batch}_cols": cols,
        f"forest{batch}_similarities": similarities,
    }


def spanning_forest(candidates: Candidates, floor: float) -> tuple[Indices, Indices, Floats]:
    """The maximum spanning forest above the floor, copies joined to the first row with their bits."""
    n, copies = len(candidates.copy_of), judged_copies(candidates)
    found = candidates.spanning_forest_above(floor)
    return with_linked_copies(n, copies, found.rows, found.cols, found.similarities, floor)


def with_linked_copies(
    n: int, copy_of: Indices, rows: Indices, cols: Indices, similarities: Floats, floor: float
) -> tuple[Indices, Indices, Floats]:
    """The maximum spanning forest of edges and of copies, which reach the first row with their bits with 1."""
    copies = np.flatnonzero(copy_of >= 0) if floor <= 1 else np.empty(0, np.int64)
    rows, cols = np.concatenate([copy_of[copies], rows]), np.concatenate([copies, cols])
    return removal.spanning_forest(
        n, rows, cols, np.concatenate([np.ones(len(copies), np.float32), np.asarray(similarities)])
    )


def duplicates_at(
    candidates: Candidates,
    source: RowSource,
    kind: Removal,
    rank: Indices,
    threshold: float,
    strict: bool,
    max_pairs: int,
    folder: Path,
    how: How,
    memory_bytes: int,
) -> removal.Duplicates:
    """What is removed at one threshold, of which nothing is stored; greedy by blocks where pairs are too many.

    Parameters
    ----------
    folder
        Of the blocks.
    """
    found = search(candidates, kind, rank, threshold, max_pairs)
    if found is None:
        found = search_greedily(candidates, source, rank, threshold, strict, folder, how, memory_bytes)
        return removal.Duplicates(found["duplicate_of"], found["similarity"])
    if kind == "published":
        best = MostSimilarEarlier(found["earlier"], found["similarity"], candidates.unjudged)
        return removal.published(best, threshold, strict)
    if kind == "component":
        rows, cols, near = (found[f"forest0_{name}"] for name in ("rows", "cols", "similarities"))
        return removal.component(len(rank), rows, cols, near, rank, threshold, strict)
    rows, cols, near = (found[f"pair_{name}"] for name in ("rows", "cols", "similarities"))
    return removal.greedy(len(rank), rows, cols, near, rank, threshold, strict, copy_of=found["copy_of"])


def judged_copies(candidates: Candidates) -> Indices:
    """(n,) ``copy_of`` with -1 for rows that cannot be judged: two zero rows are no duplicates."""
    copy_of = np.array(candidates.copy_of)
    copy_of[candidates.unjudged] = -1
    return copy_of


def search_greedily(
    candidates: Candidates,
    source: RowSource,
    rank: Indices,
    threshold: float,
    strict: bool,
    folder: Path,
    how: How,
    memory_bytes: int,
    *,
    decided: removal.Duplicates | None = None,
) -> Arrays:
    """Greedy removal at one threshold without pairs, among the rows that the candidates' join would compare.

    Parameters
    ----------
    rank
        (n,) those of decided rows are the lowest.
    decided
        What the first m rows were decided to be, (m,) each.

    Returns
    -------
    ``duplicate_of`` and ``similarity``, (n,) each.
    """
    n, known = len(rank), 0 if decided is None else len(decided.kept)
    row_of_rank = np.empty(n, np.int64)
    row_of_rank[rank] = np.arange(n)
    copy_of = judged_copies(candidates)
    first = removal.first_of_copies(copy_of, rank, row_of_rank)
    is_asked = first == np.arange(n)
    is_asked[candidates.unjudged] = False
    if decided is not None:
        is_asked[:known] &= decided.kept
    rows = row_of_rank[is_asked[row_of_rank]]
    ordered = OrderedRows(source, rows, int(np.count_nonzero(is_asked[:known])))
    limit = removal.least_reaching(threshold, strict)
    with contextlib.ExitStack() as stack:
        compare = None
        if isinstance(candidates, ClusteredJoin):
            compare = stack.enter_context(candidates.meetings(threshold, limit, rows, how))
        places, best = keep_greedily(ordered, limit, folder, _kept_of, how, memory_bytes, compare)
    duplicate_of, similarity = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    duplicate_of[rows], similarity[rows] = np.append(rows, -1)[places], best
    if decided is not None:
        duplicate_of[:known], similarity[:known] = decided
    found = removal.with_copies(removal.Duplicates(duplicate_of, similarity), first, threshold, strict)
    return {"duplicate_of": found.duplicate_of, "similarity": found.similarity}


def _kept_of(n: int, rows: Indices, cols: Indices) -> NDArray[np.bool_]:
    return removal.greedy(n, rows, cols, np.ones(len(rows), np.float32), np.arange(n), 1.0).kept


def pairs_or_none(candidates: Candidates, floor: float, max_pairs: int) -> Pairs | None:
    """All pairs from the floor on, None where there are more than ``max_pairs``.

    An index proposes so many for each row and no more, which it holds at any rate.
    """
    try:
        return candidates.pairs_above(floor, max_pairs=None if isinstance(candidates, IndexedJoin) else max_pairs)
    except TooManyPairsError:
        return None
