"""Building an index: rows are stored first, in one pass, and indexed from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.index import faiss_calls
from pycurate.index.certificate import certify
from pycurate.index.folder import Generation, NpyWriter, mapped
from pycurate.index.kinds import IndexPlan, Kind, plan_index, training_rows
from pycurate.index.kmeans import assign, kmeans
from pycurate.index.rows import Rows, check_count, check_metric
from pycurate.index.sampling import sample_rows
from pycurate.index.vector_index import MANIFEST, VectorIndex, open_vector_index
from pycurate.kernels.device import device_of
from pycurate.kernels.rowwise import Metric
from pycurate.types import UID_DTYPE, Block, UidArray

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

TRAINING_ITERATIONS = 10
"""Lists need not be optimal clusters: after ten rounds the inertia falls by less than 0.5 % a round."""
CERTIFIED_QUERIES, CERTIFIED_K = 256, 10
NAMED_ROWS = 10
"""Unjudged rows that a manifest names; all are counted."""


def build_index(
    x: NDArray[Any] | Iterable[Block],
    out: str | os.PathLike[str],
    *,
    metric: Metric = "cosine",
    kind: Kind | Literal["auto"] = "auto",
    memory_limit_bytes: int | None = None,
    nlist: int | None = None,
    prefix: int | None = None,
    seed: int = 0,
    uids: UidArray | None = None,
    attributes: pa.Table | None = None,
    source: Mapping[str, Any] | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> VectorIndex:
    """Store rows in a folder, build an index over them, and open it.

    Parameters
    ----------
    x
        (n, d) float32, float16, bfloat16 or int8, such as a memory map; or blocks with one embedding each, whose uids
        and columns are stored too. Rows are stored as they are: searches re-score candidates from there.
    out
        A folder: new, empty, or of an earlier index, which stays valid until this one is finished.
    metric
        ``"cosine"``, ``"inner_product"`` or ``"l2"``.
    kind
        ``flat``: no structure; searches are brute force, and exact. ``ivf_flat``: lists around the centroids of
        `kmeans`, with rows as they are. ``ivf_pq``: the same with product-quantised rows, one byte for 8, 16 or 32
        coordinates (Jégou, Douze and Schmid, 2011). ``hnsw``: a graph (Malkov and Yashunin, 2018). ``auto``: see
        `pycurate.index.kinds.plan_index`.
    memory_limit_bytes
        What building may take beyond the process, by estimate (`index_memory`); no limit by default.
    nlist
        Lists of an inverted file; default about sqrt(n).
    prefix
        Index only the first coordinates, as Matryoshka embeddings allow (Kusupati et al., 2022): smaller and quicker;
        for cosine they are scaled to length 1. Candidates are re-scored on all coordinates.
    seed
        Of the training sample (64 rows a list, at least 16,384), of the quantiser and of the certificate.
    uids, attributes
        (n,) uids and an Arrow table of n rows, when ``x`` is an array.
    source
        Facts to keep in the manifest, such as the path of the pool.
    threads
        Threads of kernels and of FAISS; default all. Lists do not depend on them; the graph of ``hnsw`` does, unless 1.
    device
        Where lists are found and recall is measured, as in `pycurate.nearest`; FAISS runs on the CPU.
    progress
        Told the name of each stage as it begins.

    Raises
    ------
    InputError
        A value is not as above, or no row can be judged.
    MemoryCapError
        The kind does not fit the limit, or, for ``auto``, none does.
    WorkspaceError
        ``out`` is not such a folder, or cannot be written.
    """
    check_metric(metric)
    if nlist is not None:
        check_count("nlist", nlist)
    if prefix is not None:
        check_count("prefix", prefix)
    tell = progress or (lambda stage: None)
    wanted = _Wanted(metric, kind, memory_limit_bytes, nlist, prefix, seed, threads, device, tell)
    if hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        rows = Rows.of("x", x, dtype)
        wanted.plan(len(rows), rows)  # before anything is written
        parts = _parts_of_array(rows, uids, attributes)
    elif uids is not None or attributes is not None:
        raise InputError("uids, attributes: expected None, as blocks bring their own")
    else:
        parts = (_part_of(block, dtype) for block in x)
    with Generation(out, MANIFEST) as generation:
        _build_generation(generation, parts, wanted, dict(source or {}))
    return open_vector_index(out)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The arguments of `build_index` that are not data."""

    metric: Metric
    kind: Kind | Literal["auto"]
    memory_limit_bytes: int | None
    nlist: int | None
    prefix: int | None
    seed: int
    threads: int | None
    device: str | None
    tell: Callable[[str], object]

    def __post_init__(self) -> None:
        device_of(self.device)  # that there is such a GPU, before anything is written

    def plan(self, judged: int, rows: Rows) -> IndexPlan:
        """What to build for so many judged rows of this dimension and element."""
        if self.prefix is not None and self.prefix >= rows.dimension:
            raise InputError(f"prefix: expected less than the dimension {rows.dimension}, got {self.prefix}")
        return plan_index(
            self.kind,
            judged,
            self.prefix or rows.dimension,
            element=rows.element,
            memory_limit_bytes=self.memory_limit_bytes,
            nlist=self.nlist,
        )


