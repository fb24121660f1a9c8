"""The calls into FAISS; it is loaded by the first of them.

FAISS proposes rows. It numbers them by their place among the judged rows, and sees them as float32, for cosine scaled
to length 1; its scores are thrown away.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import MissingDependencyError, WorkspaceError
from pycurate.index.kinds import HNSW_LINKS, IndexPlan
from pycurate.index.rows import Rows
from pycurate.kernels.rowwise import Metric

EF_CONSTRUCTION = 100
"""Rows looked at to place one in the graph; FAISS's 40 loses some per cent of recall at 768 dimensions."""


def load_faiss() -> Any:
    """The module; MissingDependencyError where it is not installed."""
    try:
        with warnings.catch_warnings():  # until 1.13 loading it uses deprecated names of NumPy and of Python
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError as error:
        raise MissingDependencyError(
            f"index: FAISS could not be loaded ({error}); run `pip install faiss-cpu`, or use kind 'flat'"
        ) from error
    return faiss


@contextmanager
def faiss_threads(threads: int | None) -> Iterator[Any]:
    """FAISS with so many threads (None: as it is), set back at the end."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


def seen_by_faiss(rows: Rows, metric: Metric, threads: int | None = None) -> NDArray[np.float32]:
    """(n, d) float32, for cosine of length 1: whichever element type rows have, FAISS takes this."""
    return rows.units(threads) if metric == "cosine" else rows.widened(threads)


def padded(rows: NDArray[np.float32], pq_width: int) -> NDArray[np.float32]:
    """Rows filled up with zeros to whole parts of ``pq_width`` coordinates: dot products and distances stay."""
    short = -rows.shape[1] % pq_width if pq_width else 0
    return np.pad(rows, ((0, 0), (0, short))) if short else np.ascontiguousarray(rows)


def empty_lists(plan: IndexPlan, element: str, metric: str, centroids: NDArray[np.float32], seed: int) -> Any:
    """An inverted file around given centroids, which may still need the training of its product quantiser."""
    faiss = load_faiss()
    centroids = padded(centroids, plan.pq_width)
    d = centroids.shape[1]
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlat(d, kind)
    quantizer.add(centroids)
    if plan.kind == "ivf_pq":
        index = faiss.IndexIVFPQ(quantizer, d, plan.nlist, d // plan.pq_width, 8, kind)
        index.pq.cp.seed = seed & 0x7FFFFFFF
        index.pq.cp.min_points_per_centroid = 1  # fewer than 39 only draw a warning on standard error
    elif element == "float32":
        index = faiss.IndexIVFFlat(quantizer, d, plan.nlist, kind)
    else:
        index = faiss.IndexIVFScalarQuantizer(quantizer, d, plan.nlist, _half(faiss, element, metric), kind)
    return index


def empty_graph(dimension: int, element: str, metric: str) -> Any:
    """An HNSW graph (Malkov and Yashunin, 2018) without rows."""
    faiss = load_faiss()
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    if element == "float32":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, kind)
    else:
        index = faiss.IndexHNSWSQ(dimension, _half(faiss, element, metric), HNSW_LINKS, kind)
        index.train(np.zeros((1, dimension), np.float32))  # a half-precision code has nothing to learn
    index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def add_to_lists(index: Any, rows: NDArray[np.float32], first: int, lists: NDArray[np.int32]) -> None:
    """Add rows numbered from ``first`` on, each to the list that was chosen for it."""
    faiss = load_faiss()
    numbers = np.arange(first, first + len(rows), dtype=np.int64)
    chosen = lists.astype(np.int64)
    index.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(numbers), faiss.swig_ptr(chosen))


def write(index: Any, path: Path) -> None:
    """Save; WorkspaceError when the disk does not take it."""
    try:
        load_faiss().write_index(index, str(path))
    except RuntimeError as error:
        raise WorkspaceError(
            f"cannot write {path}: {_reason(error)}; free some space there or choose another folder"
        ) from error


def read(path: Path, kind: str) -> Any:
    """Open, memory-mapped."""
    faiss = load_faiss()
    flags = faiss.IO_FLAG_MMAP_IFC if kind == "hnsw" else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise WorkspaceError(f"index: FAISS cannot read {path} ({_reason(error)}); build the index again") from error
    if kind != "hnsw":
        # A search would start 32 threads to read ahead what the system reads ahead of a mapping anyway.
        faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
    return index


def propose(
    index: Any,
    kind: str,
    queries: NDArray[np.float32],
    count: int,
    *,
    effort: int,
    allowed: NDArray[np.bool_] | None,
    pq_width: int,
) -> NDArray[np.int64]:
    """(m, count) places of proposed rows, -1 where there are no more.

    ``effort`` is nprobe or efSearch; ``allowed`` (n,) says which rows may be proposed.
    """
    faiss = load_faiss()
    selector = None
    if allowed is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if kind == "hnsw":
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
    else:
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=effort)
    found: NDArray[np.int64] = index.search(padded(queries, pq_width), count, params=parameters)[1]
    return found


def _half(faiss: Any, element: str, metric: str) -> int:
    """The code of 2 bytes that holds the values as they are, or scaled to length 1 with the smaller error."""
    quantizer = faiss.ScalarQuantizer
    return int(quantizer.QT_bf16 if element == "bfloat16" and metric != "cosine" else quantizer.QT_fp16)


def _reason(error: RuntimeError) -> str:
    return str(error).rsplit("Error: ", 1)[-1].split("\n", 1)[0]
