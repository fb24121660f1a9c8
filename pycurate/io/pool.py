"""A pool: a folder of image-text rows in one of the public layouts, taken in place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

from pycurate.errors import InputError, PoolError
from pycurate.io.fingerprint import listing_fingerprint
from pycurate.io.image_files import FILE_TYPES, ImageFiles
from pycurate.io.images import COMPUTED_TYPES, IMAGE_SUFFIXES, KEY_COLUMN, STATUS_COLUMN, TARS_SEARCHED
from pycurate.io.layouts import LayoutName, Part, detect_layout, parts_of
from pycurate.io.names import find_column, unknown_name
from pycurate.io.npy import Matrix, read_npy_matrix
from pycurate.io.npz import read_npz_matrices
from pycurate.io.parquet import ParquetTable, embedding_columns, read_footer
from pycurate.io.shard import MAX_SHARD_ROWS, Embedding, Shard
from pycurate.io.store import FileInfo, Store
from pycurate.io.uids import UID_COLUMN, is_text

__all__ = ["MAX_SHARD_ROWS", "EmbeddingInfo", "Pool", "Shard", "UidSource", "open_pool"]

UidSource = Literal["column", "path"]

_OPENING_THREADS = 16


@dataclass(frozen=True, slots=True)
class EmbeddingInfo:
    """Dimension and dtype (float16, float32, int8 or bfloat16) of one embedding, the same in every shard."""

    dimension: int
    dtype: str


@dataclass(frozen=True)
class Pool:
    """The shards of a pool and what each row has. Frozen and picklable; holds no data and no open file.

    Attributes
    ----------
    root
        Local path or URL.
    layout
        datacomp, img2dataset, clip_retrieval, plain or images.
    shards
        Sorted by name; their rows are known from parquet footers and npy headers.
    columns
        Stored column name -> Arrow type, for the columns that every shard has. Where shards differ in a type it is the
        one that holds both (int64 and double: double), and blocks are cast.
    partial_columns
        Columns that only some shards have; they cannot be asked for.
    embeddings, partial_embeddings
        The same for embedding matrices.
    uid_source
        ``column``: the text column ``uid``; ``path``: made from the row's place.
    damaged
        What is wrong with the shards that could not be opened; empty unless opened with ``strict=False``.
    image_tars
        The tars beside a datacomp pool with a uid column, whose samples are found by uid; empty for other pools.
    images_fingerprint
        A hash that changes when one of them does, by name, size and time of modification (or ETag).
    """

    root: str
    layout: LayoutName
    shards: tuple[Shard, ...]
    columns: Mapping[str, str]
    embeddings: Mapping[str, EmbeddingInfo]
    uid_source: UidSource
    partial_columns: tuple[str, ...] = ()
    partial_embeddings: tuple[str, ...] = ()
    damaged: tuple[PoolError, ...] = ()
    image_tars: tuple[str, ...] = ()
    images_fingerprint: str = ""
    _by_name: dict[str, Shard] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {shard.name: shard for shard in self.shards})

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def has_images(self) -> bool:
        """Whether a step can look at images: of the shards' own tars, or of those beside a datacomp pool."""
        return bool(self.image_tars) or any(shard.has_images for shard in self.shards)

    def shard(self, name: str) -> Shard:
        """The shard of that name; InputError when there is none."""
        if name not in self._by_name:
            raise InputError(f"shard: the pool has no shard {name!r}; it has {len(self.shards)}, such as {self._first}")
        return self._by_name[name]

    def stored_name(self, column: str) -> str:
        """The stored name of a column, given that name or a common one (``caption`` is ``text`` in a datacomp pool).

        Raises
        ------
        InputError
            The pool has no such column, or not in every shard; names what it has and the likely one.
        """
        stored = find_column(column, self.columns)
        if stored is None:
            partial = find_column(column, self.partial_columns)
            raise unknown_name("column", column, self.columns, " in every shard, only in some" if partial else "")
        return stored

    @property
    def _first(self) -> str:
        return repr(self.shards[0].name)


