"""The items of an evaluation set, wherever they lie: a pool in any layout, a folder of images, or tars of samples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from pycurate.arrow import arrow_texts
from pycurate.errors import InputError, PoolError
from pycurate.io.images import IMAGE_EXTENSIONS, KEY_COLUMN, SHA256_COLUMN
from pycurate.io.layouts import LayoutName
from pycurate.io.names import find_column, unknown_name
from pycurate.io.pool import EmbeddingInfo, Pool, open_pool
from pycurate.io.shard import Shard
from pycurate.io.store import Store
from pycurate.io.tar import TarMember, tar_members
from pycurate.kernels.uid import format_hex
from pycurate.types import UidArray

_IMAGES_HELD = 256  # encoded images in memory at a time


@dataclass(frozen=True, slots=True)
class Items:
    """Some items, one after the other; everything in it has as many rows."""

    ids: Sequence[str]
    captions: pa.Array | None
    uids: UidArray | None  # of a column; None where the set has none
    sha256: pa.Array | None
    embeddings: Mapping[str, NDArray[Any]]
    images: Iterable[bytes | None] | None  # encoded, read as they are taken; None where the set has no images


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What an evaluation set has, and how to read it.

    Attributes
    ----------
    root
        Where it lies.
    embeddings
        Name in the pack -> (stored name, what is known of it).
    pool
        The pool that it is; None for images without a table.
    """

    root: str
    embeddings: Mapping[str, tuple[str, EmbeddingInfo]]
    pool: Pool | None
    caption: str | None
    id_column: str | None

    def items(self) -> Iterator[Items]:
        """All items in order, some at a time."""
        yield from _image_items(self.root) if self.pool is None else self._rows(self.pool)

    def _rows(self, pool: Pool) -> Iterator[Items]:
        has_uids = pool.uid_source == "column"
        columns = [self.caption, self.id_column, SHA256_COLUMN if SHA256_COLUMN in pool.columns else None]
        if self.id_column is None and not has_uids and pool.layout == "img2dataset":
            columns.append(KEY_COLUMN)
        asked = tuple(dict.fromkeys(name for name in columns if name is not None))
        stored = tuple(dict.fromkeys(name for name, _ in self.embeddings.values()))
        for shard in pool.shards:
            for block in shard.blocks(asked, stored):
                first = shard.start + block.start
                named = self.id_column or (KEY_COLUMN if KEY_COLUMN in asked else None)
                if named is not None:
                    ids = [str(value) for value in block.columns[named].to_pylist()]
                elif has_uids:
                    assert block.uids is not None
                    ids = [text.decode() for text in format_hex(block.uids)]
                else:
                    ids = [f"{shard.stem}#{row}" for row in range(first, first + block.rows)]
                yield Items(
                    ids,
                    None if self.caption is None else block.columns[self.caption],
                    block.uids if has_uids else None,
                    block.columns.get(SHA256_COLUMN),
                    {name: block.embeddings[stored] for name, (stored, _) in self.embeddings.items()},
                    images_in_order(shard, block.start, block.rows) if shard.has_images else None,
                )


