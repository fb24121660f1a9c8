"""The files of a search for duplicates at one threshold: kept uids, removed rows with their partners, groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import pycurate
from pycurate.api.dedup_store import DuplicateStore
from pycurate.arrow import arrow_values
from pycurate.errors import WorkspaceError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.subset import Subset
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.rowwise import pair_similarity
from pycurate.kernels.uid import format_hex
from pycurate.ops.dedup.groups import group_members, keepers
from pycurate.ops.dedup.removal import Duplicates, reaches
from pycurate.pipeline.ledger import hex_strings
from pycurate.types import UidArray

SUBSET, REMOVED, GROUPS, MANIFEST = "subset.npy", "removed.parquet", "groups.parquet", "manifest.json"
_GROUP_ROWS = 1 << 17

REMOVED_SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),  # 32 hex digits, sorted
        pa.field("partner_uid", pa.string(), nullable=False),  # the row in whose favour it is removed
        pa.field("similarity", pa.float32(), nullable=False),  # to that row; component: of the weakest link to it
        pa.field("rule", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
    ]
)
GROUPS_SCHEMA = pa.schema(
    [
        pa.field("group", pa.int64(), nullable=False),  # from 0, by the uid of the kept row
        pa.field("uid", pa.string(), nullable=False),
        pa.field("keeper_uid", pa.string(), nullable=False),  # the kept row, the first of its group
        pa.field("partner_uid", pa.string()),  # as in removed.parquet, and so on; null for the kept row
        pa.field("similarity", pa.float32()),
        pa.field("keeper_similarity", pa.float32()),  # to the kept row; null where the embeddings are gone
        pa.field("rule", pa.dictionary(pa.int16(), pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class Chain:
    """The removed row that is least like the row that is kept in its place."""

    uid: str
    keeper_uid: str
    similarity: float
    link: float  # the weakest link between them, or the similarity to the row it was removed for
    rows: int  # removed rows, in all groups, that are below the threshold from the row that is kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the files of a threshold hold, in numbers."""

    kept: int
    removed: int
    groups: int
    largest_group: int
    chain: Chain | None
    """None where every removed row reaches the threshold from the row that is kept."""


def write_outputs(store: DuplicateStore, threshold: float, rule: str, out: Path, threads: int | None) -> Outcome:
    """Write subset.npy, removed.parquet and groups.parquet for one threshold; each appears whole."""
    found = store.at(threshold)
    by_uid = np.lexsort((np.arange(len(store)), store.uids["f1"], store.uids["f0"]))
    Subset(np.ascontiguousarray(store.uids[by_uid[found.kept[by_uid]]])).save(out / SUBSET)
    _write_removed(store.uids, found, by_uid, threshold, rule, out / REMOVED)
    keeper = keepers(found.duplicate_of)
    rows, groups = group_members(keeper, by_uid)
    near = _similarities_to_keepers(store, found, keeper, rows, threads)
    _write_groups(store.uids, found, keeper, (rows, groups), near, rule, out / GROUPS)
    removed = int(np.count_nonzero(~found.kept))
    sizes = np.bincount(groups)
    return Outcome(
        kept=len(store) - removed,
        removed=removed,
        groups=len(sizes),
        largest_group=int(sizes.max(initial=0)),
        chain=_worst_chain(store, found, keeper, rows, near, threshold),
    )


def write_manifest(store: DuplicateStore, outcome: Outcome, threshold: float, out: Path) -> dict[str, Any]:
    """Write and return manifest.json: the run's facts, without arrays and times, so that equal runs are equal files."""
    left_out = ("arrays", "matrices", "format")
    chain = outcome.chain
    manifest = {
        "version": pycurate.__version__,
        **{name: value for name, value in store.facts.items() if name not in left_out},
        "threshold": threshold,
        "kept": outcome.kept,
        "removed": outcome.removed,
        "groups": outcome.groups,
        "largest_group": outcome.largest_group,
        "chain": None if chain is None else {name: getattr(chain, name) for name in Chain.__slots__},
    }
    write_json_atomic(out / MANIFEST, manifest)
    return manifest


def hex_of(uids: UidArray, row: int) -> str:
    """32 hex digits."""
    text: bytes = format_hex(np.ascontiguousarray(uids[row : row + 1]))[0]
    return text.decode()


