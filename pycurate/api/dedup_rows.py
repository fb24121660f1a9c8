"""The rows of a search for duplicates: where their embeddings lie, who they are and which of them comes first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyarrow.types import is_boolean, is_floating, is_integer

from pycurate.engine import NoProgress, Progress
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.atomic import atomic_write
from pycurate.io.names import unknown_name
from pycurate.io.npy import Matrix
from pycurate.io.pool import Pool, Shard, open_pool
from pycurate.kernels.arrays import kind, matrix_of
from pycurate.pipeline.block_join import RowSource
from pycurate.pipeline.block_join.source import open_array
from pycurate.pipeline.scan import numeric_column
from pycurate.pipeline.workspace import digest
from pycurate.steps.semantic_dedup import CLUSTER_ORDERS
from pycurate.types import UID_DTYPE, UidArray

Rows: TypeAlias = Pool | str | os.PathLike[str] | NDArray[Any]
"""A pool or its path, an (n, d) array, or the path of a .npy file of one."""

UID = "uid"
IMAGE_AREA = "image_area"


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """Consecutive rows of embeddings in a local file."""

    path: str
    offset_bytes: int
    rows: int
    dimension: int
    element: str

    def map(self) -> NDArray[Any]:
        """(rows, d) memory-mapped; bfloat16 as uint16.

        Raises
        ------
        WorkspaceError
            The file is gone or shorter than it was.
        """
        dtype = np.dtype("uint16" if self.element == "bfloat16" else self.element)
        if not self.rows:
            return np.empty((0, self.dimension), dtype)
        try:
            return np.memmap(self.path, dtype, "r", self.offset_bytes, (self.rows, self.dimension))
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"{self.path} cannot be read as it was when duplicates were looked for ({error}); put it back, or "
                "run into a new folder"
            ) from error


def mapped_source(matrices: Sequence[StoredMatrix]) -> RowSource:
    """The rows of these matrices as one source."""
    is_bfloat16 = matrices[0].element == "bfloat16"
    return RowSource("rows", [matrix.map() for matrix in matrices], "bfloat16" if is_bfloat16 else None)


@dataclass(frozen=True, slots=True, eq=False)
class JudgedRows:
    """Opened rows of one batch."""

    matrices: tuple[StoredMatrix, ...]
    uids: UidArray  # (n,)
    priority: NDArray[np.float64] | None  # (n,) larger is earlier, NaN last; None: by uid
    facts: dict[str, Any]  # JSON: what they are

    def uid_rank(self) -> NDArray[np.int64]:
        """(n,) place of each row by uid, then as the rows stand."""
        return replace(self, priority=None).rank()

    def rank(self) -> NDArray[np.int64]:
        """(n,) place of each row: larger priority first, then by uid, then as the rows stand."""
        keys: list[NDArray[Any]] = [self.uids["f1"], self.uids["f0"]]
        if self.priority is not None:
            keys.append(-self.priority)  # NaN sorts last
        rank = np.empty(len(self.uids), np.int64)
        rank[np.lexsort(keys)] = np.arange(len(self.uids))
        return rank


class RowInput:
    """What was given as rows, checked; nothing is read yet.

    Attributes
    ----------
    pool
        None where an array was given.
    rows, dimension, element
        Of the embeddings.
    """

    def __init__(self, given: Rows, embedding: str | None) -> None:
        self.pool: Pool | None = None
        self._given_array: NDArray[Any] | None = None
        if isinstance(given, np.ndarray) or _is_npy_file(given):
            self._open_array(given, embedding)
            return
        self.pool = given if isinstance(given, Pool) else open_pool(given)
        names = self.pool.embeddings
        self.embedding = next(iter(names)) if embedding is None and len(names) == 1 else str(embedding)
        if self.embedding not in names:
            raise unknown_name("embedding", self.embedding, names)
        info = names[self.embedding]
        self.rows, self.dimension, self.element = self.pool.rows, info.dimension, info.dtype

    @property
    def copied_bytes(self) -> int:
        """Bytes of embeddings that must be copied, since they do not lie as plain bytes in a local file."""
        row_bytes = self.dimension * int(np.dtype("uint16" if self.element == "bfloat16" else self.element).itemsize)
        if self.pool is None:
            return 0 if _file_of(self._given_array) else self.rows * row_bytes
        return sum(shard.rows * row_bytes for shard in self.pool.shards if _in_place(shard, self.embedding) is None)

    @property
    def array(self) -> NDArray[Any]:
        """(n, d) what was given, where it is no pool; bfloat16 as uint16."""
        assert self._given_array is not None
        return self._given_array

    def facts(self) -> dict[str, Any]:
        """JSON that tells these rows from others."""
        shape = {"rows": self.rows, "dimension": self.dimension, "element": self.element}
        if self.pool is None:
            source = RowSource("rows", self.array, "bfloat16" if self.element == "bfloat16" else None)
            return {**shape, "fingerprint": source.fingerprint()}
        return {
            "pool": self.pool.root,
            "layout": self.pool.layout,
            "uid_source": self.pool.uid_source,
            "shards": len(self.pool.shards),
            "embedding": self.embedding,
            **shape,
            "fingerprint": digest([[shard.name, shard.fingerprint()] for shard in self.pool.shards]),
        }

    def check_priority(self, priority: str) -> None:
        """InputError unless rows have what ``priority`` asks for."""
        for column in _columns_of(priority):
            if self.pool is None:
                raise InputError(
                    f"priority: expected 'uid' for rows of an array, which have no columns, got {priority!r}; give "
                    "a pool, or the rows in the order in which they are to come first"
                )
            kind_of = self.pool.shards[0].types[self.pool.stored_name(column)]
            if not (is_integer(kind_of) or is_floating(kind_of) or is_boolean(kind_of)):
                raise InputError(f"priority: expected a column of numbers, got {column!r}, which is {kind_of}")

    def read(self, priority: str, folder: Path, progress: Progress | None) -> JudgedRows:
        """Uids and priorities, and the embeddings where they lie or copied below ``folder``."""
        facts = self.facts()
        if self.pool is None:
            uids = np.zeros(self.rows, UID_DTYPE)
            uids["f1"] = np.arange(self.rows)
            return JudgedRows((self._stored_array(folder),), uids, None, facts)
        columns, told = _columns_of(priority), progress or NoProgress()
        uids, values = np.empty(self.rows, UID_DTYPE), np.empty(self.rows)
        matrices, start = [], 0
        told.start("reading uids", len(self.pool.shards))
        for number, shard in enumerate(self.pool.shards):
            for block in shard.blocks(columns):
                part = slice(start + block.start, start + block.start + block.rows)
                assert block.uids is not None
                uids[part] = block.uids
                if columns:
                    factors = [numeric_column(block, column).astype(np.float64) for column in columns]
                    values[part] = np.prod(factors, axis=0)
            matrix = _in_place(shard, self.embedding)
            matrices.append(matrix or self._copied(shard, folder / f"{number:06d}.npy"))
            start += shard.rows
            told.advance(shard.rows)
        told.finish()
        return JudgedRows(tuple(matrices), uids, values if columns else None, facts)

    def _copied(self, shard: Shard, path: Path) -> StoredMatrix:
        """The rows of a shard as a .npy of their own; one that is there is whole."""
        dtype = np.dtype("uint16" if self.element == "bfloat16" else self.element)
        header = {"descr": dtype.str, "fortran_order": False, "shape": (shard.rows, self.dimension)}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "file") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for block in shard.blocks((), (self.embedding,), uids=False):
                    file.write(np.ascontiguousarray(block.embeddings[self.embedding]).view(np.uint8).data)
        return self._whole_file(path, shard.rows, dtype)

    def _whole_file(self, path: Path, rows: int, dtype: np.dtype[Any]) -> StoredMatrix:
        size = rows * self.dimension * dtype.itemsize
        offset = path.stat().st_size - size
        return StoredMatrix(str(path.resolve()), offset, rows, self.dimension, self.element)

    def _stored_array(self, folder: Path) -> StoredMatrix:
        array = self.array
        path = _file_of(array)
        if path is not None:
            return self._whole_file(path, self.rows, array.dtype)
        target = folder / "000000.npy"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target, "file") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        return self._whole_file(target, self.rows, array.dtype)

    def _open_array(self, given: Any, embedding: str | None) -> None:
        if embedding is not None:
            raise InputError(f"embedding: expected None for an array, got {embedding!r}; it is the embedding")
        try:
            array = given if isinstance(given, np.ndarray) else open_array(given)
        except (OSError, ValueError, EOFError) as error:
            reason = "it is no file of numpy.save" if "pickled" in str(error) else error
            raise InputError(
                f"rows: {given} cannot be read as .npy ({reason}); write it again with numpy.save, or name another"
            ) from error
        try:
            self._given_array, self.element = matrix_of("rows", array, None)
        except (TypeError, ValueError) as error:
            if isinstance(given, np.ndarray):
                raise
            raise InputError(f"{error} (in {given})") from error
        self.rows, self.dimension = self._given_array.shape


def stored_facts(matrices: Sequence[StoredMatrix]) -> list[dict[str, Any]]:
    """JSON of them."""
    return [asdict(matrix) for matrix in matrices]


def _columns_of(priority: str) -> tuple[str, ...]:
    """The columns whose product orders rows."""
    if not isinstance(priority, str):
        raise InputError(
            f"priority: expected the name of a column, 'uid', or an order by cluster, got {kind(priority)}"
        )
    if priority == UID or priority in CLUSTER_ORDERS:
        return ()
    return ("original_width", "original_height") if priority == IMAGE_AREA else (priority,)


def _is_npy_file(given: object) -> bool:
    """A single .npy file is taken as an array, whatever a pool would make of it."""
    if not isinstance(given, str | os.PathLike):
        return False
    text = os.fspath(given)
    return text.endswith(".npy") and os.path.isfile(text)


def _in_place(shard: Shard, embedding: str) -> StoredMatrix | None:
    """Where a shard's rows lie as plain bytes in a local file; None where they do not."""
    matrix = shard.matrices[embedding]
    if not isinstance(matrix, Matrix) or matrix.deflated_bytes or not shard.store.local:
        return None
    offset = matrix.offset + shard.start * matrix.row_bytes
    path = str(Path(shard.store.location(matrix.path)).resolve())
    return StoredMatrix(path, offset, shard.rows, matrix.dimension, matrix.dtype)


def _file_of(array: NDArray[Any] | None) -> Path | None:
    """The .npy file that an array is a memory map of, all of it and as it lies there."""
    if not isinstance(array, np.memmap) or array.filename is None or not array.flags.c_contiguous:
        return None
    path = Path(array.filename)
    with suppress(OSError, ValueError):
        whole = open_array(path)
        if whole.shape == array.shape and whole.dtype == array.dtype and isinstance(whole, np.memmap):
            same = whole.offset == array.offset
            return path if same else None
    return None
