"""Encoded images: in tars, found by the key of an img2dataset row or by the uid of a sample; or each in its file."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pycurate.arrow import arrow_texts, arrow_values, numpy_values
from pycurate.errors import PoolError
from pycurate.io.store import RangeReader, Store
from pycurate.io.tar import TarMember, tar_members

KEY_COLUMN = "key"
STATUS_COLUMN = "status"
IMAGE_BYTES_COLUMN = "image_bytes"
SHA256_COLUMN = "sha256"
COMPUTED_TYPES = {IMAGE_BYTES_COLUMN: pa.int64(), SHA256_COLUMN: pa.string()}
"""Columns that every img2dataset pool has: computed from the tar where the parquet file does not store them."""

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})

IMAGE_SUFFIXES = tuple(f".{made}" for name in sorted(IMAGE_EXTENSIONS) for made in (name, name.upper()))

LARGEST_IMAGE_BYTES = 64 << 20
"""What is larger is no picture that anybody looks at."""
_LARGEST_JSON_BYTES = 1 << 20
_DIGEST_READ_BYTES = 4 << 20
TARS_SEARCHED = 16
"""How many tars of a pool are searched for the images of a few rows."""
_SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class TarCheck:
    """What joining a tar and its parquet by key found: how many keys lack a partner, and the first few."""

    missing: int  # rows of status success without an image in the tar
    first_missing: tuple[str, ...]
    unexpected: int  # images in the tar without a row of status success
    first_unexpected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One fact of each of a tar's images by key: its size in bytes, or the digest of its bytes."""

    keys: pa.Array
    values: pa.Array

    def of(self, keys: pa.Array) -> pa.Array:
        """(n,) the fact for the image of each key; null where the tar has none."""
        import pyarrow.compute as pc  # here: 40 ms, and a run that reads numbers needs none of it

        return self.values.take(pc.index_in(keys.cast(pa.large_string()), value_set=self.keys))


class ImagePlace(NamedTuple):
    """Where the encoded bytes of an image lie: in a tar, or a file of their own."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Images of some rows in order: iterating reads one after the other, and holds none. One file is open at a time."""

    store: Store
    places: Sequence[ImagePlace | None]

    def __iter__(self) -> Iterator[bytes | None]:
        """Encoded bytes; None where there is no image. Of one that is larger than any picture, only the beginning."""
        path: str | None = None
        with ExitStack() as opened:
            for place in self.places:
                if place is None:
                    yield None
                    continue
                if place.path != path:
                    opened.close()
                    path = place.path
                    reader = opened.enter_context(self.store.reader(path))
                yield reader.read(place.offset, min(place.size, LARGEST_IMAGE_BYTES + 1))


def image_facts(store: Store, tar: str, column: str) -> ImageFacts:
    """A column of ``COMPUTED_TYPES`` for every image of a tar.

    ``image_bytes`` (int64) is read from the headers; ``sha256`` (64 hex digits of the encoded bytes) reads all of it.
    """
    members = list(image_members(store, tar).values())
    keys = arrow_texts([member.key for member in members])
    if column == IMAGE_BYTES_COLUMN:
        return ImageFacts(keys, arrow_values(np.array([member.size for member in members], np.int64)))
    with store.reader(tar) as reader:
        digests = [_sha256(reader, member.offset, member.size) for member in members]
    return ImageFacts(keys, arrow_texts(digests).cast(COMPUTED_TYPES[column]))


def file_sha256(store: Store, path: str) -> str:
    """64 hex digits of the sha256 of a file's bytes."""
    with store.reader(path) as reader:
        return _sha256(reader, 0, reader.size)


def _sha256(reader: RangeReader, offset: int, size: int) -> str:
    state = hashlib.sha256()
    for start in range(0, size, _DIGEST_READ_BYTES):
        state.update(reader.read(offset + start, min(_DIGEST_READ_BYTES, size - start)))
    return state.hexdigest()


def images_by_key(store: Store, tar: str, keys: Mapping[int, str]) -> dict[int, bytes]:
    """Encoded image bytes by row, given each row's key; none where the tar cannot be read."""
    try:
        members = image_members(store, tar, frozenset(keys.values()))
    except PoolError:
        return {}
    return _read_images(store, tar, {row: members[key] for row, key in keys.items() if key in members})


def images_by_uid(store: Store, tars: Sequence[str], uids: Mapping[int, str]) -> dict[int, bytes]:
    """Encoded image bytes by row, given each row's lower-case uid; tars are searched in order until all are found."""
    found: dict[int, bytes] = {}
    rows = {uid: row for row, uid in uids.items()}
    for tar in tars:
        if len(found) == len(rows):
            break
        samples: dict[str, dict[str, TarMember]] = {}
        with contextlib.suppress(PoolError):  # the members before the damage are as good as any
            for member in tar_members(store, tar):
                samples.setdefault(member.key, {})[member.extension.lower()] = member
        wanted = {}
        with store.reader(tar) as reader:
            for sample in samples.values():
                image = next((m for extension, m in sample.items() if extension in IMAGE_EXTENSIONS), None)
                facts = sample.get("json")
                if image is None or facts is None or facts.size > _LARGEST_JSON_BYTES:
                    continue
                row = rows.get(uid_in(reader.read(facts.offset, facts.size)))
                if row is not None and row not in found:
                    wanted[row] = image
        found |= _read_images(store, tar, wanted)
    return found


def check_tar(store: Store, tar: str, blocks: Iterable[Mapping[str, pa.Array]], whole: bool) -> TarCheck:
    """Join a tar with the key and status columns of its parquet. Images without a row are counted if ``whole``."""
    import pyarrow.compute as pc

    in_tar = arrow_texts(list(image_members(store, tar)))
    matched = np.zeros(len(in_tar), np.bool_)
    missing, first_missing = 0, []
    for columns in blocks:
        keys = columns[KEY_COLUMN].cast(pa.large_string())
        keys = keys.filter(pc.fill_null(pc.equal(columns[STATUS_COLUMN], "success"), False))
        places = pc.index_in(keys, value_set=in_tar)
        matched[numpy_values(places.drop_null())] = True
        absent = keys.filter(places.is_null())
        missing += len(absent)
        first_missing += absent.slice(0, _SHOWN_KEYS).to_pylist()
    strangers = np.flatnonzero(~matched) if whole else np.empty(0, np.int64)
    return TarCheck(
        missing,
        tuple(first_missing[:_SHOWN_KEYS]),
        len(strangers),
        tuple(in_tar.take(strangers[:_SHOWN_KEYS]).to_pylist()),
    )


def image_members(store: Store, tar: str, keys: frozenset[str] | None = None) -> dict[str, TarMember]:
    """The images of a tar, or those of some keys, by key and in its order; of several with one key the last."""
    return {
        member.key: member
        for member in tar_members(store, tar)
        if member.extension.lower() in IMAGE_EXTENSIONS and (keys is None or member.key in keys)
    }


def _read_images(store: Store, tar: str, members: Mapping[int, TarMember]) -> dict[int, bytes]:
    with store.reader(tar) as reader:
        return {
            row: reader.read(member.offset, member.size)
            for row, member in members.items()
            if member.size <= LARGEST_IMAGE_BYTES
        }


def uid_in(facts: bytes) -> str:
    """The lower-case uid in the json member of a sample; empty where there is none."""
    try:
        return str(json.loads(facts)["uid"]).lower()
    except (ValueError, KeyError, TypeError):
        return ""