def _write_removed(uids: UidArray, found: Duplicates, by_uid: Indices, threshold: float, rule: str, path: Path) -> None:
    rows = by_uid[~found.kept[by_uid]]
    with atomic_write(path, "file") as file, pq.ParquetWriter(file, REMOVED_SCHEMA, compression="NONE") as writer:
        for begin in range(0, max(len(rows), 1), _GROUP_ROWS):
            part = rows[begin : begin + _GROUP_ROWS]
            columns = [
                hex_strings(np.ascontiguousarray(uids[part])),
                hex_strings(np.ascontiguousarray(uids[found.duplicate_of[part]])),
                arrow_values(found.similarity[part]),
                _repeated([rule], np.zeros(len(part), np.int16)),
                arrow_values(np.full(len(part), threshold)),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=REMOVED_SCHEMA))


def _write_groups(
    uids: UidArray,
    found: Duplicates,
    keeper: Indices,
    members: tuple[Indices, Indices],
    near: Floats,
    rule: str,
    path: Path,
) -> None:
    rows, groups = members
    with atomic_write(path, "file") as file, pq.ParquetWriter(file, GROUPS_SCHEMA, compression="NONE") as writer:
        for begin in range(0, max(len(rows), 1), _GROUP_ROWS):
            span = slice(begin, begin + _GROUP_ROWS)
            part, removed = rows[span], ~found.kept[rows[span]]
            partners = hex_strings(np.ascontiguousarray(uids[np.where(removed, found.duplicate_of[part], part)]))
            columns = [
                arrow_values(groups[span]),
                hex_strings(np.ascontiguousarray(uids[part])),
                hex_strings(np.ascontiguousarray(uids[keeper[part]])),
                _masked(partners, removed),
                arrow_values(found.similarity[part], removed),
                arrow_values(near[span], ~np.isnan(near[span])),
                _repeated([rule], np.zeros(len(part), np.int16), removed),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=GROUPS_SCHEMA))


def _similarities_to_keepers(
    store: DuplicateStore, found: Duplicates, keeper: Indices, rows: Indices, threads: int | None
) -> Floats:
    """(m,) of each row with the row that is kept; NaN for that row itself, and where embeddings cannot be read."""
    near = np.full(len(rows), np.nan, np.float32)
    removed = ~found.kept[rows]
    direct = removed & (found.duplicate_of[rows] == keeper[rows]) & (store.removal != "component")
    near[direct] = found.similarity[rows[direct]]
    asked = np.flatnonzero(removed & ~direct)
    if not len(asked):
        return near
    try:
        source = store.source()
    except WorkspaceError:
        return near
    dtype = source.element == "bfloat16"
    asked = asked[np.argsort(rows[asked], kind="stable")]
    for begin in range(0, len(asked), source.piece_rows):
        part = asked[begin : begin + source.piece_rows]
        targets, place = np.unique(keeper[rows[part]], return_inverse=True)
        a, b = source.take(rows[part]), source.take(targets)[place]
        near[part] = pair_similarity(a, b, threads=threads, dtype="bfloat16" if dtype else None)
    return near


def _worst_chain(
    store: DuplicateStore, found: Duplicates, keeper: Indices, rows: Indices, near: Floats, threshold: float
) -> Chain | None:
    short = np.flatnonzero(~np.isnan(near) & ~reaches(near, threshold, store.strict))
    if not len(short):
        return None
    worst = short[np.argmin(near[short])]
    row = int(rows[worst])
    return Chain(
        uid=hex_of(store.uids, row),
        keeper_uid=hex_of(store.uids, int(keeper[row])),
        similarity=float(near[worst]),
        link=float(found.similarity[row]),
        rows=len(short),
    )


def _masked(texts: pa.Array, valid: NDArray[np.bool_]) -> pa.Array:
    bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(texts.type, len(texts), [bits, *texts.buffers()[1:]])


def _repeated(names: list[str], places: NDArray[np.int16], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    encoded = [name.encode() for name in names]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    texts = pa.Array.from_buffers(
        pa.string(), len(names), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    )
    return pa.DictionaryArray.from_arrays(arrow_values(places, valid), texts)