def open_pool(
    path: str | os.PathLike[str],
    layout: LayoutName | None = None,
    *,
    bfloat16: Collection[str] = (),
    uid_source: UidSource | None = None,
    strict: bool = True,
) -> Pool:
    """Open a pool in place: list its files, recognise the layout, read footers and headers, compare row counts.

    No column and no matrix is read. Layouts are tried in this order: clip_retrieval (``img_emb/img_emb_0.npy``),
    datacomp (``<32 hex>.parquet``, or a parquet beside an npz of the same stem), img2dataset (``00000.tar`` beside
    ``00000.parquet``), plain (any ``.npy`` or ``.parquet``); a folder without any file of these is a pool of its image
    files (images). Other files are ignored, as are names that begin with a
    dot or an underscore and the output folders of runs.

    Parameters
    ----------
    path
        A local folder, a single .npy or .parquet file, or an fsspec URL of one.
    layout
        The layout, where it should not be recognised.
    bfloat16
        Names of the embeddings whose uint16 values are bfloat16.
    uid_source
        ``column`` (a text column ``uid`` of 32 hex digits) or ``path``; by default ``column`` where there is one.
    strict
        False: shards that cannot be opened are left out and described in ``Pool.damaged``, for a preflight.

    Raises
    ------
    PoolError
        Nothing there, no layout fits, no rows; with ``strict``, the first thing wrong with any shard: a missing or
        truncated file, different row counts, an embedding of another dtype or dimension.
    """
    store = Store.at(path)
    if not store.exists():
        raise PoolError(f"pool: {store.root!r} does not exist")
    listed: Mapping[str, FileInfo] = {}
    files: Collection[str]
    if store.is_file():
        files = {store.root.replace(os.sep, "/").rsplit("/", 1)[-1]}
        store = store.folder()
    else:
        listed = store.files()
        if layout == "images" or (layout is None and not listed):
            listed = store.files(IMAGE_SUFFIXES)
        files = listed.keys()
    layout = layout or detect_layout(files, store.root)
    parts = parts_of(layout, files, store.root)
    inspected, damaged = _inspect_all(store, parts, frozenset(bfloat16))
    inspected, mixed = _of_one_kind(inspected)
    inspected, without_uid, uid_source = _uids_of(inspected, uid_source)
    damaged = [*damaged, *mixed, *without_uid]
    if strict and damaged:
        first = min(damaged, key=lambda error: error.shard or "")
        others = f" ({len(damaged) - 1} other shards are wrong too; see `pycurate doctor`)" if damaged[1:] else ""
        raise PoolError(first.message + others, shard=first.shard, row=first.row)
    tars = {path: info for path, info in listed.items() if path.endswith(".tar")} if layout == "datacomp" else {}
    pool = _assembled(store, layout, inspected, uid_source, damaged, tars)
    unknown = sorted(set(bfloat16) - set(pool.embeddings) - set(pool.partial_embeddings))
    if unknown and not damaged:
        raise unknown_name("embedding", unknown[0], pool.embeddings)
    if not pool.rows and not damaged:
        raise PoolError(f"pool: {store.root!r} has no rows: every one of its {len(pool.shards)} shards is empty")
    return pool


@dataclass(frozen=True, slots=True)
class _Inspected:
    """A part whose footers and headers were read and agree."""

    part: Part
    rows: int
    table: ParquetTable | None
    matrices: Mapping[str, Embedding]

    @property
    def files(self) -> tuple[str, ...]:
        part = self.part
        found = {part.table, part.npz, part.tar, *part.npy.values(), *part.images}
        return tuple(sorted(path for path in found if path is not None))


