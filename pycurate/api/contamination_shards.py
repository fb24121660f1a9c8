"""The shards of a pool compared with packs, one after the other, each leaving what was found in files."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.arrow import arrow_texts, arrow_values
from pycurate.io.atomic import atomic_write
from pycurate.io.evaluation_items import images_in_order
from pycurate.io.pack import Pack
from pycurate.io.pool import Pool, Shard
from pycurate.ops.dedup.contamination import (
    Near,
)
from pycurate.pipeline.external_sort import write_run
from pycurate.pipeline.ledger import hex_strings
from pycurate.pipeline.workspace import digest, has_marker, ready, remove_marker, write_marker
from pycurate.steps.contamination import BlockComparison, Measure
from pycurate.types import Block, UidArray

_COMPARED_BYTES = 64 << 20  # embeddings of the rows that are compared at a time: packs are prepared once for each
_LEDGER_ROWS = 1 << 17

LEDGER = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),  # 32 hex digits
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("rule", pa.dictionary(pa.int16(), pa.large_string())),  # null where kept, and so are those below
        pa.field("pack", pa.dictionary(pa.int16(), pa.large_string())),
        pa.field("value", pa.float64()),  # cosine, n-grams in common, or 1 for what is equal
        pa.field("threshold", pa.float64()),
        pa.field("item", pa.large_string()),  # the id of the nearest item
    ]
)


@dataclass(frozen=True, slots=True)
class FoundInShard:
    """What was found in one shard.

    Attributes
    ----------
    measure, row, item, value
        (h,) each: by which measure a row is near which item, and how near; sorted by row, then by measure.
    touched_measure, touched_item, touched_rows, touched_best
        (t,) each: how many rows are near an item by a measure, and the largest value.
    unjudged
        Rows that could not be judged, by rule.
    """

    measure: NDArray[np.int64]
    row: NDArray[np.int64]
    item: NDArray[np.int64]
    value: NDArray[np.float64]
    touched_measure: NDArray[np.int64]
    touched_item: NDArray[np.int64]
    touched_rows: NDArray[np.int64]
    touched_best: NDArray[np.float64]
    unjudged: Mapping[str, int]

    @classmethod
    def of(cls, found: Sequence[tuple[int, int, Near]], unjudged: Mapping[str, int]) -> FoundInShard:
        """From (measure, first row of the block, what is near) of all blocks."""
        none = np.empty(0, np.int64)
        measure = np.concatenate([none, *(np.full(len(near.rows), m) for m, _, near in found)])
        row = np.concatenate([none, *(near.rows + start for _, start, near in found)])
        item = np.concatenate([none, *(near.items for _, _, near in found)])
        value = np.concatenate([none.astype(np.float64), *(near.values for _, _, near in found)])
        order = np.lexsort((measure, row))
        of_item = np.concatenate([none, *(np.full(len(near.touched), m) for m, _, near in found)])
        touched = np.concatenate([none, *(near.touched for _, _, near in found)])
        counts = np.concatenate([none, *(near.counts for _, _, near in found)])
        best = np.concatenate([none.astype(np.float64), *(near.best for _, _, near in found)])
        return cls(
            measure[order], row[order], item[order], value[order], *summed(of_item, touched, counts, best), unjudged
        )

    def save(self, path: Path) -> None:
        """Write all of it as one .npz."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "unjudged"}
        buffer = io.BytesIO()
        np.savez(buffer, unjudged=np.frombuffer(json.dumps(dict(self.unjudged)).encode(), np.uint8), **arrays)
        with atomic_write(path, "file") as file:
            file.write(buffer.getbuffer())

    @classmethod
    def load(cls, path: Path) -> FoundInShard:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        unjudged = json.loads(arrays.pop("unjudged").tobytes())
        return cls(**arrays, unjudged=unjudged)

    @property
    def first(self) -> NDArray[np.int64]:
        """(r,) of every row that is near anything, the place of the first measure that says so."""
        return np.flatnonzero(np.append(True, self.row[1:] != self.row[:-1])[: len(self.row)])


