"""Files that a recipe names: found, read and fingerprinted, with sentences that say which key named them."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pycurate.errors import MissingDependencyError

_CHUNK_BYTES = 1 << 24


def existing_path(path: str, key: str, where_from: str = "") -> Path:
    """The path, if something lies there; ``where_from`` tells users where they get the file."""
    found = Path(path).expanduser()
    if not found.exists():
        hint = f" {where_from}" if where_from else ""
        raise MissingDependencyError(f"{key}: there is no file or folder {path!r}.{hint}")
    return found


def file_version(path: str, key: str, where_from: str = "") -> tuple[Path, int, int]:
    """Path, bytes and time of change: what a cache of something read from the file is keyed by."""
    found = existing_path(path, key, where_from).resolve()
    status = found.stat()
    return found, status.st_size, status.st_mtime_ns


def file_fingerprint(path: str, key: str, where_from: str = "") -> dict[str, Any]:
    """Bytes and xxh3_128 of a file's contents: what score columns made with it depend on."""
    return _fingerprint(*file_version(path, key, where_from))


@cache
def _fingerprint(path: Path, size_bytes: int, modified_ns: int) -> dict[str, Any]:
    from xxhash import xxh3_128

    state = xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return {"bytes": size_bytes, "xxh3_128": state.hexdigest()}


def read_lines(path: str, key: str, where_from: str = "") -> tuple[str, ...]:
    """The non-empty lines of a UTF-8 file, ends stripped."""
    return _lines(*file_version(path, key, where_from))


@lru_cache(maxsize=16)
def _lines(path: Path, size_bytes: int, modified_ns: int) -> tuple[str, ...]:
    return tuple(line for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()) if line)