def open_evaluation_set(
    path: Pool | str | os.PathLike[str],
    *,
    embeddings: Mapping[str, str] | Sequence[str] | None = None,
    caption: str | None = None,
    id_column: str | None = None,
    layout: LayoutName | None = None,
) -> EvaluationSet:
    """Find out what an evaluation set has.

    Parameters
    ----------
    path
        A pool, its path or URL; a local folder of images (with a ``.txt`` of the same stem where it has captions); a
        folder of tars or one tar, as webdataset writes them.
    embeddings
        Names, or name in the pack -> stored name; default all.
    caption
        The column of captions; default ``caption`` or an alias of it, where there is one.
    id_column
        The column that items are called by; default the uid, the key or the place.

    Raises
    ------
    InputError
        A column or embedding that is not there, or nothing to compare with.
    PoolError
        The pool is wrong, or there is neither a pool nor an image.
    """
    if not isinstance(path, Pool) and not _is_table(path):
        if embeddings or caption or id_column:
            raise InputError(
                f"evalset: {os.fspath(path)} has images and no table, so there is no column or embedding to name; "
                "leave them out"
            )
        return EvaluationSet(Store.at(path).root, {}, None, None, None)
    pool = path if isinstance(path, Pool) else open_pool(path, layout=layout)
    chosen = {name: name for name in pool.embeddings} if embeddings is None else embeddings
    named = dict(chosen) if isinstance(chosen, Mapping) else {name: name for name in chosen}
    for stored in named.values():
        if stored not in pool.embeddings:
            raise unknown_name("embedding", stored, pool.embeddings)
    if id_column is not None:
        pool.stored_name(id_column)
    found = find_column("caption", pool.columns) if caption is None else pool.stored_name(caption)
    with_infos = {name: (stored, pool.embeddings[stored]) for name, stored in named.items()}
    if not with_infos and found is None and SHA256_COLUMN not in pool.columns and pool.uid_source != "column":
        raise InputError(
            f"evalset: {pool.root} has no embedding, caption, sha256 or uid, so nothing could be compared with it"
        )
    return EvaluationSet(pool.root, with_infos, pool, found, id_column)


def _is_table(path: str | os.PathLike[str]) -> bool:
    """False for images or tars without any table or matrix beside them."""
    store = Store.at(path)
    if not store.local or not store.exists():
        return True  # a URL is a pool; opening what is not there says so
    if store.is_file():
        return not store.root.endswith(".tar")
    files = store.files()
    if any(not name.endswith(".tar") for name in files):
        return True
    return not files and not any(_image_files(Path(store.root)))


def _image_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and path.is_file() and not path.name.startswith("."):
            yield path


def images_in_order(shard: Shard, start: int, rows: int) -> Iterator[bytes | None]:
    """Encoded images of some rows of a shard that has images, a few at a time; None where a row has none."""
    for begin in range(start, start + rows, _IMAGES_HELD):
        wanted = range(begin, min(begin + _IMAGES_HELD, start + rows))
        found = shard.images(wanted)
        yield from (found.get(row) for row in wanted)


def _image_items(root: str) -> Iterator[Items]:
    """Items of images without a table: their id, the hash of their bytes, and their caption where there is one."""
    store = Store.at(root)
    samples = _tar_samples(store) if store.is_file() or store.files() else _folder_samples(Path(root))
    while part := list(islice(samples, _IMAGES_HELD)):
        ids, images, captions = zip(*part, strict=True)
        digests = arrow_texts([hashlib.sha256(image).hexdigest() for image in images])
        yield Items(ids, arrow_texts(captions), None, digests, {}, images)


def _folder_samples(folder: Path) -> Iterator[tuple[str, bytes, str | None]]:
    for path in sorted(_image_files(folder)):
        text = path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8", errors="replace").strip() if text.exists() else None
        yield path.relative_to(folder).as_posix(), path.read_bytes(), caption


def _tar_samples(store: Store) -> Iterator[tuple[str, bytes, str | None]]:
    if store.is_file():
        tars, store = [Path(store.root).name], store.folder()
    else:
        tars = sorted(store.files())
    found = 0
    for tar in tars:
        samples: dict[str, dict[str, TarMember]] = {}
        for member in tar_members(store, tar):
            samples.setdefault(member.key, {})[member.extension.lower()] = member
        with store.reader(tar) as reader:
            for key, members in samples.items():
                image = next((m for extension, m in members.items() if extension in IMAGE_EXTENSIONS), None)
                if image is None:
                    continue
                found += 1
                text = members.get("txt")
                caption = reader.read(text.offset, text.size).decode(errors="replace").strip() if text else None
                yield key, reader.read(image.offset, image.size), caption
    if not found:
        raise PoolError(f"evalset: the tars of {store.root} have no image; name a pool, images or tars with images")
