"""``open_index`` and ``search_index``: searches by vector or uid, among the rows that an SQL expression selects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index import Neighbors, VectorIndex
from pycurate.io.names import find_column
from pycurate.kernels.uid import format_hex, parse_hex
from pycurate.ops.selection.filter_expression import TRUE, UNKNOWN, column_references, evaluate_filter

if TYPE_CHECKING:
    from rich.console import RenderableType

_BATCH_ROWS = 65_536
CAPTION = "caption"


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Rows for which an expression is true, and how many it says nothing of."""

    rows: NDArray[np.bool_]  # (n,)
    undecided: int  # rows for which it is NULL; not selected

    def sentence(self) -> str:
        """For people."""
        selected = f"where: {int(self.rows.sum()):,} of {len(self.rows):,} rows"
        return selected + (f", {self.undecided:,} left out for which it is NULL" if self.undecided else "")


class Index(VectorIndex):
    """An opened index folder whose attributes can be asked for and filtered by. See `open_index`."""

    @property
    def columns(self) -> list[str]:
        """Names of the attributes."""
        return list(self.manifest["columns"])

    def rows_where(self, expression: str) -> Selection:
        """The rows for which an SQL expression over the attributes is true.

        Parameters
        ----------
        expression
            As the recipe step ``filter`` takes it: DuckDB SQL over the columns of one row, such as
            ``original_width > 300 and caption like '%dog%'``. NaN counts as NULL.

        Raises
        ------
        InputError
            The index lacks a column, or it is no such expression.
        """
        names = list(dict.fromkeys(parts[0] for parts in column_references(expression)))
        if not names:
            raise InputError(f"where: {expression!r} names no column, so it says nothing of a row")
        stored = {name: self._stored(name) for name in names}
        path = self.attributes_path
        assert path is not None
        answers = np.empty(len(self), np.uint8)
        start = 0
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(set(stored.values()))):
                found = evaluate_filter(expression, {name: batch.column(stored[name]) for name in names})
                answers[start : start + len(found)] = found
                start += len(found)
        return Selection(answers == TRUE, int((answers == UNKNOWN).sum()))

    def attributes(self, rows: Sequence[int] | NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Attributes of some rows, in their order.

        Raises
        ------
        InputError
            The index lacks a column, or a row is out of range.
        """
        wanted = np.asarray(rows, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise InputError(f"rows: expected 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        stored = [self._stored(name) for name in columns]
        path = self.attributes_path
        assert path is not None
        with pq.ParquetFile(path, memory_map=True) as file:
            counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            distinct, place = np.unique(wanted, return_inverse=True)
            group = np.searchsorted(begins, distinct, side="right") - 1
            parts = [
                file.read_row_group(i, columns=stored).take(pa.array((distinct[group == i] - begins[i]).tolist()))
                for i in np.unique(group).tolist()
            ]
            table = pa.concat_tables(parts) if parts else file.schema_arrow.empty_table().select(stored)
        return table.take(pa.array(place.tolist(), pa.int64())).select(stored).rename_columns(list(columns))

    def search(
        self,
        queries: NDArray[Any],
        k: int,
        *,
        where: str | NDArray[np.bool_] | None = None,
        nprobe: int | None = None,
        ef: int | None = None,
        prefix: int | None = None,
        candidates: int | None = None,
        threads: int | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> Neighbors:
        """As `VectorIndex.search`; ``where`` may be an SQL expression, see `rows_where`."""
        selection = self.rows_where(where) if isinstance(where, str) else None
        found = super().search(
            queries,
            k,
            where=where if selection is None else selection.rows,  # type: ignore[arg-type]
            nprobe=nprobe,
            ef=ef,
            prefix=prefix,
            candidates=candidates,
            threads=threads,
            dtype=dtype,
            device=device,
        )
        return found if selection is None else replace(found, note=f"{found.note}; {selection.sentence()}")

    def _stored(self, name: str) -> str:
        stored = find_column(name, self.columns)
        if stored is None:
            has = ", ".join(self.columns) or "none"
            raise InputError(
                f"where: expected columns of the index, which are {has}, got {name!r}; build the index with that column"
            )
        return stored


def open_index(folder: str | os.PathLike[str]) -> Index:
    """Open an index folder, memory-mapped, for searches by vector, prefix and attribute.

    Parameters
    ----------
    folder
        As `build_index` or ``pycurate index`` wrote it.

    Raises
    ------
    InputError
        There is no finished index.
    WorkspaceError
        One of its files is missing, cut short or not readable.
    """
    return Index(folder)


@dataclass(frozen=True, slots=True, eq=False)
class SearchReport:
    """What a search found, with what people know rows by."""

    index: str
    queries: tuple[str, ...]
    found: Neighbors
    captions: tuple[tuple[str | None, ...], ...] | None  # by query and neighbour

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        results = [
            {"query": query, "neighbors": [self._facts(q, n) for n in self._there(q)]}
            for q, query in enumerate(self.queries)
        ]
        return {
            "index": self.index,
            "exact": self.found.exact,
            "note": self.found.note,
            "unjudged": [self.queries[q] for q in self.found.unjudged.tolist()],
            "results": results,
        }

    def render(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = []
        for q, query in enumerate(self.queries):
            table = Table(box=None, pad_edge=False, title=Text(f"like {query}", style="bold"), title_justify="left")
            if self.found.uids is not None:
                table.add_column("uid", no_wrap=True, min_width=32)
            else:
                table.add_column("row", no_wrap=True, justify="right", min_width=10)
            table.add_column("similarity", no_wrap=True, justify="right", min_width=10)
            if self.captions is not None:
                table.add_column("caption", overflow="ellipsis", no_wrap=True)
            for n in self._there(q):
                facts = self._facts(q, n)
                cells = [facts.get("uid", f"{facts['row']:,}"), f"{facts['similarity']:.4f}"]
                if self.captions is not None:
                    cells.append(facts["caption"] or "")
                table.add_row(*(Text(cell) for cell in cells))
            parts.append(table)
        for q in self.found.unjudged.tolist():
            parts.append(Text(f"{self.queries[q]} cannot be judged: not finite or of length 0", style="yellow"))
        return Group(*parts, Text(self.found.note, style="dim"))

    def _there(self, query: int) -> list[int]:
        return np.flatnonzero(self.found.indices[query] >= 0).tolist()

    def _facts(self, query: int, neighbor: int) -> dict[str, Any]:
        facts: dict[str, Any] = {"row": int(self.found.indices[query, neighbor])}
        if self.found.uids is not None:
            facts["uid"] = format_hex(self.found.uids[query, neighbor : neighbor + 1].copy())[0].decode()
        facts["similarity"] = float(self.found.similarities[query, neighbor])
        if self.captions is not None:
            facts["caption"] = self.captions[query][neighbor]
        return facts


def search_index(
    index: Index | str | os.PathLike[str],
    *,
    uid: str | None = None,
    vector: NDArray[Any] | str | os.PathLike[str] | None = None,
    k: int = 10,
    where: str | None = None,
    nprobe: int | None = None,
    ef: int | None = None,
    prefix: int | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> SearchReport:
    """Find the rows most similar to a row of the index, or to vectors.

    Parameters
    ----------
    index
        An opened index, or its folder.
    uid
        32 hex digits of a row of the index; the row itself is left out of what is found. Where several rows have it,
        the first is taken.
    vector
        (d,) or (m, d) float32, float16 or int8, or an .npy file of it.
    k, where, nprobe, ef, prefix, threads, device
        As in `Index.search`.

    Raises
    ------
    InputError
        Not one of uid and vector, no such uid, or a value that `Index.search` refuses.
    """
    opened = index if isinstance(index, Index) else open_index(index)
    if (uid is None) == (vector is None):
        raise InputError("uid, vector: expected one of the two")
    own = None if uid is None else _row_of(opened, uid)
    if own is not None:
        queries = opened.vectors.values[own : own + 1]
        names: tuple[str, ...] = (str(uid),)
        dtype = opened.vectors.dtype
    else:
        assert vector is not None
        queries = _vectors(vector)
        names, dtype = tuple(f"vector {number}" for number in range(len(queries))), None
    found = opened.search(
        queries,
        k if own is None else k + 1,
        where=where,
        nprobe=nprobe,
        ef=ef,
        prefix=prefix,
        threads=threads,
        dtype=dtype,
        device=device,
    )
    if own is not None:
        found = _without_row(found, own, k)
    return SearchReport(str(opened.folder), names, found, _captions(opened, found.indices))


def _row_of(index: Index, uid: str) -> int:
    digits = uid.strip().encode()
    if len(digits) != 32:
        raise InputError(f"uid: expected 32 hex digits, got {uid!r}")
    key = parse_hex(np.array([digits], "S32"))[0]
    rows = index.rows_of_uid((int(key["f0"]), int(key["f1"])))
    if not len(rows):
        raise InputError(f"uid: expected one of the {len(index):,} rows of {index.folder}, got {uid!r}")
    return int(rows[0])


def _vectors(vector: NDArray[Any] | str | os.PathLike[str]) -> NDArray[Any]:
    if isinstance(vector, str | os.PathLike):
        path = Path(vector)
        try:
            vector = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"vector: {path} cannot be read as .npy ({error})") from error
        if not isinstance(vector, np.ndarray):
            raise InputError(f"vector: expected an .npy file, got {path}, which holds several arrays")
    if vector.dtype.name not in ("float32", "float16", "int8"):
        raise InputError(
            f"vector: expected float32, float16 or int8, got {vector.dtype}; convert it on purpose, for instance "
            "vector.astype(numpy.float32)"
        )
    if vector.ndim not in (1, 2):
        raise InputError(f"vector: expected shape (d,) or (m, d), got {vector.shape}")
    return np.ascontiguousarray(np.atleast_2d(vector))


def _without_row(found: Neighbors, row: int, k: int) -> Neighbors:
    """Of one query, the k first that are not this row."""
    kept = np.flatnonzero(found.indices[0] != row)[:k]
    return replace(
        found,
        indices=found.indices[:, kept],
        similarities=found.similarities[:, kept],
        uids=None if found.uids is None else found.uids[:, kept],
        note=f"{found.note}; without the row itself",
    )


def _captions(index: Index, indices: NDArray[np.int64]) -> tuple[tuple[str | None, ...], ...] | None:
    if find_column(CAPTION, index.columns) is None:
        return None
    there = indices >= 0
    texts = iter(index.attributes(indices[there], [CAPTION]).column(CAPTION).to_pylist())
    return tuple(tuple(next(texts) if is_there else None for is_there in row) for row in there.tolist())
