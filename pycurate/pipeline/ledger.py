"""The ledger: for every row of a pool, whether it was kept, and the rule, value and threshold that dropped it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import arrow_values
from pycurate.io.atomic import atomic_write
from pycurate.kernels.uid import format_hex
from pycurate.pipeline.decide import Decision
from pycurate.types import Rule, UidArray

ROW_GROUP_ROWS = 1 << 17
FORMAT = 3  # bumped when the same decisions are written in another way

SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),  # 32 hex digits
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("rule", pa.dictionary(pa.int16(), pa.string())),  # null where kept
        pa.field("value", pa.float64()),  # what the rule looked at
        pa.field("threshold", pa.dictionary(pa.int16(), pa.float64())),  # what it was compared with
        pa.field("detail", pa.string()),  # a category the rule saw, or why a row could not be judged
        pa.field("partner_uid", pa.string()),  # the row it duplicates; null under rules that name none
    ]
)


def write_ledger(path: Path, uids: UidArray, decision: Decision, rules: Sequence[Rule]) -> None:
    """One shard's ledger as parquet, rows in the shard's order, in row groups of 131,072 so that memory stays small."""
    names = few_strings([rule.name for rule in rules])
    with_partner = np.array([False, *(rule.names_partner for rule in rules)])
    thresholds = np.array([np.nan, *(np.nan if r.threshold is None else r.threshold for r in rules)])
    with (
        atomic_write(path, "file") as file,
        pq.ParquetWriter(
            file,
            SCHEMA,
            compression="NONE",
            use_dictionary=["rule", "threshold", "detail"],
            write_statistics=False,
            write_batch_size=ROW_GROUP_ROWS,  # one page and one pass a column and row group: a tenth quicker
            data_page_size=ROW_GROUP_ROWS << 7,
        ) as writer,
    ):
        for start in range(0, max(len(uids), 1), ROW_GROUP_ROWS):
            part = slice(start, start + ROW_GROUP_ROWS)
            writer.write_batch(_batch(uids[part], decision, part, names, thresholds, with_partner))


def _batch(
    uids: UidArray,
    decision: Decision,
    part: slice,
    names: pa.Array,
    thresholds: NDArray[np.float64],
    with_partner: NDArray[np.bool_],
) -> pa.RecordBatch:
    reason = decision.reason[part]
    value = decision.value[part]
    limited = np.isfinite(thresholds)
    rule = (reason - np.uint16(1)).view(np.int16)  # of kept rows: not valid
    # Which of the distinct thresholds each row met; dictionaries, so that no row's text or number is hashed again.
    place = (np.cumsum(limited, dtype=np.int16) - np.int16(1))[reason]
    return pa.RecordBatch.from_arrays(
        [
            hex_strings(uids),
            arrow_values(reason == 0),
            pa.DictionaryArray.from_arrays(arrow_values(rule, reason > 0), names),
            arrow_values(value, ~np.isnan(value)),
            pa.DictionaryArray.from_arrays(arrow_values(place, limited[reason]), arrow_values(thresholds[limited])),
            pa.nulls(len(uids), pa.string()) if decision.detail is None else optional_texts(decision.detail[part]),
            pa.nulls(len(uids), pa.string())
            if decision.partner is None
            else hex_strings(decision.partner[part], with_partner[reason]),
        ],
        schema=SCHEMA,
    )


def hex_strings(uids: UidArray, valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Uids as an Arrow string array of 32 hex digits each, made without a Python string; null where not ``valid``."""
    if valid is None:
        offsets = np.arange(0, 32 * (len(uids) + 1), 32, dtype=np.int32)
        return pa.Array.from_buffers(
            pa.string(), len(uids), [None, pa.py_buffer(offsets), pa.py_buffer(format_hex(uids))]
        )
    offsets = np.zeros(len(uids) + 1, np.int32)
    np.cumsum(valid * np.int32(32), out=offsets[1:])
    mask = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        pa.string(), len(uids), [mask, pa.py_buffer(offsets), pa.py_buffer(format_hex(uids[valid]))]
    )


def optional_texts(detail: NDArray[np.bytes_]) -> pa.Array:
    """Null-terminated UTF-8, of which few are distinct, as an Arrow string array; null where empty."""
    distinct, place = np.unique(detail, return_inverse=True)
    return pa.DictionaryArray.from_arrays(
        arrow_values(place.astype(np.int32), detail != b""), few_strings([text.decode() for text in distinct.tolist()])
    ).dictionary_decode()


def few_strings(texts: Sequence[str]) -> pa.Array:
    """An Arrow string array of a few texts. Casting a large_string array would load ``pyarrow.compute``: 40 ms."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)
