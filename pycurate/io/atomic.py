"""Files that are either whole or not there: written to a temporary name, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from pycurate.errors import WorkspaceError

TEMPORARY_SUFFIX = ".tmp"
"""Ends the name of every unfinished file; a killed run leaves such files, and whoever holds the folder's lock may
delete them."""

Flush = Literal["folder", "file", "nothing"]

_FULL: dict[int | None, str] = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_OPENING: dict[int | None, str] = {
    **_FULL,
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "the folder is not a folder",
    errno.EISDIR: "a folder of that name is in the way",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], flush: Flush = "folder") -> Iterator[BinaryIO]:
    """A binary file that appears under ``path``, replacing what was there, only when the block ends without an error.

    The bytes go to a temporary file in the same folder, which is flushed to disk, renamed to ``path``, and the folder
    flushed. After an exception the temporary file is gone and ``path`` is as it was.

    Parameters
    ----------
    flush
        What is on the disk, safe from a loss of power, before the call returns. ``folder``: the file under its name.
        ``file``: its bytes; the name may go back to what it was, which costs no more than work done again. ``nothing``:
        for markers that are checked when they are read.

    Raises
    ------
    WorkspaceError
        The disk is full, or the folder is missing or not writable; names the path and what to do. Other errors of the
        block pass unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        file = temporary.open("xb")
    except OSError as error:
        _raise_for(error, path, _OPENING)
    try:
        with file:
            yield file
            file.flush()
            if flush != "nothing":
                os.fsync(file.fileno())
    except OSError as error:
        _discard(temporary)
        # The block may read other files: only what reading never says is put down to this file. NumPy's tofile()
        # reports a short write without an error number.
        known: dict[int | None, str] = _FULL if error.errno is not None else {None: f"writing failed ({error})"}
        _raise_for(error, path, known)
    except BaseException:
        _discard(temporary)
        raise
    try:
        os.replace(temporary, path)
        if flush == "folder":
            _flush_folder(path.parent)
    except OSError as error:
        _discard(temporary)
        _raise_for(error, path, _OPENING)


@contextlib.contextmanager
def naming_a_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """A full disk inside the block becomes a WorkspaceError that names ``path`` and what to do."""
    try:
        yield
    except OSError as error:
        _raise_for(error, Path(path), _FULL)


def write_json_atomic(path: str | os.PathLike[str], value: Any, flush: Flush = "folder") -> None:
    """Write ``value`` as indented UTF-8 JSON with a final newline, through `atomic_write`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path, flush) as file:
        file.write(text.encode() + b"\n")


def _raise_for(error: OSError, path: Path, known: Mapping[int | None, str]) -> NoReturn:
    reason = known.get(error.errno)
    if reason is None:
        raise error
    if error.errno in _FULL:
        remedy = "free some space there or choose another output folder, then run again: finished work is kept"
    else:
        remedy = "choose another output folder or correct this one"
    raise WorkspaceError(f"cannot write {path}: {reason}; {remedy}") from error


def _discard(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)