def _inspect_all(
    store: Store, parts: Sequence[Part], bfloat16: frozenset[str]
) -> tuple[list[_Inspected], list[PoolError]]:
    def inspect(part: Part) -> _Inspected | PoolError:
        try:
            return _inspect(store, part, bfloat16)
        except PoolError as error:
            return PoolError(error.message, shard=part.name, row=error.row)

    with ThreadPoolExecutor(_OPENING_THREADS, thread_name_prefix="open-pool") as threads:
        found = list(threads.map(inspect, parts))
    return [f for f in found if isinstance(f, _Inspected)], [f for f in found if isinstance(f, PoolError)]


def _inspect(store: Store, part: Part, bfloat16: frozenset[str]) -> _Inspected:
    if part.problem is not None:
        raise PoolError(part.problem)
    table = read_footer(store, part.table) if part.table is not None else None
    matrices: dict[str, Embedding] = {}
    if part.npz is not None:
        matrices |= read_npz_matrices(store, part.npz, bfloat16)
    for name, path in part.npy.items():
        matrices[name] = read_npy_matrix(store, path, name in bfloat16)
    counts = {f"{m.path} ({name})" if part.npz else m.path: m.rows for name, m in matrices.items()}
    if table is not None:
        counts = {table.path: table.rows} | counts
        matrices = {**embedding_columns(table, bfloat16), **matrices}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{place} has {rows} rows" for place, rows in counts.items())
        raise PoolError(
            f"row counts differ: {listed}; rows are joined by position, so the files do not belong together: copy or "
            "download this shard again"
        )
    if part.tar is not None and table is not None:
        for column in (KEY_COLUMN, STATUS_COLUMN):
            if column not in table.column_bytes:
                raise PoolError(f"{table.path}: has no column {column!r}, by which img2dataset joins rows and images")
    return _Inspected(part, next(iter(counts.values()), len(part.images)), table, matrices)


def _of_one_kind(inspected: Sequence[_Inspected]) -> tuple[list[_Inspected], list[PoolError]]:
    """Set apart the parts whose embeddings or column types do not go with the others'."""
    usual: dict[str, tuple[int, str]] = {}
    for name in _names(i.matrices for i in inspected):
        kinds = Counter((i.matrices[name].dimension, i.matrices[name].dtype) for i in inspected if name in i.matrices)
        usual[name] = kinds.most_common(1)[0][0]
    good: list[_Inspected] = []
    wrong: list[PoolError] = []
    for item in inspected:
        for name, matrix in item.matrices.items():
            if (matrix.dimension, matrix.dtype) != usual[name]:
                wrong.append(_unlike(item.part.name, name, matrix, usual[name]))
                break
        else:
            good.append(item)
    return good, wrong


def _unlike(shard: str, name: str, matrix: Embedding, usual: tuple[int, str]) -> PoolError:
    return PoolError(
        f"embedding {name!r} has {matrix.dimension} dimensions of {matrix.dtype}, in other shards {usual[0]} of "
        f"{usual[1]}; compute or convert this shard's embeddings as the others'",
        shard=shard,
    )


def _uids_of(
    inspected: Sequence[_Inspected], uid_source: UidSource | None
) -> tuple[list[_Inspected], list[PoolError], UidSource]:
    """Where uids come from, and the parts that lack the column that others have."""
    if uid_source not in (None, "column", "path"):
        raise InputError(f"uid_source: expected 'column' or 'path', got {uid_source!r}")
    having = [i for i in inspected if i.table is not None and UID_COLUMN in i.table.column_bytes]
    having = [i for i in having if i.table is not None and is_text(i.table.schema.field(UID_COLUMN).type)]
    if uid_source is None:
        uid_source = "column" if having else "path"
    if uid_source == "path":
        return list(inspected), [], "path"
    wrong = [
        PoolError("has no text column 'uid', as other shards have; open the pool with uid_source='path'", shard=name)
        for name in [i.part.name for i in inspected if i not in having]
    ]
    return having, wrong, "column"


