"""A run's workspace: one folder, human-readable, that a killed run leaves complete up to its last finished task.

``columns/<kind>-<key>/<shard>.arrow`` holds the score columns of one (step, shard); ``<shard>.arrow.json`` beside it is
written last and says that it is complete: the key it was computed for, rows, bytes and checksum.
``exchange/<kind>-<key>/<shard>.arrow`` holds the (key, row) pairs of a step that exchanges, one record batch a segment.
``artefacts/<kind>-<key>/`` holds what a fit returned.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pycurate.arrow import arrow_values, numpy_values
from pycurate.errors import WorkspaceError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.pipeline.step import Pairs
from pycurate.types import UID_DTYPE, ScoreArray

FINISHED = "finished.json"
"""Written last: which run is finished here, and in which folders its score columns lie."""
FORMAT = 1  # bumped when files of an earlier layout cannot be read
_PAIRS = pa.schema([pa.field("key", pa.uint64(), nullable=False), pa.field("row", pa.uint32(), nullable=False)])


def digest(*parts: Any) -> str:
    """16 hex digits that change whenever a JSON value among ``parts`` does."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Workspace:
    """Files of one run below ``root``; see the module's description."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for this process; the kernel lets go of it when the process ends, however it ends."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WorkspaceError(
                f"out: cannot write in {self.root} ({error.strerror}); choose another folder"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "another process"
                raise WorkspaceError(
                    f"out: {self.root} is in use by {holder}; wait for that run to end or choose another folder"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
            self._check_format()
            yield
        finally:
            os.close(descriptor)

    def _check_format(self) -> None:
        path = self.root / "workspace.json"
        if not path.exists():
            write_json_atomic(path, {"format": FORMAT})
            return
        found = json.loads(path.read_text()).get("format")
        if found != FORMAT:
            raise WorkspaceError(
                f"out: {self.root} has workspace format {found}, this version writes {FORMAT}; delete the folder"
            )

    # -- score columns, one file per (step, shard) -------------------------------------------------------------------

    def columns_path(self, folder: str, shard: str) -> Path:
        return self.root / "columns" / folder / f"{shard}.arrow"

    def has_columns(self, folder: str, shard: str, key: str) -> bool:
        return has_marker(self.columns_path(folder, shard), key)

    def write_columns(self, folder: str, shard: str, key: str, columns: Mapping[str, ScoreArray]) -> int:
        """Write one (step, shard); returns its bytes."""
        arrays = [_to_arrow(values) for values in columns.values()]
        fields = [
            pa.field(name, array.type, nullable=False, metadata={"numpy": _dtype_name(columns[name].dtype)})
            for name, array in zip(columns, arrays, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
        path = ready(self.columns_path(folder, shard))
        remove_marker(path)
        with atomic_write(path, "file") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        return write_marker(path, key, rows=batch.num_rows)

    def read_columns(self, folder: str, shard: str) -> dict[str, ScoreArray]:
        """The columns of one (step, shard), memory-mapped and read-only."""
        path = self.columns_path(folder, shard)
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batch = reader.get_batch(0)
        except (OSError, pa.ArrowInvalid) as error:
            raise WorkspaceError(f"{path} cannot be read ({error}); delete it and run again") from error
        return {field.name: _to_numpy(batch.column(i), field) for i, field in enumerate(batch.schema)}

    # -- exchanged pairs, one file per (step, shard) -----------------------------------------------------------------

    def pairs_path(self, folder: str, shard: str) -> Path:
        return self.root / "exchange" / folder / f"{shard}.arrow"

    def has_pairs(self, folder: str, shard: str, key: str) -> bool:
        return has_marker(self.pairs_path(folder, shard), key)

    @contextmanager
    def pairs_writer(self, folder: str, shard: str, key: str) -> Iterator[Callable[[Pairs], None]]:
        """Write one (step, shard) segment by segment; the file is complete when the block ends without an error."""
        path = ready(self.pairs_path(folder, shard))
        remove_marker(path)
        segments = 0
        with atomic_write(path, "file") as file, pa.ipc.new_file(file, _PAIRS) as writer:

            def append(segment: Pairs) -> None:
                nonlocal segments
                arrays = [arrow_values(values) for values in segment]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_PAIRS))
                segments += 1

            yield append
        write_marker(path, key, segments=segments)

    def read_pairs(self, folder: str, shard: str) -> list[Pairs]:
        """The segments of one (step, shard), memory-mapped and read-only."""
        path = self.pairs_path(folder, shard)
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise WorkspaceError(f"{path} cannot be read ({error}); delete it and run again") from error
        return [(numpy_values(batch.column(0)), numpy_values(batch.column(1))) for batch in batches]

    # -- artefacts ---------------------------------------------------------------------------------------------------

    def artefact_path(self, folder: str) -> Path:
        return self.root / "artefacts" / folder

    def write_artefact(self, folder: str, artefact: Mapping[str, Any]) -> None:
        path = self.artefact_path(folder)
        values: dict[str, Any] = {}
        for name, value in artefact.items():
            if isinstance(value, np.ndarray):
                with atomic_write(ready(path / f"{name}.npy")) as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(value), allow_pickle=False)
                values[name] = {"array": f"{name}.npy"}
            else:
                values[name] = {"value": value}
        write_json_atomic(ready(path / "artefact.json"), values)

    def read_artefact(self, folder: str) -> dict[str, Any] | None:
        """None where no complete artefact of that name exists; arrays come memory-mapped."""
        path = self.artefact_path(folder) / "artefact.json"
        if not path.exists():
            return None
        artefact: dict[str, Any] = {}
        for name, entry in json.loads(path.read_text()).items():
            artefact[name] = entry["value"] if "value" in entry else _load_array(path.parent / entry["array"])
        return artefact

    @contextmanager
    def scratch(self, name: str, *, resumes: bool = False) -> Iterator[Path]:
        """A folder for the files of one fit, removed when it is over; and with it what other fits left.

        Parameters
        ----------
        resumes
            A fit of this name that did not end leaves its files, and the next finds them.
        """
        path = self.root / "scratch" / name
        left = list(path.parent.iterdir()) if path.parent.is_dir() else []
        for other in left:
            if not (resumes and other == path):
                shutil.rmtree(other, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        except BaseException:
            if not resumes:
                shutil.rmtree(path, ignore_errors=True)
            raise
        shutil.rmtree(path, ignore_errors=True)


def ready(path: Path) -> Path:
    """``path``, whose folder now exists."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"cannot write {path}: {error.strerror}; free or choose another output folder") from error
    return path