def _build_generation(generation: Generation, parts: Iterable[_Part], wanted: _Wanted, source: dict[str, Any]) -> None:
    wanted.tell("storing rows")
    stored = _Store(generation, wanted.metric, wanted.threads)
    stored.add_all(parts)
    plan = wanted.plan(len(stored.rows) - stored.unjudged, stored.rows)
    facts = {
        "made_by": f"pycurate {pycurate.__version__}",
        "kind": plan.kind,
        "metric": wanted.metric,
        "rows": len(stored.rows),
        "dimension": stored.rows.dimension,
        "element": stored.rows.element,
        "prefix": wanted.prefix,
        "unjudged": {"rows": stored.unjudged, "first": stored.first_unjudged},
        "nlist": plan.nlist,
        "pq_width": plan.pq_width,
        "seed": wanted.seed,
        "memory_bytes": plan.memory_bytes,
        "columns": stored.columns,
        "source": source,
    }
    if plan.kind != "flat":
        with faiss_calls.faiss_threads(wanted.threads) as faiss:
            wanted.tell(f"building {plan.kind}")
            facts["faiss"] = faiss.__version__
            index = _build(plan, stored, wanted)
            faiss_calls.write(index, generation.path("index", ".faiss"))
    generation.finish(facts)
    if plan.kind != "flat" or wanted.prefix is not None:
        wanted.tell("measuring recall")
        certificate = _certificate(open_vector_index(generation.folder), wanted)
        generation.finish({**facts, "certificate": certificate})