def _assembled(
    store: Store,
    layout: LayoutName,
    inspected: Sequence[_Inspected],
    uid_source: UidSource,
    damaged: Sequence[PoolError],
    tars: Mapping[str, FileInfo],
) -> Pool:
    schemas = [i.table.schema for i in inspected if i.table is not None]
    types = _common_types(schemas) if len(schemas) == len(inspected) else {}
    if layout == "images":
        types = dict(FILE_TYPES)
    if layout == "img2dataset" and types:
        types |= {name: kind for name, kind in COMPUTED_TYPES.items() if name not in types}
    embeddings = _common_names([i.matrices for i in inspected])
    infos = {
        name: EmbeddingInfo(inspected[0].matrices[name].dimension, inspected[0].matrices[name].dtype)
        for name in embeddings
    }
    by_uid = tuple(sorted(tars)) if uid_source == "column" else ()
    tar_bytes, rows = sum(info.size for info in tars.values()), sum(i.rows for i in inspected)
    shards = [s for i in inspected for s in _shards_of(store, i, types, uid_source == "column", tars)]
    if by_uid:
        shards = [replace(s, image_bytes=tar_bytes * s.rows // max(1, rows)) for s in shards]
    return Pool(
        root=store.root,
        layout=layout,
        shards=tuple(sorted(shards, key=lambda shard: shard.name)),
        columns={name: str(kind) for name, kind in types.items()},
        embeddings=infos,
        uid_source=uid_source,
        partial_columns=tuple(sorted({name for s in schemas for name in s.names} - set(types))),
        partial_embeddings=tuple(sorted(_names(i.matrices for i in inspected) - set(embeddings))),
        damaged=tuple(sorted(damaged, key=lambda error: error.shard or "")),
        image_tars=by_uid,
        images_fingerprint=listing_fingerprint(tars) if by_uid else "",
    )


def _shards_of(
    store: Store, item: _Inspected, types: Mapping[str, pa.DataType], uid_from_column: bool, tars: Collection[str]
) -> Iterator[Shard]:
    inflated = any(isinstance(matrix, Matrix) and matrix.deflated_bytes for matrix in item.matrices.values())
    step = max(item.rows, 1) if inflated else MAX_SHARD_ROWS
    for index, start in enumerate(range(0, max(item.rows, 1), step)):
        yield Shard(
            name=item.part.name + (f"@{index:04d}" if index else ""),
            rows=min(step, item.rows - start),
            start=start,
            files=item.files,
            store=store,
            stem=item.part.name,
            table=item.table,
            matrices=item.matrices,
            types=types,
            uid_from_column=uid_from_column,
            tar=item.part.tar,
            image_tars=tuple(sorted(tars)[:TARS_SEARCHED]),
            image_files=ImageFiles(store, item.part.images) if item.part.images else None,
        )


def _common_types(schemas: Sequence[pa.Schema]) -> dict[str, pa.DataType]:
    """Types of the columns that every schema has; where they differ, the type that holds all of them."""
    distinct = list(dict.fromkeys(schemas))
    types = {}
    for name in _common_names([schema.names for schema in distinct]):
        kinds = list(dict.fromkeys(_plain_type(schema.field(name).type) for schema in distinct))
        if len(kinds) > 1:
            one_field = [pa.schema([pa.field(name, kind)]) for kind in kinds]
            try:
                kinds = [pa.unify_schemas(one_field, promote_options="permissive").field(name).type]
            except pa.ArrowException as error:
                raise PoolError(
                    f"column {name!r} has types that do not go together in different shards: "
                    f"{', '.join(map(str, kinds))}; write the shards with one schema"
                ) from error
        types[name] = kinds[0]
    return types


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that blocks have: no dictionaries and views, which many functions of Arrow do not take."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _common_names(groups: Sequence[Iterable[str]]) -> list[str]:
    """Names that every group has, in the order of the first."""
    if not groups:
        return []
    others = [set(group) for group in groups]
    return [name for name in groups[0] if all(name in names for names in others)]


def _names(groups: Iterable[Iterable[str]]) -> set[str]:
    return {name for group in groups for name in group}
