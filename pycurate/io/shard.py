"""A shard: consecutive rows of one set of stored files, read as a stream of aligned blocks."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError, PoolError
from pycurate.io.fingerprint import fingerprint_files, listing_fingerprint
from pycurate.io.image_files import ImageFiles, require_no_embedding
from pycurate.io.image_index import ImageIndex
from pycurate.io.images import (
    COMPUTED_TYPES,
    KEY_COLUMN,
    LARGEST_IMAGE_BYTES,
    SHA256_COLUMN,
    STATUS_COLUMN,
    EncodedImages,
    ImageFacts,
    ImagePlace,
    TarCheck,
    check_tar,
    image_facts,
    image_members,
    images_by_key,
    images_by_uid,
)
from pycurate.io.names import find_column, unknown_name
from pycurate.io.npy import Matrix, MatrixReader, open_matrix
from pycurate.io.parquet import ParquetMatrix, ParquetTable, matrix_values, read_columns
from pycurate.io.readahead import read_ahead
from pycurate.io.store import Store
from pycurate.io.tar import TarMember
from pycurate.io.uids import UID_COLUMN, column_uids, path_uids
from pycurate.types import Block, UidArray

MAX_SHARD_ROWS = 1_048_576
"""A file of more rows becomes several shards."""

BLOCK_ROWS = 65_536
BLOCK_BYTES = 16 << 20
"""A block is cut shorter than ``block_rows`` where its embeddings and columns would be larger than this.