def summed(
    measures: NDArray[np.int64], items: NDArray[np.int64], rows: NDArray[np.int64], best: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Measures, items, the sum of rows and the largest value of each (measure, item), sorted by these."""
    order = np.lexsort((items, measures))
    measures, items, rows, best = measures[order], items[order], rows[order], best[order]
    if not len(items):
        return measures, items, rows, best
    begin = np.flatnonzero(np.append(True, (measures[1:] != measures[:-1]) | (items[1:] != items[:-1])))
    return measures[begin], items[begin], np.add.reduceat(rows, begin), np.maximum.reduceat(best, begin)


class ShardComparison:
    """Compares the shards of a pool with packs by some measures."""

    def __init__(
        self,
        pool: Pool,
        packs: Sequence[Pack],
        measures: Sequence[Measure],
        out: Path,
        key: str,
        threads: int | None,
        device: str | None,
    ) -> None:
        self.out, self._key, self._packs, self._measures = out, key, packs, measures
        self._needs_images = any(measure.kind == "phash" for measure in measures)
        self._comparison = BlockComparison(packs, measures, pool.columns, threads, device)

    def run_path(self, shard: Shard) -> Path:
        """The sorted uids of a shard that remain."""
        return self.out / "workspace" / "runs" / f"{shard.name}.npy"

    def found(self, shard: Shard) -> FoundInShard:
        """What was found in a shard that was run."""
        return FoundInShard.load(self._found_path(shard))

    def run(self, shard: Shard) -> None:
        """Compare one shard, unless an earlier call did."""
        run, ledger = self.run_path(shard), self.out / "ledger" / f"{shard.name}.parquet"
        key = digest(self._key, shard.fingerprint())
        if has_marker(run, key) and ledger.exists() and self._found_path(shard).exists():
            return
        remove_marker(ready(run))
        near: list[tuple[int, int, Near]] = []
        unjudged: Counter[str] = Counter()
        parts: list[UidArray] = []
        for block in _large_blocks(shard, self._comparison.columns, self._comparison.embeddings):
            assert block.uids is not None
            parts.append(block.uids)
            images = images_in_order(shard, block.start, block.rows) if self._needs_images else None
            compared, unjudged_here = self._comparison.compare(block, images)
            near += [(number, block.start, found) for number, found in enumerate(compared)]
            unjudged.update({rule: int(np.count_nonzero(mask)) for rule, mask in unjudged_here.items()})
        uids = np.concatenate(parts)
        found = FoundInShard.of(near, unjudged)
        found.save(ready(self._found_path(shard)))
        keep = np.ones(len(uids), np.bool_)
        keep[found.row] = False
        _write_ledger(ready(ledger), uids, keep, found, self._packs, self._measures)
        write_run(run, uids[keep])
        write_marker(run, key, rows=len(uids))  # last: all three files are complete

    def _found_path(self, shard: Shard) -> Path:
        return self.out / "workspace" / "found" / f"{shard.name}.npz"


def _large_blocks(shard: Shard, columns: Sequence[str], embeddings: Sequence[str]) -> Iterator[Block]:
    """Blocks of a shard, several joined to one as long as their embeddings are small."""
    waiting: list[Block] = []
    for block in shard.blocks(columns, embeddings):
        waiting.append(block)
        held = sum(x.nbytes for part in waiting for x in part.embeddings.values())
        if held >= _COMPARED_BYTES or sum(part.rows for part in waiting) >= _LEDGER_ROWS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(blocks: Sequence[Block]) -> Block:
    first = blocks[0]
    if len(blocks) == 1:
        return first
    return Block(
        first.shard,
        first.start,
        sum(block.rows for block in blocks),
        np.concatenate([block.uids for block in blocks if block.uids is not None]),
        {name: pa.concat_arrays([block.columns[name] for block in blocks]) for name in first.columns},
        {name: np.concatenate([block.embeddings[name] for block in blocks]) for name in first.embeddings},
    )


def _write_ledger(
    path: Path,
    uids: UidArray,
    keep: NDArray[np.bool_],
    found: FoundInShard,
    packs: Sequence[Pack],
    measures: Sequence[Measure],
) -> None:
    """One shard's ledger as parquet, rows in the shard's order."""
    kinds = list(dict.fromkeys(measure.rule for measure in measures))
    rules, names = arrow_texts(kinds), arrow_texts([pack.name for pack in packs])
    rule_of = np.array([kinds.index(measure.rule) for measure in measures], np.int16)
    pack_of = np.array([measure.pack for measure in measures], np.int16)
    thresholds = np.array([measure.threshold for measure in measures])
    first = found.first
    measure, value = np.zeros(len(uids), np.int16), np.full(len(uids), np.nan)
    measure[found.row[first]], value[found.row[first]] = found.measure[first], found.value[first]
    with atomic_write(path, "file") as file, pq.ParquetWriter(file, LEDGER, compression="zstd") as writer:
        for begin in range(0, len(uids), _LEDGER_ROWS):
            part = slice(begin, begin + _LEDGER_ROWS)
            inside = first[(found.row[first] >= begin) & (found.row[first] < begin + _LEDGER_ROWS)]
            items: list[str | None] = [None] * len(keep[part])
            for place in inside.tolist():
                items[int(found.row[place]) - begin] = packs[measures[found.measure[place]].pack].ids[found.item[place]]
            by, dropped = measure[part], ~keep[part]
            writer.write_batch(
                pa.RecordBatch.from_arrays(
                    [
                        hex_strings(uids[part]),
                        arrow_values(keep[part]),
                        pa.DictionaryArray.from_arrays(arrow_values(rule_of[by], dropped), rules),
                        pa.DictionaryArray.from_arrays(arrow_values(pack_of[by], dropped), names),
                        arrow_values(value[part], dropped),
                        arrow_values(thresholds[by], dropped),
                        arrow_texts(items),
                    ],
                    schema=LEDGER,
                )
            )
