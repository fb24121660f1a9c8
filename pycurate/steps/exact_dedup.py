"""``exact_dedup``: drop rows that repeat the image, url, caption, embedding or any value of another row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import model_validator

from pycurate.errors import RecipeError
from pycurate.kernels.uid import find, sort_uids
from pycurate.ops.dedup.exact import Normalise, embedding_keys, missing_keys, run_starts, text_keys
from pycurate.pipeline.external_sort import duplicate_keys, write_run
from pycurate.pipeline.record_sort import RecordSort
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.dedup_base import PARTNER_ROW_BYTES, DedupStep, Partners
from pycurate.steps.frequency import KEY_COLUMNS
from pycurate.types import UID_DTYPE, Block, ScoreArray, UidArray

if TYPE_CHECKING:
    from pycurate.io.pool import Pool

EMBEDDING = "embedding"
_PART_ROWS = 1 << 18


class ExactDedup(DedupStep):
    """Of rows with an equal value, keep one.

    Makes the score column ``<name>.key``: a 128-bit hash of the value (xxh3_128), two values in a billion rows being
    mistaken for one with a probability of 1e-21. Equal keys are brought together by external sorts under the memory
    cap, in time that does not depend on how many rows are equal. A row without the value is unjudged: null, text that
    is empty or all white space, an image that the tar does not have, a vector that is zero or not finite.

    Attributes
    ----------
    key
        ``image`` (the column sha256, which img2dataset pools compute from their tars where it is not stored), ``url``,
        ``caption``, ``embedding``, or any column.
    embedding
        Name of the embedding whose bits are compared, for ``key: embedding``.
    normalise
        Captions: compare after NFKC, case folding and collapsing white space. Urls: scheme and host in lower case,
        without default port, fragment and tracking parameters, percent-encoding made one (``normalise_url``). Default:
        true for these two. Another column of text is compared as captions are where this is true.
    """

    kind: ClassVar[str] = "exact_dedup"
    shorthand: ClassVar[str] = "key"
    scratch_row_bytes: ClassVar[int] = PARTNER_ROW_BYTES + 16 + 8 + 40  # keys, those repeated, and rows with them

    key: str
    embedding: str | None = None
    normalise: bool | None = None

    @model_validator(mode="after")
    def _keys_that_go_together(self) -> Self:
        if (self.key == EMBEDDING) != (self.embedding is not None):
            raise ValueError(
                f"key: embedding goes with the name of one, as in {{key: embedding, embedding: clip_b32}}; "
                f"got key {self.key!r} and embedding {self.embedding!r}"
            )
        if self.normalise and self.key in (EMBEDDING, "image"):
            raise ValueError(f"normalise: only text can be normalised, and {self.key} is compared bit by bit")
        return self

    @property
    def python_bound(self) -> bool:  # type: ignore[override]  # hashing alone, at 3 million rows a second, is quick
        return self.normaliser is not None

    @property
    def normaliser(self) -> Normalise | None:
        """The rule by which values are made comparable; None: they are compared as they are."""
        text = self.key in ("caption", "url")
        if not (text if self.normalise is None else self.normalise):
            return None
        return "url" if self.key == "url" else "caption"

    @property
    def column(self) -> str:
        """The column that is compared, where it is not an embedding."""
        return KEY_COLUMNS.get(self.key, self.key)

    @property
    def key_column(self) -> str:
        return f"{self.title}.key"

    @property
    def duplicates(self) -> str:
        what = f"embedding {self.embedding}" if self.embedding else self.key
        how = {"caption": ", normalised", "url": ", normalised", None: ""}[self.normaliser]
        return f"{what} equal to that of the row kept{how}"

    @property
    def unjudgeable(self) -> str:
        return f"no {self.key} to compare"

    def check_pool(self, pool: Pool) -> None:
        if self.embedding:
            return
        kind = pool.columns[pool.stored_name(self.column)]
        if "<" in kind:  # list, struct, map
            raise RecipeError(
                f"step {self.title!r}: column {self.column!r} is {kind}; expected one text, number or bytes a row"
            )
        if self.normaliser is not None and kind not in ("string", "large_string", "null"):
            raise RecipeError(
                f"step {self.title!r}: column {self.column!r} is {kind}, and only text can be normalised; set "
                "normalise: false to compare it as it is"
            )

    def score_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,)) if self.embedding else Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.key_column,)

    def score_parameters(self) -> dict[str, Any]:
        return {"column": self.column, "embedding": self.embedding, "normalise": self.normaliser}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        if self.embedding:
            return {self.key_column: embedding_keys(block.embeddings[self.embedding])}
        return {self.key_column: text_keys(block.columns[self.column], self.normaliser)}

    def decide_needs(self) -> Needs:
        needs = super().decide_needs()
        return replace(needs, scores=(self.key_column, *needs.scores))

    def fit(self, view: FitView) -> Artefact:
        """The keeper of each group of equal keys: first in the order of ``keep``, then uid, then place in the pool.

        Two external sorts: of the keys alone, 16 bytes a row, for those that are there twice; and of the rows that
        have such a key, 40 bytes each, by group and priority. Neither holds a group in memory.
        """
        repeated = self._repeated_keys(view)
        partners = self.new_partners(view)
        with RecordSort(view.scratch / "rows.records", columns=5, key_columns=5) as records:

            def append(shard: str) -> None:
                competing, keep_keys = self.competing(view, shard), self.keep_keys(view, shard)
                keys, uids = view.column(shard, self.key_column), view.uids(shard)
                for begin in range(0, len(keys), _PART_ROWS):
                    groups = find(repeated, np.ascontiguousarray(keys[begin : begin + _PART_ROWS]))
                    own = np.flatnonzero((groups >= 0) & competing[begin : begin + _PART_ROWS])
                    rows = begin + own
                    found = np.empty((len(rows), 5), np.uint64)
                    found[:, 0], found[:, 1] = groups[own], keep_keys[rows]
                    found[:, 2], found[:, 3] = uids["f0"][rows], uids["f1"][rows]
                    found[:, 4] = rows + partners.starts[shard]
                    records.append(found)

            for _ in view.map(append):
                pass
            _name_keepers(records, partners, view.memory_bytes)
        return self.artefact(view, partners, groups=len(repeated))

    def _repeated_keys(self, view: FitView) -> UidArray:
        """Sorted keys that more than one competing row has, in a file of the scratch folder."""

        def run_of(shard: str) -> Path:
            keys: UidArray = view.column(shard, self.key_column)
            keys = keys[~missing_keys(keys) & self.competing(view, shard)]
            sort_uids(keys, threads=1)
            path = view.scratch / f"{order[shard]:06d}.npy"
            write_run(path, keys)
            return path

        order = {shard: number for number, shard in enumerate(view.shards)}
        runs = list(view.map(run_of))
        path, found = view.scratch / "repeated.bin", 0
        with path.open("wb") as file:
            for keys, _ in duplicate_keys(runs, view.memory_bytes):
                found += len(keys)
                file.write(np.ascontiguousarray(keys).data)
        return np.memmap(path, UID_DTYPE, "r", shape=(found,)) if found else np.empty(0, UID_DTYPE)

    def unjudged_rows(
        self, shard: str, columns: Mapping[str, ScoreArray], artefact: Artefact, rows: slice
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return missing_keys(columns[self.key_column])


def _name_keepers(records: RecordSort, partners: Partners, memory_bytes: int) -> None:
    """Make the first record of each group the partner of the others; a group may span any number of ranges."""
    last_group, keeper = -1, np.empty(1, UID_DTYPE)
    for part in records.ranges(memory_bytes):
        uids: UidArray = np.ascontiguousarray(part[:, 2:4]).reshape(-1).view(UID_DTYPE)
        first = run_starts(np.append(True, part[1:, 0] != part[:-1, 0]))
        found = uids[first]
        continued = part[:, 0] == last_group if last_group >= 0 else np.zeros(len(part), np.bool_)
        found[continued] = keeper[0]
        repeats = continued | (first != np.arange(len(part)))
        partners.set(part[repeats, 4].astype(np.int64), found[repeats], 1.0)
        last_group, keeper = int(part[-1, 0]), found[-1:].copy()