Two such blocks stay in the last-level cache, and malloc returns the same pages; from 32 MiB on it maps new ones: 2.7
instead of 4.4 GB/s.
"""

IMAGE_BLOCK_ROWS = 1024
"""The most rows of a block with images: a third of a second of decoding, after which a run can be stopped."""

Embedding: TypeAlias = Matrix | ParquetMatrix


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive rows of one set of stored files. Frozen and picklable; files are opened while they are read.

    Attributes
    ----------
    name
        Path relative to the pool without extension; ``@0001`` and so on is appended to the second and later shards of
        one large file.
    rows, start
        How many rows, and at which row of the stored files they begin.
    files
        Relative paths of the files that hold the rows.
    """

    name: str
    rows: int
    start: int
    files: tuple[str, ...]
    store: Store
    stem: str
    table: ParquetTable | None
    matrices: Mapping[str, Embedding]
    types: Mapping[str, pa.DataType]  # of every column of the pool; a stored one of another type is cast
    uid_from_column: bool
    tar: str | None = None
    image_tars: tuple[str, ...] = ()  # tars of a datacomp pool, of which any may hold the image of a row
    image_bytes: int = 0  # of those tars, the share of this shard's rows
    image_index: ImageIndex | None = None  # of all of those tars
    image_files: ImageFiles | None = None  # the rows, where they are files

    @property
    def has_images(self) -> bool:
        """Whether ``blocks`` can give images."""
        return self.tar is not None or self.image_index is not None or self.image_files is not None

    def fingerprint(self, verify: bool = False) -> str:
        """A hash that changes when the shard's files do.

        Of each file: relative path, size, time of modification (ETag on object stores) and, except where the files are
        images, the first and last 64 KiB; with ``verify`` every byte instead of time and ends.
        """
        if self.image_files is not None and not verify:  # reading the ends of small files would read all of them
            return listing_fingerprint({path: self.store.info(path) for path in self.files})
        return f"{fingerprint_files(self.store, self.files, verify)}-{self.start}-{self.rows}"

    def bytes_to_read(self, columns: Sequence[str], embeddings: Sequence[str], *, uids: bool = False) -> int:
        """Stored bytes that ``blocks`` reads for these columns and embeddings (for a plan; headers are left out)."""
        total = 0
        if self.table is not None:
            names = self._stored_columns(columns, uids) | self._parquet_embeddings(embeddings)
            stored = sum(self.table.column_bytes[name][0] for name in names if name in self.table.column_bytes)
            total += stored * self.rows // max(self.table.rows, 1)
        for name in embeddings:
            matrix = self._matrix(name)
            if isinstance(matrix, Matrix):
                total += matrix.deflated_bytes or self.rows * matrix.row_bytes
        return total

    def blocks(
        self,
        columns: Sequence[str] = (),
        embeddings: Sequence[str] = (),
        *,
        uids: bool = True,
        images: bool = False,
        block_rows: int = BLOCK_ROWS,
    ) -> Iterator[Block]:
        """The rows in order, as blocks in which columns, embeddings and uids are aligned.

        One streamed read, one block ahead on a thread: memory is that of two blocks, whatever the size of the files.

        Parameters
        ----------
        columns
            Column names or aliases of them (see ``Pool.stored_name``); ``Block.columns`` has them by the name asked.
        embeddings
            Embedding names; (rows, d) arrays in C order of the dtype on disk, bfloat16 as uint16.
        uids
            Whether ``Block.uids`` is filled.
        images
            Whether ``Block.images`` is: the encoded images of the shard's tar by key, or of the index's tars by uid, in
            the order of rows, None where a row has none. They are read one by one while the block is looked at, and not
            held.
        block_rows
            The most rows of a block; fewer where 16 MiB would be passed, and at most 1,024 with images.

        Raises
        ------
        InputError
            An unknown column or embedding; images of a shard that has none.
        PoolError
            A file that is damaged, cut, or changed since the pool was opened; a malformed uid; names shard and row.
        """
        if self.image_files is not None:
            require_no_embedding(embeddings)
            named = {column: self._stored_name(column) for column in columns}
            rows = max(1, min(block_rows, IMAGE_BLOCK_ROWS if images else BLOCK_ROWS))
            return read_ahead(self.image_files.blocks(self.name, named, uids, images, rows))
        matrices = {name: self._matrix(name) for name in embeddings}
        stored = self._stored_columns(columns, uids)
        if images:
            if not self.has_images:
                raise InputError(
                    f"images: shard {self.name} has no tar of images; open the folder that img2dataset wrote, or a "
                    "datacomp pool with its tars and an index of them"
                )
            stored.add(KEY_COLUMN if self.tar is not None else UID_COLUMN)
            block_rows = min(block_rows, IMAGE_BLOCK_ROWS)
        if block_rows < 1:
            raise InputError(f"block_rows: expected at least 1, got {block_rows}")
        block_rows = self._block_rows(stored, matrices, block_rows)
        from_table = sorted(stored | self._parquet_embeddings(embeddings))
        return read_ahead(self._read(tuple(columns), matrices, from_table, uids, images, block_rows))

    def images(self, rows: Sequence[int]) -> dict[int, bytes]:
        """Encoded bytes of the images of some rows of this shard, where tars hold them; rows without are left out.

        In an img2dataset pool images are found by key; in a datacomp pool by uid, with its index in all of its tars,
        and without it in the json members of the first 16. A tar that cannot be read gives none.
        """
        if self.image_files is not None:
            return self.image_files.read(rows)
        if self.image_index is not None:
            return self._indexed_images(rows)
        if self.tar is not None:
            keys = self._values_at(rows, KEY_COLUMN)
            return images_by_key(self.store, self.tar, keys)
        if self.image_tars and UID_COLUMN in self.types:
            wanted = {row: uid.lower() for row, uid in self._values_at(rows, UID_COLUMN).items()}
            return images_by_uid(self.store, self.image_tars, wanted)
        return {}

    def check_tar(self) -> TarCheck | None:
        """Compare the keys of the shard's tar with the rows of status ``success``; None where there is no tar."""
        if self.tar is None:
            return None
        blocks = self.blocks((KEY_COLUMN, STATUS_COLUMN), uids=False)
        with self._naming_the_shard():
            return check_tar(self.store, self.tar, (block.columns for block in blocks), whole=not self._is_split)

    def image_bytes_to_read(self, columns: Sequence[str], images: bool = False) -> int:
        """Bytes of tars that ``blocks`` reads, and does not hold, to compute these columns or for its images."""
        stored = {self._stored_name(column) for column in columns}
        if self.image_files is not None:
            return self.image_files.total_bytes() if images or SHA256_COLUMN in stored else 0
        if self.tar is None and images:
            return self.image_bytes
        if self.tar is None or not (images or SHA256_COLUMN in self._computed(stored)):
            return 0
        return self.store.info(self.tar).size

    def _computed(self, stored: Collection[str]) -> set[str]:
        """Those of the columns that are computed from the images of the tar."""
        if self.tar is None or self.table is None:
            return set()
        return {name for name in stored if name in COMPUTED_TYPES and name not in self.table.schema.names}

    @property
    def _is_split(self) -> bool:
        return self.table is not None and self.table.rows != self.rows

    def _read(
        self,
        columns: Sequence[str],
        matrices: Mapping[str, Embedding],
        stored: Sequence[str],
        uids: bool,
        images: bool,
        block_rows: int,
    ) -> Generator[Block, None, None]:
        with ExitStack() as stack:
            stack.enter_context(self._naming_the_shard())
            facts = {}
            if self.tar is not None:
                facts = {name: image_facts(self.store, self.tar, name) for name in sorted(self._computed(columns))}
            members = image_members(self.store, self.tar) if images and self.tar is not None else {}
            readers = {
                name: stack.enter_context(open_matrix(self.store, matrix, self.start))
                for name, matrix in matrices.items()
                if isinstance(matrix, Matrix)
            }
            for start, arrays in self._table_blocks(stored, block_rows):
                rows = min(block_rows, self.rows - start)
                yield Block(
                    shard=self.name,
                    start=start,
                    rows=rows,
                    uids=self._uids(arrays, start, rows) if uids else None,
                    columns={name: self._column(name, arrays, facts) for name in columns},
                    embeddings={
                        name: self._values(matrix, arrays, readers.get(name), start, rows)
                        for name, matrix in matrices.items()
                    },
                    images=self._images(arrays, members, start) if images else None,
                )

    @contextmanager
    def _naming_the_shard(self) -> Iterator[None]:
        try:
            yield
        except PoolError as error:
            if error.shard is not None:
                raise
            raise PoolError(error.message, shard=self.name, row=error.row) from error

    def _table_blocks(self, names: Sequence[str], block_rows: int) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        starts = range(0, self.rows, block_rows)
        if self.table is None or not names:
            yield from ((start, {}) for start in starts)
            return
        yield from zip(
            starts,
            read_columns(self.store, self.table, names, self.start, self.rows, block_rows),
            strict=True,
        )

    def _uids(self, arrays: Mapping[str, pa.Array], start: int, rows: int) -> UidArray:
        if self.uid_from_column:
            return column_uids(arrays[UID_COLUMN], self.name, start)
        if self.tar is not None:
            keys = arrays[KEY_COLUMN]
            if keys.null_count:
                row = start + int(np.argmax(np.asarray(keys.is_null())))
                raise PoolError("key is null; run img2dataset again for this shard", shard=self.name, row=row)
            return path_uids(self.stem, keys.to_pylist())
        first = self.start + start
        return path_uids(self.stem, range(first, first + rows))

    def _column(self, name: str, arrays: Mapping[str, pa.Array], facts: Mapping[str, ImageFacts]) -> pa.Array:
        stored = self._stored_name(name)
        if stored in facts:
            return facts[stored].of(arrays[KEY_COLUMN])
        array, expected = arrays[stored], self.types[stored]
        if array.type == expected:
            return array
        try:
            return array.cast(expected)
        except pa.ArrowException as error:
            raise PoolError(
                f"column {stored!r} is {array.type} here and {expected} in the whole pool, and a value does not fit "
                f"({error}); write the shards with one schema"
            ) from error

    def _images(self, arrays: Mapping[str, pa.Array], members: Mapping[str, TarMember], start: int) -> EncodedImages:
        if self.image_index is not None:
            uids = column_uids(arrays[UID_COLUMN], self.name, start)
            return EncodedImages(self.store, self.image_index.places(uids))
        assert self.tar is not None
        found = [members.get(key) for key in arrays[KEY_COLUMN].to_pylist()]
        places = [None if m is None else ImagePlace(self.tar, m.offset, m.size) for m in found]
        return EncodedImages(self.store, places)

    def _indexed_images(self, rows: Sequence[int]) -> dict[int, bytes]:
        assert self.image_index is not None
        uids = self._values_at(rows, UID_COLUMN)
        places = self.image_index.places(column_uids(pa.array(list(uids.values()), pa.string()), self.name, 0))
        found = {row: place for row, place in zip(uids, places, strict=True) if place is not None}
        held = {row: place for row, place in found.items() if place.size <= LARGEST_IMAGE_BYTES}
        images = EncodedImages(self.store, list(held.values()))
        return {row: image for row, image in zip(held, images, strict=True) if image is not None}

    def _values(
        self, matrix: Embedding, arrays: Mapping[str, pa.Array], reader: MatrixReader | None, start: int, rows: int
    ) -> NDArray[Any]:
        if reader is not None:
            return reader.read(rows)
        assert isinstance(matrix, ParquetMatrix)
        try:
            return matrix_values(arrays[matrix.column], matrix)
        except PoolError as error:
            raise PoolError(error.message, shard=self.name, row=start + (error.row or 0)) from error

    def _stored_name(self, column: str) -> str:
        stored = find_column(column, self.types)
        if stored is None:
            raise unknown_name("column", column, self.types)
        return stored

    def _stored_columns(self, columns: Sequence[str], uids: bool) -> set[str]:
        """Columns of the parquet file that must be read for these, for the uids, and for what is computed."""
        names = {self._stored_name(column) for column in columns}
        if computed := self._computed(names):
            names = names - computed | {KEY_COLUMN}
        if uids and self.uid_from_column:
            names.add(UID_COLUMN)
        elif uids and self.tar is not None:
            names.add(KEY_COLUMN)
        return names

    def _parquet_embeddings(self, embeddings: Sequence[str]) -> set[str]:
        found = (self._matrix(name) for name in embeddings)
        return {matrix.column for matrix in found if isinstance(matrix, ParquetMatrix)}

    def _matrix(self, name: str) -> Embedding:
        if name not in self.matrices:
            note = ""
            if name in self.types:
                note = f" (the column is {self.types[name]}; expected binary(2d) or a fixed-size list of floats)"
            raise unknown_name("embedding", name, self.matrices, note)
        return self.matrices[name]

    def _block_rows(self, stored: set[str], matrices: Mapping[str, Embedding], block_rows: int) -> int:
        row_bytes = sum(matrix.row_bytes for matrix in matrices.values())
        if self.table is not None:
            plain = sum(self.table.column_bytes[name][1] for name in stored if name in self.table.column_bytes)
            row_bytes += plain // max(self.table.rows, 1)
        return max(1, min(block_rows, BLOCK_BYTES // max(row_bytes, 1)))

    def _values_at(self, rows: Sequence[int], column: str) -> dict[int, str]:
        """Text values of one column at some rows; rows where it is null are left out."""
        found: dict[int, str] = {}
        wanted = np.unique(np.asarray(rows, np.int64))
        for block in self.blocks((column,), uids=False) if len(wanted) else ():
            inside = wanted[(wanted >= block.start) & (wanted < block.start + block.rows)]
            for row in inside.tolist():
                value = block.columns[column][row - block.start].as_py()
                if value is not None:
                    found[row] = value
            if block.start + block.rows > wanted[-1]:
                break
        return found
