"""An index folder, opened: candidates from FAISS or from all rows, similarities and order canonical."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, WorkspaceError
from pycurate.index import faiss_calls
from pycurate.index.exact import best_first, exact_nearest, nothing_found, rescored
from pycurate.index.folder import file_of, mapped, read_manifest
from pycurate.index.kinds import Kind, default_nprobe
from pycurate.index.rows import Rows, check_count
from pycurate.kernels.device import device_of
from pycurate.kernels.rowwise import Metric
from pycurate.types import UID_DTYPE, UidArray

MANIFEST = "index.json"

EXACT_ROWS = 20_000
"""A selection up to so many rows is searched by brute force: some milliseconds, where lists may hold none of it."""
SPARSE = 20
"""So is a graph's, up to a twentieth of its rows: the walk would meet hardly any of them."""
QUERY_BLOCK = 1024
_CANDIDATES = {"flat": (1, 0), "ivf_flat": (1, 32), "hnsw": (1, 32), "ivf_pq": (8, 64)}
"""Rows to re-score for k neighbours, as (factor, addend): codes of whole rows only swap near ties, quantised ones more.
With a prefix, the figures of ``ivf_pq``."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """Rows found for each query, nearest first, ties to the lower row.

    Attributes
    ----------
    indices, similarities
        (m, k) int64 row numbers and canonical float32 similarities; -1 and NaN beyond the last.
    uids
        (m, k) uids where the index has them; zero beyond the last.
    unjudged
        Queries that cannot be judged, rising; nothing is found for them.
    exact
        Whether these are the nearest rows. Otherwise rows may have been missed, but those found have true
        similarities.
    note
        How they were found, in words.
    """

    indices: NDArray[np.int64]
    similarities: NDArray[np.float32]
    uids: UidArray | None
    unjudged: NDArray[np.int64]
    exact: bool
    note: str


class _Way(NamedTuple):
    """How a search goes: by brute force over ``rows`` (None: all), or by proposals of FAISS or of a prefix."""

    exact: bool
    rows: NDArray[np.int64] | None  # that may be found
    allowed: NDArray[np.bool_] | None  # the same over the places FAISS numbers rows by
    effort: int
    prefix: int | None
    note: str


class VectorIndex:
    """An index folder, memory-mapped. Made by `build_index`, opened by `open_vector_index`.

    Attributes
    ----------
    folder, manifest
        Where it lies, and what its manifest says.
    kind, metric, prefix
        As it was built.
    vectors
        The stored rows.
    places
        (j,) int64: the rows that can be judged, rising; None where all can.
    uids
        (n,) uids, or None.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()
        self.manifest = read_manifest(self.folder, MANIFEST, "index")
        facts = self.manifest
        self.kind: Kind = facts["kind"]
        self.metric: Metric = facts["metric"]
        self.prefix: int | None = facts["prefix"]
        self.vectors = Rows(self._mapped("vectors"), facts["element"])
        self.uids: UidArray | None = self._mapped("uids") if "uids" in facts["files"] else None
        self.places: NDArray[np.int64] | None = self._mapped("places") if "places" in facts["files"] else None
        self._faiss = None
        if self.kind != "flat":
            path = file_of(self.folder, facts, "index")
            assert path is not None
            self._faiss = faiss_calls.read(path, self.kind)
            if self._faiss.ntotal != self._judged:
                raise WorkspaceError(f"index: {path} has {self._faiss.ntotal:,} rows, expected {self._judged:,}")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """Elements of a row."""
        return self.vectors.dimension

    @property
    def attributes_path(self) -> Path | None:
        """The parquet file of the rows' attributes, or None."""
        return file_of(self.folder, self.manifest, "attributes")

    def rows_of_uid(self, uid: tuple[int, int]) -> NDArray[np.int64]:
        """The rows with this uid, rising. Reads all uids, which are in the order of rows."""
        if self.uids is None:
            raise InputError(f"uid: {self.folder} has no uids; build the index from a pool, or with uids")
        return np.flatnonzero((self.uids["f0"] == uid[0]) & (self.uids["f1"] == uid[1]))

    def search(
        self,
        queries: NDArray[Any],
        k: int,
        *,
        where: NDArray[np.bool_] | None = None,
        nprobe: int | None = None,
        ef: int | None = None,
        prefix: int | None = None,
        candidates: int | None = None,
        threads: int | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> Neighbors:
        """The rows most similar to each query.

        Parameters
        ----------
        queries
            (m, d) of the element type of the index, or of another float type: both are then widened to float32, which
            is exact.
        k
            Neighbours of each. As many are found as may be: where an approximate search finds fewer, that query is
            searched by brute force.
        where
            (n,) bool: the rows that may be found. Up to 20,000 of them, or for a graph a twentieth, are searched by
            brute force.
        nprobe
            Lists to look into (``ivf_flat``, ``ivf_pq``); default a sixteenth, at least 16.
        ef
            Rows to keep in view on the way through the graph (``hnsw``); default 128, at least the candidates, and with
            ``where`` more by the share of rows it leaves.
        prefix
            Look for candidates by the first coordinates only, scaled to length 1 for cosine. An index that was built
            on a prefix always does, by that one; a flat index takes any.
        candidates
            Rows to re-score on all coordinates for each query; default k + 32, and 8 k + 64 for ``ivf_pq`` and with a
            prefix.
        threads
            Threads; default all. The result does not depend on them.
        device
            Where brute force runs, as in `pycurate.nearest`: of up to 16 queries, or for more than 128 candidates, it
            stays on the CPU, as FAISS and re-scoring do. The result does not depend on it.

        Raises
        ------
        InputError
            A value is not as above, or does not go with the kind of index.
        """
        asked = Rows.of("queries", queries, dtype)
        check_count("k", k)
        if asked.dimension != self.dimension:
            raise InputError(
                f"queries: expected {self.dimension} elements as the rows of the index have, got {asked.dimension}"
            )
        if (asked.element == "int8") != (self.vectors.element == "int8"):
            raise InputError(
                f"queries: expected {self.vectors.element} as the rows of the index, got {asked.element}; int8 rows "
                "are compared with int8 only, so quantise or widen one side on purpose"
            )
        device_of(device)
        count = self._candidates(k, candidates, prefix)
        way = self._way(count, where, nprobe, ef, prefix)
        judged = asked.judged(self.metric, threads)
        indices, similarities = nothing_found(len(asked), k)
        rows = np.flatnonzero(judged)
        for start in range(0, len(rows), QUERY_BLOCK):
            part = rows[start : start + QUERY_BLOCK]
            indices[part], similarities[part] = self._found(asked.take(part), k, count, way, threads, device)
        return Neighbors(indices, similarities, self._uids_at(indices), np.flatnonzero(~judged), way.exact, way.note)

    def _found(
        self, queries: Rows, k: int, count: int, way: _Way, threads: int | None, device: str | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if way.exact:
            return exact_nearest(queries, self.vectors, k, self.metric, rows=way.rows, threads=threads, device=device)
        proposed = self._proposed(queries, count, way, threads, device)
        scores = rescored(queries, self.vectors, proposed, self.metric, threads)
        indices, similarities = best_first(proposed, scores, k)
        if indices.shape[1] < k:
            indices, similarities = (_widened_to(k, indices, -1), _widened_to(k, similarities, np.nan))
        may_be_found = self._judged if way.rows is None else len(way.rows)
        short = np.flatnonzero((indices >= 0).sum(axis=1) < min(k, may_be_found))
        if len(short):
            rows = self.places if way.rows is None else way.rows
            indices[short], similarities[short] = exact_nearest(
                queries.take(short), self.vectors, k, self.metric, rows=rows, threads=threads, device=device
            )
        return indices, similarities

    def _proposed(
        self, queries: Rows, count: int, way: _Way, threads: int | None, device: str | None
    ) -> NDArray[np.int64]:
        if way.prefix is not None:
            part = queries.prefix(way.prefix)
            good = np.flatnonzero(part.judged(self.metric, threads))
            if len(good) < len(part):  # a row of length 0 in its first coordinates has no direction there to look in
                found = nothing_found(len(part), count)[0]
                found[good] = self._proposed(queries.take(good), count, way, threads, device)
                return found
            queries = part
        if self._faiss is None:
            vectors = self.vectors.prefix(queries.dimension)
            return exact_nearest(queries, vectors, count, self.metric, rows=way.rows, threads=threads, device=device)[0]
        seen = faiss_calls.seen_by_faiss(queries, self.metric, threads)
        with faiss_calls.faiss_threads(threads):
            places = faiss_calls.propose(
                self._faiss,
                self.kind,
                seen,
                count,
                effort=way.effort,
                allowed=way.allowed,
                pq_width=self.manifest["pq_width"],
            )
        return places if self.places is None else np.where(places >= 0, self.places[places], -1)

    def _way(
        self, count: int, where: NDArray[np.bool_] | None, nprobe: int | None, ef: int | None, prefix: int | None
    ) -> _Way:
        self._check_options(nprobe, ef, prefix)
        rows, allowed = self._selection(where)
        selected = self._judged if rows is None else len(rows)
        among = "" if where is None else f" among {selected:,} selected rows"
        share = selected / self._judged
        by_prefix = self.prefix if self.kind != "flat" or prefix is None else prefix
        exact = self.kind == "flat" and by_prefix is None
        if where is not None:
            exact |= selected <= EXACT_ROWS or (self.kind == "hnsw" and share <= 1 / SPARSE)
        if exact:
            return _Way(True, rows, None, 0, None, f"exact: brute force{among or f' over {selected:,} rows'}")
        if self.kind == "flat":
            return _Way(False, rows, None, 0, by_prefix, self._note(f"first {by_prefix} coordinates{among}", count))
        if self.kind == "hnsw":
            effort = max(count, int((128 if ef is None else ef) / share))
            how = f"hnsw, ef {effort}"
        else:
            nlist = self.manifest["nlist"]
            effort = min(nlist, default_nprobe(nlist) if nprobe is None else nprobe)
            how = f"{self.kind}, {effort} of {nlist} lists"
        if by_prefix is not None:
            how += f", first {by_prefix} coordinates"
        return _Way(False, rows, allowed, effort, by_prefix, self._note(how + among, count))

    def _note(self, how: str, count: int) -> str:
        note = f"approximate: {how}, {count} candidates re-scored"
        made = self.manifest.get("certificate")
        if made is not None:
            note += (
                f"; with default settings recall@{made['k']} {made['recall']:.3f}, at least {made['lower_bound']:.3f} "
                f"with {made['confidence']:.0%} confidence, on {made['rows']:,} of its own rows"
            )
        return note

    def _check_options(self, nprobe: int | None, ef: int | None, prefix: int | None) -> None:
        lists = self.kind in ("ivf_flat", "ivf_pq")
        for name, value, fits in (("nprobe", nprobe, lists), ("ef", ef, self.kind == "hnsw")):
            if value is not None:
                check_count(name, value)
                if not fits:
                    raise InputError(f"{name}: expected None, as an index of kind {self.kind!r} has no such setting")
        if prefix is not None:
            if not (isinstance(prefix, int) and 1 <= prefix < self.dimension):
                raise InputError(f"prefix: expected at least 1 and below the dimension {self.dimension}, got {prefix}")
            if self.kind != "flat" and prefix != self.prefix:
                raise InputError(
                    f"prefix: expected {self.prefix}, as this index of kind {self.kind!r} was built, got {prefix}; "
                    "build one with that prefix, or of kind 'flat', which takes any"
                )

    def _candidates(self, k: int, candidates: int | None, prefix: int | None) -> int:
        """Rows to re-score; no more than there are, nor than FAISS takes at once."""
        if candidates is not None:
            check_count("candidates", candidates, least=k)
        rough = prefix is not None or self.prefix is not None
        factor, addend = _CANDIDATES["ivf_pq" if rough else self.kind]
        wanted = factor * k + addend if candidates is None else candidates
        return min(wanted, max(self._judged, 1))

    def _selection(self, where: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64] | None, NDArray[np.bool_] | None]:
        """Judged rows that may be found, and the same as a bitmap over places; None for all."""
        if where is None:
            return self.places, None
        if not isinstance(where, np.ndarray) or where.dtype != np.bool_ or where.shape != (len(self),):
            got = f"{where.dtype} {where.shape}" if isinstance(where, np.ndarray) else type(where).__name__
            raise InputError(f"where: expected a bool array of shape ({len(self)},), one value for each row, got {got}")
        if self.places is None:
            return np.flatnonzero(where), where
        allowed = where[self.places]
        return self.places[allowed], allowed

    @property
    def _judged(self) -> int:
        return len(self.vectors) if self.places is None else len(self.places)

    def _uids_at(self, indices: NDArray[np.int64]) -> UidArray | None:
        if self.uids is None:
            return None
        found = np.zeros(indices.shape, UID_DTYPE)
        found[indices >= 0] = self.uids[indices[indices >= 0]]
        return found

    def _mapped(self, role: str) -> NDArray[Any]:
        path = file_of(self.folder, self.manifest, role)
        if path is None:
            raise WorkspaceError(f"index: the manifest of {self.folder} names no {role}; build the index again")
        return mapped(path)


def open_vector_index(folder: str | os.PathLike[str]) -> VectorIndex:
    """Open an index folder, memory-mapped.

    Raises
    ------
    InputError
        There is no finished index.
    WorkspaceError
        One of its files is missing, cut short or not readable.
    """
    return VectorIndex(folder)


def _widened_to(k: int, found: NDArray[Any], fill: float) -> NDArray[Any]:
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=fill)