def _parts_of_array(rows: Rows, uids: UidArray | None, attributes: pa.Table | None) -> Iterator[_Part]:
    for name, given in (("uids", uids), ("attributes", attributes)):
        if given is not None and len(given) != len(rows):
            raise InputError(f"{name}: expected {len(rows)} rows as x has, got {len(given)}")
    if uids is not None and uids.dtype != UID_DTYPE:
        raise InputError(f"uids: expected dtype {UID_DTYPE}, got {uids.dtype}")
    for start, block in rows.blocks():
        part = slice(start, start + len(block))
        table = None if attributes is None else attributes.slice(start, len(block))
        yield _Part(block, None if uids is None else uids[part], table)


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive rows to store."""

    rows: Rows
    uids: UidArray | None
    table: pa.Table | None


def _part_of(block: Block, dtype: str | None) -> _Part:
    import pyarrow as pa

    if len(block.embeddings) != 1:
        raise InputError(f"x: expected blocks of one embedding each, got {sorted(block.embeddings)}")
    [(name, values)] = block.embeddings.items()
    return _Part(Rows.of(name, values, dtype), block.uids, pa.table(dict(block.columns)) if block.columns else None)


@dataclass
class _Store:
    """What one pass over the parts leaves in the folder."""

    generation: Generation
    metric: Metric
    threads: int | None
    unjudged: int = 0
    first_unjudged: list[int] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: Rows = field(init=False)
    places: NDArray[np.int64] | None = None  # the judged rows, where not all are

    def add_all(self, parts: Iterable[_Part]) -> None:
        """Write vectors, uids and attributes; find the rows that cannot be judged."""
        element, count, usable = "", 0, []
        with ExitStack() as stack:
            vectors = uid_file = table_file = None
            for part in parts:
                if vectors is None:
                    element = part.rows.element
                    vectors, uid_file, table_file = self._open(part, stack)
                self._check(part, element, vectors, uid_file is not None, table_file)
                judged = part.rows.judged(self.metric, self.threads)
                usable.append(judged)
                bad = np.flatnonzero(~judged)
                self.unjudged += len(bad)
                self.first_unjudged += (bad[: NAMED_ROWS - len(self.first_unjudged)] + count).tolist()
                count += len(judged)
                vectors.append(part.rows.values)
                if uid_file is not None and part.uids is not None:
                    uid_file.append(part.uids)
                if table_file is not None:
                    table_file.write_table(part.table)
        if count == self.unjudged:
            raise InputError(
                f"x: expected at least one row that can be judged, got {count} rows of which {self.unjudged} are not "
                "finite or, for cosine, of length 0"
            )
        self.rows = Rows(mapped(self._path), element)
        if self.unjudged:
            self.places = np.flatnonzero(np.concatenate(usable))
            with NpyWriter(self.generation.path("places", ".npy"), self.places.dtype) as file:
                file.append(self.places)

    def _open(self, part: _Part, stack: ExitStack) -> tuple[NpyWriter, NpyWriter | None, pq.ParquetWriter | None]:
        self._path = self.generation.path("vectors", ".npy")
        vectors = stack.enter_context(NpyWriter(self._path, part.rows.values.dtype, part.rows.dimension))
        uid_file = table_file = None
        if part.uids is not None:
            uid_file = stack.enter_context(NpyWriter(self.generation.path("uids", ".npy"), UID_DTYPE))
        if part.table is not None:
            import pyarrow.parquet as pq

            self.columns = part.table.schema.names
            path = self.generation.path("attributes", ".parquet")
            table_file = stack.enter_context(pq.ParquetWriter(path, part.table.schema, compression="zstd"))
        return vectors, uid_file, table_file

    def _check(
        self, part: _Part, element: str, vectors: NpyWriter, has_uids: bool, table_file: pq.ParquetWriter | None
    ) -> None:
        if part.rows.element != element or part.rows.dimension != vectors.columns:
            raise InputError(
                f"x: expected blocks of {vectors.columns} elements of {element} as the first, got "
                f"{part.rows.dimension} of {part.rows.element}"
            )
        schema = None if part.table is None else part.table.schema
        if (part.uids is not None) != has_uids or schema != (table_file.schema if table_file else None):
            raise InputError("x: expected every block to have uids and columns as the first has")


def _build(plan: IndexPlan, stored: _Store, wanted: _Wanted) -> Any:
    """The FAISS index of the judged rows, numbered by their place among them."""
    metric, threads, device = wanted.metric, wanted.threads, wanted.device
    rows = stored.rows.prefix(wanted.prefix or stored.rows.dimension)
    if plan.kind == "hnsw":
        index = faiss_calls.empty_graph(rows.dimension, rows.element, metric)
        for _, block in _judged_blocks(rows, stored.places):
            index.add(faiss_calls.seen_by_faiss(block, metric, threads))
        return index
    # Lists are of directions for inner products, too: for a row, centroids of length 1 order alike by both.
    lists_by: Literal["l2", "cosine"] = "l2" if metric == "l2" else "cosine"
    trained = kmeans(
        rows.values,
        plan.nlist,
        metric=lists_by,
        iterations=TRAINING_ITERATIONS,
        sample=training_rows(plan.nlist),
        seed=wanted.seed,
        threads=threads,
        dtype=rows.dtype,
        device=device,
    )
    index = faiss_calls.empty_lists(plan, rows.element, metric, trained.centroids, wanted.seed)
    sample = rows.take(trained.sample_rows)
    index.train(faiss_calls.padded(faiss_calls.seen_by_faiss(sample, metric, threads), plan.pq_width))
    for start, block in _judged_blocks(rows, stored.places):
        found = assign(block.values, trained.centroids, lists_by, threads=threads, dtype=rows.dtype, device=device)
        # A row may be zero in the coordinates that are indexed; FAISS would not find one in no list.
        values = faiss_calls.padded(faiss_calls.seen_by_faiss(block, metric, threads), plan.pq_width)
        faiss_calls.add_to_lists(index, values, start, np.maximum(found.clusters, 0))
    return index


def _judged_blocks(rows: Rows, places: NDArray[np.int64] | None) -> Iterator[tuple[int, Rows]]:
    """The judged rows in blocks, with the place each block begins at."""
    count = len(rows) if places is None else len(places)
    for start in range(0, count, rows.block_rows):
        part = slice(start, min(count, start + rows.block_rows))
        yield start, rows.take(part if places is None else places[part])


def _certificate(index: VectorIndex, wanted: _Wanted) -> dict[str, Any]:
    """Recall of searches with default settings, for rows of the index other than themselves."""
    drawn = sample_rows(len(index.vectors), CERTIFIED_QUERIES, wanted.seed + 1)
    drawn = drawn[index.vectors.take(drawn).judged(index.metric, wanted.threads)]
    queries = index.vectors.take(drawn)
    found = index.search(
        queries.values, CERTIFIED_K + 1, threads=wanted.threads, dtype=queries.dtype, device=wanted.device
    )
    others = np.where(found.indices == drawn[:, None], -1, found.indices)
    # A row that came without itself gives up its last, so that each has k others at most.
    with_itself = (found.indices == drawn[:, None]).any(axis=1)
    others[~with_itself, -1] = -1
    made = certify(
        others,
        queries,
        index.vectors,
        CERTIFIED_K,
        index.metric,
        rows=index.places,
        own=drawn,
        seed=wanted.seed,
        threads=wanted.threads,
        device=wanted.device,
    )
    return made.to_dict()
