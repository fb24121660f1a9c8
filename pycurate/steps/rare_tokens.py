"""``rare_tokens``: drop captions with a word, or two neighbouring words, that the pool hardly ever uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pycurate.ops.selection.bounds import missing
from pycurate.ops.text.caption_measures import caption_words
from pycurate.ops.text.grams import caption_grams, frequent_cut
from pycurate.pipeline.exchange import KeyRange, key_ranges
from pycurate.pipeline.pool_rows import new_array, shard_starts
from pycurate.pipeline.step import Artefact, FitView, Needs, Pairs
from pycurate.steps.base import DecidingStep, codes_of
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict


class RareTokens(DecidingStep):
    """Keep captions whose every word and every two neighbouring words are among the pool's most frequent ones.

    Uni- and bigrams are ranked together by how often they occur in the whole pool, those that occur equally often by
    their hash: exactly ``vocabulary`` of them are frequent, whatever the shards. A pool with no more than that loses
    no row. Makes the score column ``<name>.words``, and keeps 12 bytes for every gram in the workspace. A row without a
    caption is unjudged; a caption without words passes.

    Attributes
    ----------
    column
        The column of captions; the pool's caption column by default.
    vocabulary
        How many uni- and bigrams are frequent (ALIGN, Jia et al. 2021: 100 million).
    normalise
        Compare words after NFKC and case folding; by default as they are.
    """

    kind: ClassVar[str] = "rare_tokens"
    fits: ClassVar[bool] = True
    artefact_row_bytes: ClassVar[int] = 8  # the count of the rarest gram
    scratch_row_bytes: ClassVar[int] = 8
    exchanges: ClassVar[bool] = True
    python_bound: ClassVar[bool] = True

    column: str = "caption"
    vocabulary: int = Field(default=100_000_000, ge=1)
    normalise: bool = False

    @property
    def words_column(self) -> str:
        return f"{self.title}.words"

    def score_needs(self) -> Needs:
        return Needs(columns=(self.column,))

    def produces(self) -> tuple[str, ...]:
        return (self.words_column,)

    def score_parameters(self) -> dict[str, Any]:
        return {"column": self.column, "normalise": self.normalise}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        return {self.words_column: caption_words(block.columns[self.column])}

    def exchange(self, block: Block) -> Pairs:
        return caption_grams(block.columns[self.column], self.normalise)

    def decide_needs(self) -> Needs:
        return Needs(scores=(self.words_column,))

    def fit_parameters(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def fit(self, view: FitView) -> Artefact:
        """``grams``: different ones; where they are more than ``vocabulary``, ``count``, that of the last frequent one,
        and ``rarest``, (rows of the pool,) int64: the count of a row's rarest gram outside the vocabulary, 0 where all
        are in it; the rows of a shard begin at ``starts[shard]``.
        """
        sizes: Counter[int] = Counter()
        for part in key_ranges(view):
            found, times = np.unique(part.counts, return_counts=True)
            sizes.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
        cut = frequent_cut(sizes, self.vocabulary)
        if cut is None:
            return {"grams": sum(sizes.values())}
        count, ties = cut
        starts, rows = shard_starts(view)
        rarest = new_array(view.scratch / "rarest.bin", np.int64, (rows,))
        for part in key_ranges(view):
            rare, ties = _rare(part, count, ties)
            for shard, places, counts in part.rows(rare):
                _lower(rarest[starts[shard] : starts[shard] + view.rows(shard)], places, counts)
        return {"grams": sum(sizes.values()), "count": count, "starts": starts, "rarest": rarest}

    def rules(self, artefact: Artefact) -> list[Rule]:
        what = f"words and pairs of words among the {self.vocabulary:,} most frequent"
        if "count" in artefact:
            what += f" of {artefact['grams']:,} (which occur {artefact['count']:,} times or more)"
        elif "grams" in artefact:
            what += f" (the pool has {artefact['grams']:,})"
        threshold = float(artefact["count"]) if "count" in artefact else None
        return [
            Rule(self.title, what, threshold=threshold, drops="below"),
            self.unjudged_rule("no caption"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        words = columns[self.words_column]
        value = np.full(len(words), np.nan)
        if "rarest" in artefact:
            start = artefact["starts"][shard]
            rarest = artefact["rarest"][start : start + len(words)]
            value[rarest > 0] = rarest[rarest > 0]
        return Verdict(codes_of(~np.isnan(value), missing(words)), value)


def _rare(part: KeyRange, count: int, ties: int) -> tuple[NDArray[np.bool_], int]:
    """The keys outside the vocabulary, which has ``ties`` more of exactly ``count``; and how many more it has then."""
    rare = part.counts < count
    equal = np.flatnonzero(part.counts == count)
    rare[equal[ties:]] = True
    return rare, max(ties - len(equal), 0)


def _lower(rarest: NDArray[np.int64], rows: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
    """Put the lowest count of each row into ``rarest``, in which 0 stands for none yet."""
    order = np.lexsort((counts, rows))
    rows, counts = rows[order], counts[order]
    first = np.flatnonzero(np.diff(rows.astype(np.int64), prepend=-1))
    rows, counts = rows[first], counts[first]
    before = rarest[rows]
    rarest[rows] = np.where(before > 0, np.minimum(before, counts), counts)
