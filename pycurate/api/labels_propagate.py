"""``propagate_label_file``: labels of a file spread over the rows of a saved graph or index, written as Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.api.out import claim_out
from pycurate.api.propagation import propagate_labels
from pycurate.arrow import arrow_texts, arrow_values
from pycurate.errors import InputError
from pycurate.index.folder import mapped
from pycurate.index.graph import MANIFEST as GRAPH_MANIFEST
from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import Method as GraphMethod
from pycurate.index.graph_build import knn_graph
from pycurate.index.vector_index import MANIFEST as INDEX_MANIFEST
from pycurate.index.vector_index import VectorIndex, open_vector_index
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.label_files import read_labels
from pycurate.io.subset import Subset
from pycurate.kernels.device import device_of
from pycurate.ops.labels.propagation_result import Propagation
from pycurate.ops.labels.propagation_settings import Balance, Method, Solver
from pycurate.ops.labels.propagation_solvers import Told
from pycurate.pipeline.ledger import hex_strings
from pycurate.pipeline.workspace import digest
from pycurate.types import UID_DTYPE, UidArray

_GROUP_ROWS = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class PropagatedLabels:
    """What a finished `propagate_label_file` wrote."""

    out: Path
    propagation: Propagation
    graph: KnnGraph
    seeds: int
    kept: int | None  # rows of subset.npy

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        found = self.propagation
        return {
            "out": str(self.out),
            "rows": len(found),
            "edges": self.graph.edges,
            "graph": self.graph.note,
            "seeds": self.seeds,
            "classes": found.classes,
            "labelled": len(found) - found.unreached,
            "unreached": found.unreached,
            "sweeps": found.sweeps,
            "residual": found.residual,
            "converged": found.converged,
            "mean_confidence": float(found.confidence.mean()) if len(found) else 0.0,
            "kept": self.kept,
        }

    def render(self) -> str:
        """For people."""
        facts = self.to_dict()
        lines = [
            f"rows     {facts['rows']:,}, {facts['edges']:,} edges, {facts['graph']}",
            f"labels   {facts['seeds']:,} given, {facts['classes']:,} classes; {facts['labelled']:,} rows have one "
            f"now, mean confidence {facts['mean_confidence']:.3f}",
            *(f"         {sentence}" for sentence in self.propagation.sentences()),
        ]
        if self.kept is not None:
            lines.append(f"kept     {self.kept:,} uids in {self.out / 'subset.npy'}")
        lines.append(f"to       {self.out / 'labels.parquet'}")
        return "\n".join(lines)


def propagate_label_file(
    source: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    uids: str | os.PathLike[str] | None = None,
    k: int | None = None,
    graph_method: GraphMethod = "exact",
    preset: Literal["zhou", "iscen", "sklearn"] | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    alpha: float | None = None,
    top: int | None = None,
    weight: float | Literal["binary", "exp"] | None = None,
    balance: Balance | None = None,
    sweeps: int | None = None,
    tol: float | None = None,
    min_confidence: float | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Told = None,
) -> PropagatedLabels:
    """Spread the labels of a file over the rows of a graph, and write ``labels.parquet``.

    Parameters
    ----------
    source
        Folder of a graph (`pycurate.knn_graph`) or of an index (`pycurate index`), whose graph ``out/graph`` keeps.
    labels
        See `pycurate.io.label_files.read_labels`. Numbers need not be without gaps.
    out
        A folder: new, empty, or of an earlier run, which is continued or opened.
    uids
        ``.npy`` of the uids of the rows of a graph, which has none itself. An index has its own.
    k, graph_method
        Of the graph of an index: 10 and ``"exact"`` by default; see `pycurate.knn_graph`.
    preset, method, solver, alpha, top, weight, balance, sweeps, tol, memory_bytes, threads, device, progress
        As in `pycurate.propagate_labels`; ``cg`` works in memory, the rest by blocks in ``out``.
    min_confidence
        Also write ``subset.npy``: the uids of rows this sure.

    Returns
    -------
    PropagatedLabels
        ``labels.parquet`` has a row for each of the graph, in order: ``uid`` (``row``, where there are none), ``label``
        as in the file (null where none came), ``confidence`` and ``margin``.

    Raises
    ------
    InputError, MemoryCapError, WorkspaceError, MemoryError
    """
    device_of(device)  # before anything is made
    folder = claim_out(Path(out).absolute())
    graph, row_uids = _opened(Path(source), folder, uids, k, graph_method, {"threads": threads, "device": device})
    if min_confidence is not None and row_uids is None:
        raise InputError("min_confidence: a subset is one of uids, and the rows have none; pass uids")
    seeds, names, class_names = _seeds(labels, source, len(graph), row_uids)
    in_memory = solver == "cg" or (solver is None and preset == "iscen" and top is None and method is None)
    found = propagate_labels(
        graph,
        seeds,
        preset=preset,
        method=method,
        solver=solver,
        alpha=alpha,
        top=top,
        weight=weight,
        balance=balance,
        sweeps=sweeps,
        tol=tol,
        out=None if in_memory else folder / "sweeps",
        memory_bytes=memory_bytes,
        threads=threads,
        device=device,
        progress=progress,
        dtype="float32",
    )
    _write_table(folder / "labels.parquet", found, names, class_names, row_uids)
    kept = _write_subset(folder / "subset.npy", found, row_uids, min_confidence)
    return _reported(PropagatedLabels(folder, found, graph, int((seeds >= 0).sum()), kept))


def _reported(made: PropagatedLabels) -> PropagatedLabels:
    write_json_atomic(made.out / "labels.json", made.to_dict())
    return made


def _seeds(
    labels: str | os.PathLike[str], source: str | os.PathLike[str], n: int, uids: UidArray | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...] | None]:
    """Classes without gaps, -1 for none; the label in the file of each class; and the names of those."""
    given = read_labels(labels, uids)
    if len(given.labels) != n:
        raise InputError(
            f"labels: expected one for each of the {n:,} rows of {source}, got {len(given.labels):,}; give uids "
            "to label some rows only"
        )
    known = given.labels >= 0
    if not known.any():
        raise InputError(f"labels: {labels} gives no row of {source} a label, so there is nothing to spread")
    names, numbers = np.unique(given.labels[known], return_inverse=True)
    seeds = np.full(n, -1, np.int64)
    seeds[known] = numbers
    return seeds, names, given.class_names


def _write_subset(path: Path, found: Propagation, uids: UidArray | None, least: float | None) -> int | None:
    """The uids of rows of at least this confidence; how many, or None where they are not asked for."""
    path.unlink(missing_ok=True)  # of an earlier run
    if least is None or uids is None:
        return None
    subset = Subset.from_uids(np.array(uids[(found.labels >= 0) & (found.confidence >= least)]))
    subset.save(path)
    return len(subset)


def _opened(
    source: Path,
    out: Path,
    uids: str | os.PathLike[str] | None,
    k: int | None,
    graph_method: GraphMethod,
    how: dict[str, Any],
) -> tuple[KnnGraph, UidArray | None]:
    """The graph, and the uids of its rows; ``how`` one is made."""
    if (source / GRAPH_MANIFEST).exists():
        if k is not None:
            raise InputError(f"k: {source} is a graph already; leave it out, or name the folder of an index")
        graph = KnnGraph.open(source)
        return graph, None if uids is None else _read_uids(Path(uids), len(graph))
    if not (source / INDEX_MANIFEST).exists():
        raise InputError(
            f"source: expected the folder of a graph or of an index, got {source} without {GRAPH_MANIFEST} or "
            f"{INDEX_MANIFEST}; `pycurate index` makes an index"
        )
    if uids is not None:
        raise InputError(f"uids: {source} is an index and has its own; leave them out")
    index = open_vector_index(source)
    return _graph_of(index, out / "graph", 10 if k is None else k, graph_method, how), index.uids


def _graph_of(index: VectorIndex, out: Path, k: int, method: GraphMethod, how: dict[str, Any]) -> KnnGraph:
    """The graph of an index: an earlier one of the same rows and settings, or made now."""
    key = digest(index.manifest["files"]["vectors"], index.manifest["metric"], k, method)
    made = out.with_name("graph.key.json")
    try:
        if json.loads(made.read_text())["key"] == key:
            return KnnGraph.open(out)
    except (OSError, ValueError, KeyError, InputError):
        made.unlink(missing_ok=True)
    graph = knn_graph(
        index.vectors.values,
        k,
        method=method,
        metric=index.manifest["metric"],
        out=out,
        dtype=index.vectors.dtype,
        **how,
    )
    write_json_atomic(made, {"key": key})
    return graph


def _read_uids(path: Path, n: int) -> UidArray:
    try:
        uids = mapped(path)
    except (OSError, ValueError) as error:
        raise InputError(f"uids: {path} is not a readable .npy file ({error})") from error
    if uids.dtype != UID_DTYPE or uids.shape != (n,):
        raise InputError(f"uids: expected ({n},) of {UID_DTYPE} in {path}, got {uids.shape} of {uids.dtype}")
    return uids


def _write_table(
    path: Path,
    found: Propagation,
    names: NDArray[np.int64],
    class_names: Sequence[str] | None,
    uids: UidArray | None,
) -> None:
    """Rows in their order; ``names`` are the labels of the file by class."""
    kind = pa.int64() if class_names is None else pa.string()
    first = pa.field("row", pa.int64(), False) if uids is None else pa.field("uid", pa.string(), False)
    schema = pa.schema(
        [
            first,
            pa.field("label", kind),
            pa.field("confidence", pa.float32(), nullable=False),
            pa.field("margin", pa.float32(), nullable=False),
        ]
    )
    words = None if class_names is None else arrow_texts([class_names[name] for name in names.tolist()]).cast(kind)
    with atomic_write(path) as file, pq.ParquetWriter(file, schema) as writer:
        for start in range(0, max(len(found), 1), _GROUP_ROWS):
            rows = slice(start, min(start + _GROUP_ROWS, len(found)))
            labels = np.asarray(found.labels[rows])
            valid = labels >= 0
            places = np.maximum(labels, 0)
            values = arrow_values(names[places], valid) if words is None else words.take(arrow_values(places, valid))
            key = arrow_values(np.arange(rows.start, rows.stop)) if uids is None else hex_strings(np.array(uids[rows]))
            columns = [key, values, arrow_values(found.confidence[rows]), arrow_values(found.margin[rows])]
            writer.write_batch(pa.record_batch(columns, schema=schema))
