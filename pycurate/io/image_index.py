"""Where the image of each uid lies in the tars beside a datacomp pool: sorted arrays in files, memory-mapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycurate.io.images import IMAGE_EXTENSIONS, ImagePlace, uid_in
from pycurate.io.store import Store
from pycurate.io.tar import TarMember, tar_members
from pycurate.kernels.uid import find
from pycurate.types import UID_DTYPE, UidArray

UIDS_NAME, PLACES_NAME = "uids.bin", "places.bin"

_LARGEST_JSON_BYTES = 1 << 20
_UID = re.compile("[0-9a-f]{32}")
_UID_KEY = re.compile(r"(?:.*/)?([0-9a-fA-F]{32})(?:-\d+)?")


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """The images of some tars by uid. Small and picklable: files are mapped where they are asked.

    Attributes
    ----------
    folder
        Holds ``uids.bin``, (rows,) uids in order, repeats included, and ``places.bin``, (rows, 3) uint64: the number of
        the tar, the offset of the image in it and its bytes; of one uid the first tar and offset first.
    tars
        Their names, by number.
    rows
        Images.
    """

    folder: str
    tars: tuple[str, ...]
    rows: int

    def places(self, uids: UidArray) -> list[ImagePlace | None]:
        """Where the image of each of (n,) uids lies; None where no tar has one."""
        if not self.rows:
            return [None] * len(uids)
        known = np.memmap(Path(self.folder) / UIDS_NAME, UID_DTYPE, "r", shape=(self.rows,))
        places = np.memmap(Path(self.folder) / PLACES_NAME, np.uint64, "r", shape=(self.rows, 3))
        found = find(np.asarray(known), uids)
        taken = np.asarray(places[np.maximum(found, 0)]).tolist()
        return [
            ImagePlace(self.tars[tar], offset, size) if at >= 0 else None
            for at, (tar, offset, size) in zip(found.tolist(), taken, strict=True)
        ]


def uid_records(store: Store, tar: str, number: int) -> NDArray[np.uint64]:
    """(m, 5) uint64 of a tar's images, those without a uid left out: both words of the uid, ``number``, offset, bytes.

    A sample's uid is its key, where that is 32 hex digits (and what a resharder appends to copies), or else the ``uid``
    of its json member.

    Raises
    ------
    PoolError
        The tar cannot be read, or is truncated.
    """
    found = [(uid, image.offset, image.size) for uid, image in _images_with_uids(store, tar)]
    records = np.empty((len(found), 5), np.uint64)
    for row, (uid, offset, size) in enumerate(found):
        records[row] = uid >> 64, uid & (2**64 - 1), number, offset, size
    return records


def _images_with_uids(store: Store, tar: str) -> Iterator[tuple[int, TarMember]]:
    samples: dict[str, dict[str, TarMember]] = {}
    for member in tar_members(store, tar):
        samples.setdefault(member.key, {})[member.extension.lower()] = member
    with store.reader(tar) as reader:
        for key, sample in samples.items():
            image = next((m for extension, m in sample.items() if extension in IMAGE_EXTENSIONS), None)
            if image is None:
                continue
            facts = sample.get("json")
            if named := _UID_KEY.fullmatch(key):
                yield int(named[1], 16), image
            elif facts is not None and facts.size <= _LARGEST_JSON_BYTES:
                uid = uid_in(reader.read(facts.offset, facts.size))
                if _UID.fullmatch(uid):
                    yield int(uid, 16), image
