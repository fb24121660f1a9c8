"""Building an `ImageIndex` out of core, and a pool whose shards have it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pycurate.io.image_index import PLACES_NAME, UIDS_NAME, ImageIndex, uid_records
from pycurate.io.pool import Pool
from pycurate.pipeline.pool_rows import new_array
from pycurate.pipeline.record_sort import RecordSort
from pycurate.pipeline.workspace import digest, has_marker, remove_marker, write_marker
from pycurate.types import UID_DTYPE

_READERS = 4
_NAME = "index.rows"
_MEMORY_BYTES = 64 << 20


def needs_index(pool: Pool) -> bool:
    """True for a pool whose images are found by uid, before `with_image_index`."""
    return bool(pool.image_tars) and all(shard.image_index is None for shard in pool.shards)


def with_image_index(
    pool: Pool, folder: Path, memory_bytes: int, advance: Callable[[int], object] = lambda images: None
) -> Pool:
    """The pool with an index of its tars, built in ``folder`` unless that has it.

    Parameters
    ----------
    folder
        A folder of its own; 40 bytes an image stay in it.
    memory_bytes
        What sorting may allocate.
    advance
        Told how many images each tar has.

    Raises
    ------
    PoolError
        A tar that cannot be read, or is truncated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = digest(pool.image_tars, pool.images_fingerprint)
    rows_path = folder / _NAME
    if not has_marker(rows_path, key):
        remove_marker(rows_path)
        rows_path.write_text(str(_build(pool, folder, memory_bytes, advance)))
        write_marker(rows_path, key)
    index = ImageIndex(str(folder), pool.image_tars, int(rows_path.read_text()))
    return replace(pool, shards=tuple(replace(shard, image_index=index) for shard in pool.shards))


@contextmanager
def images_at_hand(pool: Pool, most_tars: int | None = None) -> Iterator[Pool]:
    """The pool with such an index in a temporary folder, where it needs one; of its first tars with ``most_tars``."""
    if not needs_index(pool):
        yield pool
        return
    known = pool if most_tars is None else replace(pool, image_tars=pool.image_tars[:most_tars])
    with tempfile.TemporaryDirectory(prefix="pycurate-images-") as folder:
        yield with_image_index(known, Path(folder), _MEMORY_BYTES)


def _build(pool: Pool, folder: Path, memory_bytes: int, advance: Callable[[int], object]) -> int:
    store = pool.shards[0].store
    with RecordSort(folder / "images.records", columns=5, key_columns=4) as records:

        def read(numbered: tuple[int, str]) -> int:
            found = uid_records(store, numbered[1], numbered[0])
            records.append(found)
            return len(found)

        with ThreadPoolExecutor(_READERS, thread_name_prefix="index-images") as readers:
            try:
                for images in readers.map(read, enumerate(pool.image_tars)):
                    advance(images)
            except BaseException:
                readers.shutdown(wait=False, cancel_futures=True)
                raise
        uids = new_array(folder / UIDS_NAME, UID_DTYPE, (records.rows,))
        places = new_array(folder / PLACES_NAME, np.uint64, (records.rows, 3))
        done = 0
        for part in records.ranges(memory_bytes):
            end = done + len(part)
            uids["f0"][done:end], uids["f1"][done:end] = part[:, 0], part[:, 1]
            places[done:end] = part[:, 2:]
            done = end
        return records.rows
