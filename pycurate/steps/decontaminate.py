"""``decontaminate``: drop rows that are near any item of evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from pycurate.errors import InputError, RecipeError
from pycurate.io.images import SHA256_COLUMN
from pycurate.io.pack import PACK_NAME, Pack, open_pack
from pycurate.io.pool import Pool
from pycurate.ops.dedup.contamination import GRAM_LENGTHS
from pycurate.pipeline.step import Artefact, Needs
from pycurate.steps.base import DecidingStep
from pycurate.steps.contamination import (
    DEFAULT_SIMILARITY,
    BlockComparison,
    Measure,
    require_alike,
    require_different_names,
)
from pycurate.steps.files import file_version
from pycurate.types import Block, Rule, ScoreArray, UidArray, UnjudgedPolicy, Verdict

_HINT = "Build a pack with 'pycurate pack EVALSET --out PACK'."


class Decontaminate(DecidingStep):
    """Drop rows that are near any item of packs that ``pycurate pack`` wrote; see `pycurate.decontaminate`.

    Makes the score columns ``<name>.measure`` (which rule finds a row, 0: none), ``<name>.value`` and ``<name>.item``
    (its row in the pack); the ledger's detail is the id of the item. There is a rule for each pack and way to compare,
    surest first. A row is unjudged where none of them can judge it.

    Attributes
    ----------
    against
        Folders of packs.
    similarity
        Embedding -> least cosine, or one number for every embedding that any pack holds (default 0.95): the pool must
        have them all. {}: none.
    captions
        Compare captions, which the pool must have (default).
    ngram
        Words that captions have in common in a row, 3 to 8 (default 8); null: only equal captions are found.
    images
        Compare the column sha256 (default: no).
    unjudged
        Rows that cannot be judged are kept by default: nothing speaks against them.
    """

    kind: ClassVar[str] = "decontaminate"
    shorthand: ClassVar[str] = "against"
    python_bound: ClassVar[bool] = False

    against: tuple[str, ...] = Field(min_length=1)
    similarity: float | dict[str, float] = DEFAULT_SIMILARITY
    captions: bool = True
    ngram: int | None = Field(default=8, ge=GRAM_LENGTHS[0], le=GRAM_LENGTHS[-1])
    images: bool = False
    unjudged: UnjudgedPolicy = "keep"

    @field_validator("against", mode="before")
    @classmethod
    def _one_or_several(cls, against: Any) -> Any:
        return (against,) if isinstance(against, str | Path) else against

    @property
    def packs(self) -> tuple[Pack, ...]:
        """The packs, opened and checked."""
        return _opened(self._versions)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Every way in which rows are compared, surest first."""
        packs = list(enumerate(self.packs))
        least = self.similarity
        if not isinstance(least, dict):
            least = dict.fromkeys((name for pack in self.packs for name in pack.embeddings), least)
        for name, cosine in least.items():
            if not any(name in pack.embeddings for pack in self.packs):
                raise RecipeError(f"{self.kind}: similarity: no pack has an embedding {name!r}")
            if not -1 <= cosine <= 1:
                raise RecipeError(f"{self.kind}: similarity: expected a cosine in [-1, 1] for {name!r}, got {cosine}")
        found = [Measure(n, "sha256", "sha256", 1.0) for n, pack in packs if self.images and pack.has_sha256]
        for name, cosine in least.items():
            found += [Measure(n, "embedding", name, cosine) for n, pack in packs if name in pack.embeddings]
        having = [n for n, pack in packs if self.captions and pack.has_captions]
        found += [Measure(n, "caption", "caption", 1.0) for n in having]
        if self.ngram is not None:
            found += [Measure(n, "gram", f"{self.ngram}-gram", 1.0, self.ngram) for n in having]
        for number, pack in packs:
            if not any(measure.pack == number for measure in found):
                raise RecipeError(f"{self.kind}: pack {pack.name!r} holds nothing that the step compares")
        return tuple(found)

    def check_files(self) -> None:
        assert self.packs

    def check_pool(self, pool: Pool) -> None:
        try:
            require_alike(pool, self.packs, self.measures, {})
        except InputError as error:
            raise RecipeError(f"{self.kind}: {error}") from error

    @property
    def _versions(self) -> tuple[tuple[Path, int, int], ...]:
        places = [str(Path(path) / PACK_NAME) for path in self.against]
        return tuple(file_version(place, f"{self.kind}: against", _HINT) for place in places)

    @property
    def columns(self) -> tuple[str, str, str]:
        """The score columns."""
        return f"{self.title}.measure", f"{self.title}.value", f"{self.title}.item"

    def score_needs(self) -> Needs:
        asked = [("caption", self.captions), (SHA256_COLUMN, self.images)]
        columns = tuple(column for column, is_asked in asked if is_asked)
        if isinstance(self.similarity, dict):
            return Needs(columns=columns, embeddings=tuple(self.similarity))
        return Needs(columns=columns, embeddings=tuple(dict.fromkeys(n for p in self.packs for n in p.embeddings)))

    def produces(self) -> tuple[str, ...]:
        return self.columns

    def score_parameters(self) -> dict[str, Any]:
        measures = [[m.pack, m.rule, float(np.float32(m.threshold))] for m in self.measures]
        return {"packs": [pack.checksum for pack in self.packs], "measures": measures}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        return self.score_on(block, None)

    def score_on(self, block: Block, device: str | None) -> dict[str, ScoreArray]:
        near, unjudged = _prepared(self._versions, self.measures, device).compare(block)
        measure, item = np.zeros(block.rows, np.int64), np.full(block.rows, -1, np.int64)
        value = np.full(block.rows, np.nan)
        measure[np.logical_and.reduce(list(unjudged.values()))] = -1
        for number, found in reversed(list(enumerate(near, start=1))):
            measure[found.rows], item[found.rows], value[found.rows] = number, found.items, found.values
        return dict(zip(self.columns, (measure, value, item), strict=True))

    def decide_needs(self) -> Needs:
        return Needs(scores=self.columns)

    def rules(self, artefact: Artefact) -> list[Rule]:
        said = {
            "embedding": "cosine of {rule} >= {threshold:.9g}",
            "gram": "{size} words in a row in common",
            "caption": "the same caption",
            "sha256": "the same image bytes",
        }
        names = [pack.name for pack in self.packs]
        rules = [
            Rule(
                f"{self.title}.{names[m.pack]}.{m.rule}",
                f"no item of {names[m.pack]} with "
                + said[m.kind].format(rule=m.rule, threshold=m.threshold, size=m.size),
                threshold=m.threshold,
                drops="above",
            )
            for m in self.measures
        ]
        return [*rules, self.unjudged_rule("nothing that could be compared with an item")]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        measure, value, item = (columns[name] for name in self.columns)
        packs, measures = self.packs, self.measures
        detail = [
            packs[measures[m - 1].pack].ids[i].encode() if m > 0 else b""
            for m, i in zip(measure.tolist(), item.tolist(), strict=True)
        ]
        code = np.where(measure < 0, len(measures) + 1, measure).astype(np.uint8)
        return Verdict(code, np.array(value), np.array(detail, np.bytes_))


@lru_cache(maxsize=8)
def _opened(versions: tuple[tuple[Path, int, int], ...]) -> tuple[Pack, ...]:
    try:
        packs = tuple(open_pack(path.parent) for path, _, _ in versions)
        require_different_names(packs)
    except InputError as error:
        raise RecipeError(f"decontaminate: {error}") from error
    return packs


@lru_cache(maxsize=8)
def _prepared(
    versions: tuple[tuple[Path, int, int], ...], measures: tuple[Measure, ...], device: str | None
) -> BlockComparison:
    return BlockComparison(_opened(versions), measures, ("caption", SHA256_COLUMN), 1, device)