def has_marker(path: Path, key: str) -> bool:
    """True when ``path`` was completed for ``key`` and still has the size it had then."""
    try:
        marker = json.loads(path.with_name(path.name + ".json").read_text())
        return bool(marker["key"] == key and path.stat().st_size == marker["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remove_marker(path: Path) -> None:
    """Before ``path`` is written anew: a run killed then must not leave new contents under the old contents' marker."""
    path.with_name(path.name + ".json").unlink(missing_ok=True)


def write_marker(path: Path, key: str, **facts: Any) -> int:
    """Say that ``path`` is complete for ``key``; returns its bytes."""
    size = path.stat().st_size
    marker = {"key": key, "bytes": size, "xxh3": file_checksum(path), **facts}
    write_json_atomic(path.with_name(path.name + ".json"), marker, "nothing")  # has_marker notices a torn one
    return size


def file_checksum(path: Path) -> str:
    """xxh3-64 of a file's bytes."""
    state = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            state.update(chunk)
    return str(state.hexdigest())


def _load_array(path: Path) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "uid" if dtype == UID_DTYPE else dtype.str


def _to_arrow(values: ScoreArray) -> pa.Array:
    if values.dtype.kind in "VS":
        raw = np.ascontiguousarray(values).view(np.uint8)
        return pa.Array.from_buffers(pa.binary(values.dtype.itemsize), len(values), [None, pa.py_buffer(raw)])
    return arrow_values(values)


def _to_numpy(array: pa.Array, field: pa.Field) -> ScoreArray:
    name = field.metadata[b"numpy"].decode()
    dtype = UID_DTYPE if name == "uid" else np.dtype(name)
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)
