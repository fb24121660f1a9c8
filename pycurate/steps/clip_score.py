"""``clip_score``: how well an image matches its caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from pycurate.errors import RecipeError
from pycurate.pipeline.scan import numeric_column
from pycurate.pipeline.step import Needs
from pycurate.steps.base import RecipeStep, as_field
from pycurate.types import Block, ScoreArray

if TYPE_CHECKING:
    from pycurate.io.pool import Pool


class ClipScore(RecipeStep):
    """CLIP score of each row: computed from two embeddings, or a column that the pool has stored.

    Attributes
    ----------
    as_
        Name of the score column (YAML key ``as``); the step's name by default. A computed score also makes
        ``<as>.flags``, uint8, which says why a row has none (``pycurate.ops.scores.clip_score``).
    embeddings
        Shorthand for a DataComp pair: ``l14`` means image ``l14_img`` and text ``l14_txt``.
    image, text
        The pool's embeddings to compare.
    column
        A numeric column of the pool, passed on as it is stored (float32 stays float32).
    """

    kind: ClassVar[str] = "clip_score"

    as_: str = as_field()
    embeddings: str | None = None
    image: str | None = None
    text: str | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        pair = self.image is not None and self.text is not None
        half = (self.image is None) != (self.text is None)
        if half or (self.embeddings is not None) + pair + (self.column is not None) != 1:
            raise ValueError("expected exactly one of: embeddings, image and text together, column")
        return self

    @property
    def score_name(self) -> str:
        return self.as_ or self.title

    @property
    def pair(self) -> tuple[str, str] | None:
        """Names of the image and the text embedding; None for a stored column."""
        if self.embeddings is not None:
            return f"{self.embeddings}_img", f"{self.embeddings}_txt"
        return (self.image, self.text) if self.image is not None and self.text is not None else None

    def score_needs(self) -> Needs:
        return Needs(embeddings=self.pair) if self.pair else Needs(columns=(str(self.column),))

    def check_pool(self, pool: Pool) -> None:
        if self.pair is None:
            return
        image, text = (pool.embeddings[name] for name in self.pair)
        if image != text:
            raise RecipeError(
                f"step {self.title!r}: expected two embeddings of one space, got {self.pair[0]} ({image.dimension}-d "
                f"{image.dtype}) and {self.pair[1]} ({text.dimension}-d {text.dtype})"
            )

    def produces(self) -> tuple[str, ...]:
        return (self.score_name, f"{self.score_name}.flags") if self.pair else (self.score_name,)

    def score_parameters(self) -> dict[str, Any]:
        return {"pair": self.pair, "column": self.column}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        from pycurate.ops.scores.clip_score import clip_scores

        if self.pair is None:
            return {self.score_name: numeric_column(block, str(self.column))}
        image, text = self.pair
        similarities, flags = clip_scores(block.embeddings[image], block.embeddings[text])
        return {self.score_name: similarities, f"{self.score_name}.flags": flags}
