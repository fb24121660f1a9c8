"""What the ``labels`` commands read and write: probabilities, a pool's uids, tables of rows, a page."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import pycurate
from pycurate.api.examples import read_shown, shown_columns
from pycurate.arrow import arrow_values
from pycurate.errors import InputError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.pool import Pool, open_pool
from pycurate.io.subset import Subset
from pycurate.kernels.uid import format_hex, sort_uids
from pycurate.ops.labels.probabilities import TopProbabilities
from pycurate.pipeline.ledger import hex_strings
from pycurate.report.labels_page import LabelsPage, render_labels
from pycurate.report.manifest import ExampleRow
from pycurate.types import UID_DTYPE, UidArray

MANIFEST, REPORT = "manifest.json", "report.html"
PathLike: TypeAlias = "str | Path"

_GROUP_ROWS = 1 << 17
_TOP_FILES = ("classes.npy", "probabilities.npy", "self_probability.npy")


@dataclass(frozen=True, slots=True)
class PoolRows:
    """A pool's uids in its order, and what is shown of its rows; without a pool rows are told by number."""

    pool: Pool | None
    uids: UidArray | None

    @classmethod
    def of(cls, pool: PathLike | None, layout: Any = None) -> PoolRows:
        """Reads all uids, 16 bytes a row."""
        if pool is None:
            return cls(None, None)
        opened = open_pool(str(pool), layout=layout)
        uids, row = np.empty(opened.rows, UID_DTYPE), 0
        for shard in opened.shards:
            for block in shard.blocks():
                if block.uids is not None:
                    uids[row : row + block.rows] = block.uids
                row += block.rows
        return cls(opened, uids)

    def shown(self, rows: Sequence[int]) -> dict[int, ExampleRow]:
        """Captions, links and pictures of a few rows."""
        if self.pool is None or self.uids is None:
            return {row: ExampleRow(uid=f"row {row}", shard="", row=row, value=None) for row in rows}
        columns = shown_columns(self.pool)
        starts = np.cumsum([0, *(shard.rows for shard in self.pool.shards)])
        told: dict[int, ExampleRow] = {}
        for number, shard in enumerate(self.pool.shards):
            first = int(starts[number])
            mine = sorted(row - first for row in rows if first <= row < starts[number + 1])
            for (_, row), facts in read_shown(self.pool, shard.name, mine, columns).items() if mine else ():
                uid = format_hex(self.uids[first + row : first + row + 1].copy())[0].decode()
                told[first + row] = ExampleRow(uid=uid, shard=shard.name, row=row, value=None, **facts)
        return told

    def save_subset(self, path: Path, keep: NDArray[np.bool_]) -> None:
        """The uids of some rows as a subset file; nothing without a pool."""
        if self.uids is not None:
            kept = self.uids[keep]
            sort_uids(kept)
            Subset(kept).save(path)

    def key_column(self, rows: slice) -> tuple[str, pa.Array]:
        """The column that tells rows apart: ``uid``, 32 hex digits, or ``row``, int64."""
        if self.uids is None:
            return "row", arrow_values(np.arange(rows.start, rows.stop, dtype=np.int64))
        return "uid", hex_strings(np.ascontiguousarray(self.uids[rows]))


def open_probabilities(
    path: PathLike, num_classes: int | None = None
) -> NDArray[Any] | list[NDArray[Any]] | TopProbabilities:
    """Class probabilities, memory-mapped.

    Parameters
    ----------
    path
        ``.npy`` (n, K); or a folder of them in order of their names, shards of consecutive rows; or a folder with
        ``classes.npy`` and ``probabilities.npy`` (n, L) and ``self_probability.npy`` (n,), see `TopProbabilities`.
    num_classes
        Of the last form: K. None: one more than the largest class in it.
    """
    path = Path(path)
    if not path.is_dir():
        return _mapped(path, 2)
    if all((path / name).is_file() for name in _TOP_FILES):
        classes, probabilities, own = (
            _mapped(path / name, dimensions) for name, dimensions in zip(_TOP_FILES, (2, 2, 1), strict=True)
        )
        if num_classes is None:
            num_classes = int(classes.max()) + 1 if classes.size else 0
        return TopProbabilities(classes, probabilities, own, num_classes)
    files = sorted(path.glob("*.npy"))
    if not files:
        raise InputError(f"{path}: expected .npy files of probabilities (rows, classes), got none")
    return [_mapped(file, 2) for file in files]


def _mapped(path: Path, dimensions: int) -> NDArray[Any]:
    if not path.is_file() or path.suffix != ".npy":
        raise InputError(f"{path}: expected an .npy file of shape (rows, classes), or a folder of them")
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file ({error}); save the array with numpy.save") from error
    if values.ndim != dimensions:
        raise InputError(f"{path}: expected shape (rows{', classes' if dimensions == 2 else ','}), got {values.shape}")
    return values


def write_table(path: Path, rows: PoolRows, columns: Mapping[str, NDArray[Any] | pa.Array], count: int) -> None:
    """A Parquet file of all rows, in row groups of 131,072, that appears whole."""
    with atomic_write(path) as file:
        writer = None
        for begin in range(0, max(count, 1), _GROUP_ROWS):
            part = slice(begin, min(begin + _GROUP_ROWS, count))
            key, keys = rows.key_column(part)
            arrays = {
                name: values[part] if isinstance(values, pa.Array) else arrow_values(values[part])
                for name, values in columns.items()
            }
            batch = pa.record_batch({key: keys, **arrays})
            if writer is None:
                writer = pq.ParquetWriter(file, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()


def named_classes(classes: NDArray[Any], names: Sequence[str] | None) -> pa.Array:
    """Class ids as integers, or as their names; null where negative."""
    ids = np.asarray(classes)
    if names is None:
        return arrow_values(ids.astype(np.int32), ids >= 0)
    indices = arrow_values(np.maximum(ids, 0).astype(np.int32), ids >= 0)
    if not len(names):
        return pa.nulls(len(ids), pa.string())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string())).cast(pa.string())


def write_manifest(out: Path, facts: dict[str, Any]) -> None:
    """``manifest.json``: what was asked for and what came of it."""
    write_json_atomic(out / MANIFEST, {"version": pycurate.__version__, **facts})


def write_page(out: Path, shown: LabelsPage) -> Path:
    """``report.html``."""
    with atomic_write(out / REPORT, "file") as file:
        file.write(render_labels(shown).encode())
    return out / REPORT


@contextmanager
def warnings_as_notes() -> Iterator[list[str]]:
    """Warnings of the block become notes of the report, each once."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    for warning in caught:
        if str(warning.message) not in notes:
            notes.append(str(warning.message))
