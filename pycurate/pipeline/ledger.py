"""The ledger: for every row of a pool, whether it was kept, and the rule, value and threshold that dropped it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pycurate.io.atomic import atomic_write
from pycurate.kernels.uid import format_hex
from pycurate.pipeline.decide import Decision
from pycurate.types import Rule, UidArray

ROW_GROUP_ROWS = 1 << 17
# Random hex digits halve under zstd, at a tenth of the speed of writing them as they are.
COMPRESSION = {
    "uid": "NONE",
    "keep": "ZSTD",
    "rule": "ZSTD",
    "value": "LZ4",
    "threshold": "ZSTD",
    "detail": "ZSTD",
    "partner_uid": "ZSTD",
}

SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),  # 32 hex digits
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("rule", pa.dictionary(pa.int16(), pa.string())),  # null where kept
        pa.field("value", pa.float64()),  # what the rule looked at
        pa.field("threshold", pa.float64()),  # what it was compared with
        pa.field("detail", pa.string()),  # a category the rule saw, or why a row could not be judged
        pa.field("partner_uid", pa.string()),  # the row it duplicates; null for every step that has none
    ]
)


def write_ledger(path: Path, uids: UidArray, decision: Decision, rules: Sequence[Rule]) -> None:
    """One shard's ledger as parquet, rows in the shard's order, in row groups of 131,072 so that memory stays small."""
    names = pa.array([rule.name for rule in rules], pa.string())
    thresholds = np.array([np.nan, *(np.nan if r.threshold is None else r.threshold for r in rules)])
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(
            file,
            SCHEMA,
            compression=COMPRESSION,
            use_dictionary=["rule", "threshold", "detail"],
            write_statistics=False,
        ) as writer,
    ):
        for start in range(0, max(len(uids), 1), ROW_GROUP_ROWS):
            part = slice(start, start + ROW_GROUP_ROWS)
            writer.write_batch(_batch(uids[part], decision, part, names, thresholds))


def _batch(
    uids: UidArray,
    decision: Decision,
    part: slice,
    names: pa.Array,
    thresholds: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> pa.RecordBatch:
    reason = decision.reason[part]
    value = decision.value[part]
    limit = thresholds[reason]
    detail: pa.Array = pa.nulls(len(uids), pa.string())
    if decision.detail is not None:
        text = decision.detail[part]
        detail = pa.array(np.char.decode(text, "utf-8"), pa.string(), mask=text == b"")
    index = pa.array(reason.astype(np.int16) - np.int16(1), mask=reason == 0)
    return pa.RecordBatch.from_arrays(
        [
            hex_strings(uids),
            pa.array(reason == 0),
            pa.DictionaryArray.from_arrays(index, names),
            pa.array(value, mask=np.isnan(value)),
            pa.array(limit, mask=np.isnan(limit)),
            detail,
            pa.nulls(len(uids), pa.string()),
        ],
        schema=SCHEMA,
    )


def hex_strings(uids: UidArray) -> pa.Array:
    """Uids as an Arrow string array of 32 hex digits each, made without a Python string."""
    offsets = np.arange(0, 32 * (len(uids) + 1), 32, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(uids), [None, pa.py_buffer(offsets), pa.py_buffer(format_hex(uids))])
