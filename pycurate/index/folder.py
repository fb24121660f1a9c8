"""The folder of an index or a graph: data files of one generation, and a manifest that names them, written last.

A build writes files of new names beside those of an earlier one and replaces the manifest when all of them are on the
disk; then the earlier ones are deleted. A build that is killed leaves the earlier index as it was, and files that the
next build deletes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, WorkspaceError

MARKER = "pycurate.json"
"""Says that a folder is an output of this package; pools are listed without such folders."""
FORMAT = 1
_DATA_FILE = re.compile(r"[a-z]+\.[0-9a-f]{8}\.(?:npy|faiss|parquet)|\..*\.tmp")
_NPY_HEADER_BYTES = 256


class Generation:
    """The files of one build. Leave it by an error and they are deleted; call `finish` to put them in place."""

    def __init__(self, folder: str | os.PathLike[str], manifest: str) -> None:
        self.folder = Path(folder).absolute()
        self._manifest = self.folder / manifest
        self._tag = secrets.token_hex(4)
        self._files: dict[str, Path] = {}
        _claim(self.folder, manifest)
        self._lock = _locked(self.folder / MARKER)

    def path(self, role: str, suffix: str) -> Path:
        """Where the file of this role is to be written."""
        self._files[role] = self.folder / f"{role}.{self._tag}{suffix}"
        return self._files[role]

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Flush the files, write the manifest with ``facts`` and their sizes, delete what it does not name."""
        files = {}
        for role, path in self._files.items():
            _flush(path)
            files[role] = {"name": path.name, "bytes": path.stat().st_size}
        text = json.dumps({"format": FORMAT, **facts, "files": files}, indent=1, ensure_ascii=False, allow_nan=False)
        temporary = self.folder / f".{self._manifest.name}.{self._tag}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        _flush(temporary)
        os.replace(temporary, self._manifest)
        _flush(self.folder)
        self._sweep({path.name for path in self._files.values()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        named = self._manifest.read_text(encoding="utf-8") if self._manifest.exists() else ""
        for path in self._files.values():
            if error is not None and path.name not in named:
                with contextlib.suppress(OSError):
                    path.unlink()
        os.close(self._lock)

    def _sweep(self, kept: set[str]) -> None:
        for path in self.folder.iterdir():
            if path.name not in kept and _DATA_FILE.fullmatch(path.name):
                path.unlink()


def read_manifest(folder: Path, manifest: str, what: str) -> dict[str, Any]:
    """The facts of a finished folder, after a look at the size of every file it names.

    Raises
    ------
    InputError
        There is no finished ``what`` here.
    WorkspaceError
        A file is missing or cut short, or of a later version of this package; names it.
    """
    path = folder / manifest
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files, version = facts["files"], facts["format"]
    except FileNotFoundError as error:
        reason = "its build did not finish: build it again" if (folder / MARKER).exists() else "expected one that has"
        raise InputError(f"{what}: {folder} has no {manifest}; {reason}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{what}: {path} cannot be read ({error}); build it again") from error
    if version != FORMAT:
        raise WorkspaceError(f"{what}: {path} has format {version}, expected {FORMAT}; build it again")
    for entry in files.values():
        try:
            size = (folder / entry["name"]).stat().st_size
        except OSError:
            size = -1
        if size != entry["bytes"]:
            found = f"it has {size:,}" if size >= 0 else "it is missing"
            raise WorkspaceError(
                f"{what}: {folder / entry['name']} should have {entry['bytes']:,} bytes, {found}; copy the folder "
                "again or build it again"
            )
    return facts


def file_of(folder: Path, facts: Mapping[str, Any], role: str) -> Path | None:
    """The file of a role, or None where the folder has none."""
    entry = facts["files"].get(role)
    return None if entry is None else folder / entry["name"]


class NpyWriter:
    """Appends rows to an .npy file whose number of rows is known at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any], columns: int | None = None) -> None:
        self.rows = 0
        self._dtype, self.columns = dtype, columns
        self._file = path.open("xb")
        self._file.write(self._header())

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows of the dtype and width given, C order."""
        np.ascontiguousarray(rows, self._dtype).tofile(self._file)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header; nothing when it is closed already."""
        if self._file.closed:
            return
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _header(self) -> bytes:
        shape = (self.rows,) if self.columns is None else (self.rows, self.columns)
        facts = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        text = repr(facts).encode()
        return (
            b"\x93NUMPY\x01\x00"
            + (_NPY_HEADER_BYTES - 10).to_bytes(2, "little")
            + text.ljust(_NPY_HEADER_BYTES - 11)
            + b"\n"
        )


def mapped(path: Path) -> NDArray[Any]:
    """An .npy file, memory-mapped and read-only; an empty one is read, as nothing can be mapped."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape = np.lib.format.read_array_header_1_0(file)[0]
    array: NDArray[Any] = np.load(path, mmap_mode=None if 0 in shape else "r")
    return array


def _claim(folder: Path, manifest: str) -> None:
    """Make ``folder``, or see that nothing lies in it but what builds of the same manifest have written."""
    try:
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        foreign = sorted(name for name in there - {MARKER, manifest} if not _DATA_FILE.fullmatch(name))
        if foreign or (there and MARKER not in there):
            shown = foreign[0] if foreign else min(there)
            raise WorkspaceError(
                f"out: {folder} is not empty and is not from an earlier build (it has {shown!r}); choose another "
                "folder or empty it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not there:
            (folder / MARKER).write_text('{\n  "made by": "pycurate"\n}\n', encoding="utf-8")
    except OSError as error:
        raise WorkspaceError(f"out: cannot use {folder} as a folder ({error.strerror}); choose another") from error


def _locked(path: Path) -> int:
    """A descriptor of the marker that holds its lock, which goes when the process ends, however it ends."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise WorkspaceError(f"out: another build is writing {path.parent}; wait for it or choose another") from error
    return descriptor


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)
