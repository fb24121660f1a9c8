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


def file_fingerprint(path: str, key: str, where_from: str = "") -> dict[str, Any]:
    """Bytes and xxh3_128 of a file's contents: what score columns made with it depend on."""
    found = existing_path(path, key, where_from)
    status = found.stat()
    return _fingerprint(found.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _fingerprint(path: Path, size_bytes: int, modified_ns: int) -> dict[str, Any]:
    from xxhash import xxh3_128

    state = xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return {"bytes": size_bytes, "xxh3_128": state.hexdigest()}


@lru_cache(maxsize=16)
def read_lines(path: str, key: str, where_from: str = "") -> tuple[str, ...]:
    """The non-empty lines of a UTF-8 file, ends stripped."""
    text = existing_path(path, key, where_from).read_text(encoding="utf-8")
    return tuple(line for line in map(str.strip, text.splitlines()) if line)
