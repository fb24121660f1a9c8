"""What a shard's stored results depend on: a hash that changes when a file of the shard does."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import xxhash

from pycurate.io.store import FileInfo, Store

_END_BYTES = 65_536
_READ_BYTES = 16 << 20


def fingerprint_files(store: Store, files: Sequence[str], verify: bool = False) -> str:
    """xxh3_128, in hex, of each file's relative path, size and contents as far as they are read.

    Without ``verify``: the time of modification (ETag on object stores) and the first and last 64 KiB. With it: every
    byte instead, and no time, so that a copy of the pool has the same fingerprint.
    """
    total = xxhash.xxh3_128()
    for path in sorted(files):
        info = store.info(path)
        contents = _all_bytes(store, path, info.size, info.stamp) if verify else _both_ends(store, path)
        stamp = "" if verify else info.stamp
        total.update("\0".join((path, str(info.size), stamp, contents, "")).encode())
    return total.hexdigest()


def listing_fingerprint(files: Mapping[str, FileInfo]) -> str:
    """xxh3_128, in hex, of the name, size and stamp of each file: what a listing says of it, without a read."""
    total = xxhash.xxh3_128()
    for path, info in sorted(files.items()):
        total.update(f"{path}\0{info.size}\0{info.stamp}\0".encode())
    return total.hexdigest()


def _both_ends(store: Store, path: str) -> str:
    digest = xxhash.xxh3_128()
    with store.reader(path) as reader:
        digest.update(reader.read(0, _END_BYTES))
        digest.update(reader.read(max(0, reader.size - _END_BYTES), _END_BYTES))
    return digest.hexdigest()


@functools.lru_cache(maxsize=1024)
def _all_bytes(store: Store, path: str, size: int, stamp: str) -> str:
    """Cached, since the shards of one large file all ask for it; ``size`` and ``stamp`` are part of the key."""
    digest = xxhash.xxh3_128()
    with store.reader(path) as reader:
        for offset in range(0, size, _READ_BYTES):
            digest.update(reader.read(offset, _READ_BYTES))
    return digest.hexdigest()
