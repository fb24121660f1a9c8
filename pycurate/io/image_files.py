"""Rows that are image files: their columns, uids and bytes."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pycurate.arrow import arrow_texts, arrow_values
from pycurate.errors import InputError
from pycurate.io.images import (
    COMPUTED_TYPES,
    IMAGE_BYTES_COLUMN,
    KEY_COLUMN,
    LARGEST_IMAGE_BYTES,
    EncodedImages,
    ImagePlace,
    file_sha256,
)
from pycurate.io.layouts.part import split_path
from pycurate.io.store import Store
from pycurate.io.uids import path_uids
from pycurate.types import Block

FILE_TYPES = {KEY_COLUMN: pa.string(), **COMPUTED_TYPES}
"""The columns of such a pool: ``key``, the path below the pool's folder; the bytes of the file and their digest."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files of one folder, a row each."""

    store: Store
    paths: tuple[str, ...]

    def blocks(
        self, shard: str, columns: Mapping[str, str], uids: bool, images: bool, block_rows: int
    ) -> Generator[Block, None, None]:
        """The rows in order; ``columns``: name asked -> name in ``FILE_TYPES``. A uid is a hash of folder and name."""
        for start in range(0, len(self.paths), block_rows):
            paths = self.paths[start : start + block_rows]
            named = [path.rsplit("/", 1)[-1] for path in paths]
            yield Block(
                shard=shard,
                start=start,
                rows=len(paths),
                uids=path_uids(split_path(self.paths[0])[0], named) if uids else None,
                columns={name: self._column(stored, paths) for name, stored in columns.items()},
                images=self._images(paths) if images else None,
            )

    def read(self, rows: Sequence[int]) -> dict[int, bytes]:
        """Encoded bytes by row; those that are larger than any picture are left out."""
        images = self._images([self.paths[row] for row in rows])
        found = zip(rows, images, strict=True)
        return {row: image for row, image in found if image is not None and len(image) <= LARGEST_IMAGE_BYTES}

    def total_bytes(self) -> int:
        return sum(self.store.info(path).size for path in self.paths)

    def _images(self, paths: Sequence[str]) -> EncodedImages:
        return EncodedImages(self.store, [ImagePlace(path, 0, LARGEST_IMAGE_BYTES + 1) for path in paths])

    def _column(self, stored: str, paths: Sequence[str]) -> pa.Array:
        if stored == KEY_COLUMN:
            return pa.array(paths, FILE_TYPES[stored])
        if stored == IMAGE_BYTES_COLUMN:
            return arrow_values(np.array([self.store.info(path).size for path in paths], np.int64))
        return arrow_texts([file_sha256(self.store, path) for path in paths]).cast(FILE_TYPES[stored])


def require_no_embedding(embeddings: Sequence[str]) -> None:
    """InputError where one is asked for."""
    if embeddings:
        raise InputError(f"embedding {embeddings[0]!r}: a pool of image files has none; embed the images first")
