"""``frequency``: drop captions or images that too many rows share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pycurate.kernels.uid import find, sort_uids
from pycurate.ops.text.row_keys import NO_KEY, row_keys
from pycurate.pipeline.external_sort import duplicate_keys, write_run
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep, codes_of
from pycurate.types import UID_DTYPE, Block, Rule, ScoreArray, UidArray, Verdict

KEY_COLUMNS = {"caption": "caption", "image": "sha256", "url": "url"}
"""Column behind the short names of ``key``."""


class Frequency(DecidingStep):
    """Keep rows whose caption, image or other value occurs in at most ``max_rows`` rows of the pool.

    Makes the score column ``<name>.key``: a 128-bit hash of the value (xxh3_128), two values in a billion rows being
    mistaken for one with a probability of 1e-21. Rows are counted over the whole pool, by an external sort under the
    memory cap. A row without the value is unjudged and counts for nothing.

    Attributes
    ----------
    key
        ``caption``, ``image`` (the column sha256), ``url``, or any column.
    max_rows
        Most rows that may share a value; above it, all of them are dropped (ALIGN: 10 for captions).
    normalise
        Compare text after NFKC, case folding and collapsing whitespace; by default byte by byte.
    """

    kind: ClassVar[str] = "frequency"
    fits: ClassVar[bool] = True
    scratch_row_bytes: ClassVar[int] = 16  # sorted keys

    key: str
    max_rows: int = Field(ge=1)
    normalise: bool = False

    @property
    def python_bound(self) -> bool:  # type: ignore[override]  # hashing alone, at 3 million rows a second, is quick
        return self.normalise

    @property
    def column(self) -> str:
        return KEY_COLUMNS.get(self.key, self.key)

    @property
    def key_column(self) -> str:
        return f"{self.title}.key"

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.key_column,)

    def score_parameters(self) -> dict[str, Any]:
        return {"column": self.column, "normalise": self.normalise}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        return {self.key_column: row_keys(block.columns[self.column], self.normalise)}

    def decide_needs(self) -> Needs:
        return Needs(scores=(self.key_column,))

    def fit_parameters(self) -> dict[str, Any]:
        return {"max_rows": self.max_rows}

    def fit(self, view: FitView) -> Artefact:
        """``keys``, (m,) uid dtype, sorted: values in more than ``max_rows`` rows; ``counts``, (m,) int64: in how many.

        Both are streamed to files of the scratch folder, as they may be larger than the memory cap.
        """

        def run_of(shard: str) -> Path:
            keys: UidArray = view.column(shard, self.key_column)
            keys = keys[~_missing(keys)]
            sort_uids(keys, threads=1)
            path = view.scratch / f"{order[shard]:06d}.npy"
            write_run(path, keys)
            return path

        order = {shard: number for number, shard in enumerate(view.shards)}
        runs = list(view.map(run_of))
        found = 0
        keys_path, counts_path = view.scratch / "keys.bin", view.scratch / "counts.bin"
        with keys_path.open("wb") as keys_file, counts_path.open("wb") as counts_file:
            for keys, counts in duplicate_keys(runs, view.memory_bytes):
                frequent = counts > self.max_rows
                found += int(np.count_nonzero(frequent))
                keys_file.write(np.ascontiguousarray(keys[frequent]).data)
                counts_file.write(np.ascontiguousarray(counts[frequent], np.int64).data)
        return {
            "keys": _map(keys_path, UID_DTYPE, found),
            "counts": _map(counts_path, np.dtype(np.int64), found),
        }

    def rules(self, artefact: Artefact) -> list[Rule]:
        what = f"rows with the same {self.key}"
        return [
            Rule(self.title, f"{what} <= {self.max_rows}", threshold=float(self.max_rows), drops="above"),
            self.unjudged_rule(f"no {self.key}"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        keys = columns[self.key_column]
        place = find(artefact["keys"], np.ascontiguousarray(keys))
        frequent = place >= 0
        value = np.full(len(keys), np.nan)
        value[frequent] = artefact["counts"][place[frequent]]
        return Verdict(codes_of(frequent, _missing(keys)), value)


def _missing(keys: UidArray) -> Any:
    return keys == np.array(NO_KEY, UID_DTYPE)


def _map(path: Path, dtype: np.dtype[Any], rows: int) -> ScoreArray:
    return np.memmap(path, dtype, "r", shape=(rows,)) if rows else np.empty(0, dtype)
