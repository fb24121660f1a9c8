"""Packs: what is known of the items of an evaluation set, in one folder, for comparing pools with it.

``pack.json`` is written last and says what the pack holds, with the size and checksum of every file: ``items.parquet``
(id, caption, uid, sha256; one row an item), ``embedding-<i>.npy`` (items, d), ``captions.npy`` (128-bit keys of the
normalised captions), ``phash.npy`` and ``phash-flags.npy`` (perceptual hashes of images), ``grams-<n>.npy`` (64-bit
hashes of n-grams of words, sorted) and ``grams-<n>-items.npy`` (the item of each).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.uids import column_uids
from pycurate.types import UID_DTYPE, UidArray

PACK_NAME = "pack.json"
FORMAT = 1  # bumped when packs of an earlier layout cannot be read
ITEMS = pa.schema(
    [
        pa.field("id", pa.large_string(), nullable=False),
        pa.field("caption", pa.large_string()),
        pa.field("uid", pa.large_string()),  # null where the evaluation set has no column of uids
        pa.field("sha256", pa.large_string()),  # of the image's encoded bytes
    ]
)


@dataclass(frozen=True, slots=True)
class PackEmbedding:
    """One embedding of a pack."""

    dimension: int
    dtype: str  # float16, float32, int8 or bfloat16
    model: str | None  # what it was made with, as stated when the pack was built
    unjudged: int  # items whose vector is zero or not finite, which nothing can be near


@dataclass(frozen=True)
class Pack:
    """A pack on disk. Arrays are memory-mapped when they are asked for.

    Attributes
    ----------
    path
        Its folder.
    name
        As reports call it.
    rows
        Items.
    embeddings
        By name.
    grams
        The lengths n for which n-grams of captions are there; empty without captions.
    has_uids, has_sha256, has_phash
        Whether items have uids of a column, hashes of their images' bytes, and perceptual hashes of their images.
    checksum
        Changes whenever the pack's contents do.
    """

    path: Path
    name: str
    rows: int
    embeddings: Mapping[str, PackEmbedding]
    grams: tuple[int, ...]
    has_uids: bool
    has_sha256: bool
    has_phash: bool
    checksum: str
    facts: Mapping[str, Any]

    @property
    def has_captions(self) -> bool:
        """Whether any item has a caption."""
        return bool(self.grams)

    @cached_property
    def items(self) -> pa.Table:
        """Columns id, caption, uid and sha256, one row an item."""
        return pq.read_table(self.path / "items.parquet").combine_chunks()

    @cached_property
    def ids(self) -> list[str]:
        """(rows,) what items are called."""
        names: list[str] = self.items["id"].to_pylist()
        return names

    def embedding(self, name: str) -> NDArray[Any]:
        """(rows, d) in the dtype of the evaluation set, bfloat16 as uint16."""
        return self._array(f"embedding-{list(self.embeddings).index(name)}.npy")

    def caption_keys(self) -> UidArray:
        """(rows,) 128-bit keys of the captions, normalised."""
        return self._array("captions.npy")

    def phash(self) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """(rows, 1) 64-bit DCT hashes of the items' images, and (rows,) 0 where an item has one."""
        return self._array("phash.npy"), self._array("phash-flags.npy")

    def uids(self) -> UidArray:
        """(rows,) uids of the items; zeros where an item has none."""
        return column_uids(self.items["uid"].combine_chunks().fill_null("0" * 32), "items.parquet", 0)

    def gram_items(self, n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """(e,) sorted hashes of n-grams, and the item that has each: one entry an n-gram of an item."""
        return self._array(f"grams-{n}.npy"), self._array(f"grams-{n}-items.npy")

    def _array(self, file: str) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(self.path / file, mmap_mode="r", allow_pickle=False)
        except ValueError:  # nothing cannot be mapped
            array = np.load(self.path / file, allow_pickle=False)
        return array


def open_pack(path: str | os.PathLike[str]) -> Pack:
    """Open a pack and check every file against its checksum.

    Raises
    ------
    InputError
        No pack there, one of another format, or a file that is missing or damaged; says which and what to do.
    """
    folder = Path(path)
    if not (folder / PACK_NAME).exists():
        raise InputError(
            f"pack: {folder} is no pack: it has no {PACK_NAME}; build one with 'pycurate pack EVALSET --out {folder}'"
        )
    try:
        facts = json.loads((folder / PACK_NAME).read_text())
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise InputError(
                f"pack: {folder} has format {facts.get('format') if isinstance(facts, dict) else None}, this version "
                f"reads {FORMAT}; build it again with 'pycurate pack'"
            )
        files = {name: (entry["bytes"], entry["xxh3"]) for name, entry in facts["files"].items()}
        pack = Pack(
            path=folder,
            name=facts["name"],
            rows=facts["rows"],
            embeddings={name: PackEmbedding(**entry) for name, entry in facts["embeddings"].items()},
            grams=tuple(facts["grams"]),
            has_uids=facts["uids"],
            has_sha256=facts["sha256"],
            has_phash=facts["phash"],
            checksum=xxhash.xxh3_128(json.dumps(sorted(files.items())).encode()).hexdigest(),
            facts=facts,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"pack: {folder / PACK_NAME} cannot be read ({error}); build the pack again with 'pycurate pack'"
        ) from error
    for name, expected in files.items():
        try:
            found = (folder / name).stat().st_size, _checksum(folder / name)
        except OSError as error:
            raise InputError(
                f"pack: {folder / name} cannot be read ({error.strerror}); copy or build the pack again"
            ) from error
        if found != expected:
            raise InputError(
                f"pack: {folder / name} is damaged: expected {expected[0]:,} bytes of checksum {expected[1]}, found "
                f"{found[0]:,} of {found[1]}; copy or build the pack again"
            )
    return pack


@contextmanager
def pack_array(folder: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A file of a pack that appears as an ``.npy`` of this dtype and shape, once its rows were written into it."""
    with atomic_write(folder / name, "file") as file:
        described = "u8,u8" if dtype == UID_DTYPE else dtype.str
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(described)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def finish_pack(folder: Path, files: list[str], facts: Mapping[str, Any]) -> Pack:
    """Write ``pack.json``, after which the pack is there, and open it."""
    entries = {name: {"bytes": (folder / name).stat().st_size, "xxh3": _checksum(folder / name)} for name in files}
    write_json_atomic(folder / PACK_NAME, {"format": FORMAT, **facts, "files": entries})
    return open_pack(folder)


def _checksum(path: Path) -> str:
    state = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            state.update(chunk)
    return str(state.hexdigest())
