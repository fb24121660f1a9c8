"""`DuplicateStore`: what a search for duplicates found, from which any threshold at or above its floor is a mask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.api.dedup_rows import StoredMatrix, mapped_source
from pycurate.errors import InputError
from pycurate.kernels.arrays import float32_of
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.fused_similarity import MostSimilarEarlier
from pycurate.ops.dedup import removal
from pycurate.ops.dedup.curve import greedy_counts, kept_counts
from pycurate.ops.dedup.removal import Duplicates, Removal
from pycurate.pipeline.block_join import RowSource
from pycurate.pipeline.duplicate_folder import DuplicateFolder
from pycurate.types import UidArray

STORE = "store"
"""Name of the store's folder below that of a run."""


class DuplicateStore:
    """The stored result of a run of `pycurate.dedup`.

    Holds what its removal semantics needs above the floor: of `published` for every row the most similar earlier one,
    of `component` the edges of the maximum spanning forest, of `greedy` all pairs. No embedding is read to answer.

    Parameters
    ----------
    folder
        That of the run, or the store itself.

    Raises
    ------
    InputError
        There is no finished result.
    WorkspaceError
        A file of it is missing or cut short.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        root = Path(folder)
        self._folder = DuplicateFolder(root / STORE if (root / STORE).is_dir() else root)
        self.facts: dict[str, Any] = self._folder.require_facts()

    def __len__(self) -> int:
        """Rows."""
        return int(self.facts["rows"])

    @property
    def floor(self) -> float:
        """The lowest threshold that can be answered."""
        return float(self.facts["floor"])

    @property
    def removal(self) -> Removal:
        """The semantics."""
        name: Removal = self.facts["removal"]
        return name

    @property
    def strict(self) -> bool:
        """Whether a pair must be above a threshold, not at it."""
        return bool(self.facts["strict"])

    @property
    def only_threshold(self) -> float | None:
        """The one threshold that is answered where greedy removal went by blocks; None where any from the floor on."""
        value = self.facts.get("only_threshold")
        return None if value is None else float(value)

    @cached_property
    def uids(self) -> UidArray:
        """(n,) in the order of the rows, memory-mapped."""
        return self._folder.array("uids")

    @cached_property
    def rank(self) -> Indices:
        """(n,) which row is earlier: lower."""
        return self._folder.array("rank")

    @cached_property
    def unjudged(self) -> Indices:
        """(u,) rising rows that cannot be judged; they are kept."""
        return self._folder.array("unjudged")

    def source(self) -> RowSource:
        """The embeddings, where they lay when duplicates were looked for."""
        return mapped_source(self.matrices())

    def matrices(self) -> list[StoredMatrix]:
        """Where they lie."""
        return [StoredMatrix(**entry) for entry in self.facts["matrices"]]

    def array(self, name: str) -> NDArray[Any]:
        """One of the store's arrays, memory-mapped."""
        return self._folder.array(name)

    def at(self, threshold: float) -> Duplicates:
        """What is removed at a threshold.

        Parameters
        ----------
        threshold
            A similarity at or above the floor, rounded once to float32.

        Raises
        ------
        InputError
            It is below the floor, or not the one threshold that is answered; says what to do.
        """
        self.require(threshold)
        if self.only_threshold is not None:
            return Duplicates(np.array(self.array("duplicate_of")), np.array(self.array("similarity")))
        if self.removal == "published":
            return removal.published(self._earlier(), threshold, self.strict)
        if self.removal == "greedy":
            return removal.greedy(
                len(self), *self._pairs(), self.rank, threshold, self.strict, copy_of=self.array("copy_of")
            )
        parts = []
        for begin, end, edges in self._forests():
            found = removal.component(end, *edges, self.rank[:end], threshold, self.strict)
            parts.append((found.duplicate_of[begin:], found.similarity[begin:]))
        return Duplicates(np.concatenate([d for d, _ in parts]), np.concatenate([s for _, s in parts]))

    def curve(self, thresholds: Sequence[float]) -> Indices:
        """(t,) rows that are kept at each threshold.

        Raises
        ------
        InputError
            As `at`.
        """
        for threshold in thresholds:
            self.require(threshold)
        n, strict = len(self), self.strict
        if self.only_threshold is not None:
            return np.full(len(thresholds), np.count_nonzero(self.array("duplicate_of") < 0), np.int64)
        if self.removal == "published":
            return kept_counts(n, self.array("similarity"), thresholds, strict)
        if self.removal == "greedy":
            return greedy_counts(n, *self._pairs(), self.rank, thresholds, strict, copy_of=self.array("copy_of"))
        kept = np.zeros(len(thresholds), np.int64)
        for begin, end, (rows, cols, near) in self._forests():
            # Earlier batches as one row: a row of this batch that is linked to them is removed, whatever they are.
            rows, cols = np.maximum(rows - begin + 1, 0), np.maximum(cols - begin + 1, 0)
            inside = rows != cols
            links = removal.spanning_forest(end - begin + 1, rows[inside], cols[inside], near[inside])[2]
            kept += kept_counts(end - begin, links, thresholds, strict)
        return kept

    def require(self, threshold: float) -> None:
        """InputError unless `at` can answer this threshold."""
        limit = float32_of("threshold", threshold)
        only = self.only_threshold
        if only is not None and limit != np.float32(only):
            raise InputError(
                f"threshold: {threshold:g} cannot be answered: this search had more than {self.facts['max_pairs']:,} "
                f"pairs, so greedy removal went through the rows at {only:g} only; run at {threshold:g} into another "
                "folder, or allow more pairs with max_pairs (32 bytes each)"
            )
        if limit < np.float32(self.floor):
            raise InputError(
                f"threshold: {threshold:g} is below {self.floor:g}, the floor of this search, under which nothing is "
                f"known; search again with floor={threshold:g} or lower, into another folder"
            )

    def _earlier(self) -> MostSimilarEarlier:
        return MostSimilarEarlier(self.array("earlier"), self.array("similarity"), self.unjudged)

    def _pairs(self) -> tuple[Indices, Indices, Floats]:
        return self.array("pair_rows"), self.array("pair_cols"), self.array("pair_similarities")

    def _forests(self) -> list[tuple[int, int, tuple[Indices, Indices, Floats]]]:
        """For each batch its first row, the one behind its last, and the forest of all rows up to there."""
        found, begin = [], 0
        for number, batch in enumerate(self.facts["batches"]):
            end = begin + int(batch["rows"])
            rows, cols = self.array(f"forest{number}_rows"), self.array(f"forest{number}_cols")
            found.append((begin, end, (rows, cols, self.array(f"forest{number}_similarities"))))
            begin = end
        return found
