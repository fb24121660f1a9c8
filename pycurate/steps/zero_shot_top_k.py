"""``zero_shot_top_k``: keep, for each class, the rows most similar to its text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pycurate.errors import InputError, MissingDependencyError, RecipeError
from pycurate.ops.labels.pseudo_labels import BestRows, zero_shot_labels
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep, codes_of
from pycurate.steps.files import file_fingerprint, file_version
from pycurate.types import UID_DTYPE, Block, Rule, ScoreArray, UidArray, Verdict

if TYPE_CHECKING:
    from pycurate.io.pool import Pool

CLASSES_HINT = "It is a .npy file (K, d) with the text embedding of each class, of the model that embedded the images."


class ZeroShotTopK(DecidingStep):
    """Keep the k rows of each class that are most similar to its embedding; every row competes for its nearest class.

    Makes the score columns ``<name>``, float32, the cosine to the nearest class (NaN where the embedding is zero or not
    finite), and ``<name>.class``, int64, that class (-1 there). A class with fewer rows keeps all.

    Attributes
    ----------
    embedding
        Of the images.
    classes
        A .npy file (K, d): one embedding for each class.
    k
        Rows to keep of each class, those of equal similarity in the order of their uids; None: all.
    minimum
        Rows below this cosine are dropped, too.
    of
        ``survivors`` (default): among rows that no earlier step dropped; ``pool``: among all.
    """

    kind: ClassVar[str] = "zero_shot_top_k"
    fits: ClassVar[bool] = True

    embedding: str
    classes: str
    k: int | None = Field(default=None, ge=1)
    minimum: float | None = None
    of: Literal["pool", "survivors"] = "survivors"

    @property
    def fits_survivors(self) -> bool:  # type: ignore[override]  # the protocol allows a property
        return self.of == "survivors"

    @property
    def class_column(self) -> str:
        """The score column of the nearest class."""
        return f"{self.title}.class"

    def score_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,))

    def produces(self) -> tuple[str, ...]:
        return (self.title, self.class_column)

    def score_parameters(self) -> dict[str, Any]:
        return {
            "embedding": self.embedding,
            "classes": file_fingerprint(self.classes, f"{self.kind}: classes", CLASSES_HINT),
        }

    def check_files(self) -> None:
        _class_embeddings(self.classes)

    def check_pool(self, pool: Pool) -> None:
        found, has = _class_embeddings(self.classes).shape[1], pool.embeddings[self.embedding].dimension
        if found != has:
            raise RecipeError(
                f"step {self.title!r}: classes: {self.classes} has {found} elements a class, but {self.embedding} has "
                f"{has}; images and texts must be embedded by one model"
            )

    def score(self, block: Block) -> dict[str, ScoreArray]:
        return self.score_on(block, None)

    def score_on(self, block: Block, device: str | None) -> dict[str, ScoreArray]:
        x = block.embeddings[self.embedding]
        dtype: Literal["bfloat16"] | None = "bfloat16" if x.dtype == np.uint16 else None
        found = zero_shot_labels(x, _class_embeddings(self.classes), threads=1, dtype=dtype, device=device)
        return {self.title: found.scores, self.class_column: found.labels.astype(np.int64)}

    def decide_needs(self) -> Needs:
        return Needs(scores=self.produces(), uids=True)

    def fit_parameters(self) -> dict[str, Any]:
        return {"k": self.k, "minimum": self.minimum, "of": self.of}

    def fit(self, view: FitView) -> Artefact:
        """``floor`` and ``last``, (K,): the similarity and uid of the last row that each class keeps."""
        classes = len(_class_embeddings(self.classes))
        floor, last = np.full(classes, -np.inf, np.float32), np.full(classes, 2**64 - 1, UID_DTYPE)
        counts = np.zeros(classes, np.int64)
        best = BestRows(classes, self.k)
        for shard in view.shards:
            scores, labels = view.column(shard, self.title), view.column(shard, self.class_column)
            alive = view.survivors(shard) if self.of == "survivors" else np.ones(len(labels), np.bool_)
            rows = np.flatnonzero(alive & (labels >= 0) & self._high(scores))
            if self.k is None:
                counts += np.bincount(labels[rows], minlength=classes)
            else:
                best.offer(view.uids(shard)[rows], labels[rows].astype(np.int32), scores[rows])
        if self.k is not None:
            counts = np.bincount(best.labels, minlength=classes)
            full = np.flatnonzero(counts == self.k)
            ends = np.searchsorted(best.labels, full, side="right") - 1
            floor[full], last[full] = best.scores[ends], best.keys[ends]
        return {"floor": floor, "last": last.view(np.uint64).reshape(-1, 2), "short": self._short(counts)}

    def _short(self, counts: NDArray[np.int64]) -> int:
        return int(np.count_nonzero(counts < (1 if self.k is None else self.k)))

    def _high(self, scores: ScoreArray) -> NDArray[np.bool_]:
        return np.asarray(scores >= np.float32(-np.inf if self.minimum is None else self.minimum))

    def rules(self, artefact: Artefact) -> list[Rule]:
        most = "" if self.k is None else f"among the {self.k} rows of its class most similar to it"
        least = "" if self.minimum is None else f"cosine to its class >= {self.minimum:g}"
        short = f" ({artefact['short']} classes have fewer)" if artefact["short"] and self.k else ""
        what = " and ".join(part for part in (most, least) if part) or "has a nearest class"
        return [
            Rule(self.title, what + short, score=self.title, drops="below"),
            self.unjudged_rule(f"embedding {self.embedding} is zero or not finite"),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        assert uids is not None
        scores, labels = columns[self.title], columns[self.class_column]
        of_class = np.maximum(labels, 0)
        floor = artefact["floor"][of_class]
        last = np.ascontiguousarray(artefact["last"])[of_class]
        not_later = (uids["f0"] < last[:, 0]) | ((uids["f0"] == last[:, 0]) & (uids["f1"] <= last[:, 1]))
        kept = self._high(scores) & ((scores > floor) | ((scores == floor) & not_later))
        return Verdict(codes_of(~kept, labels < 0), scores.astype(np.float64))


def _class_embeddings(path: str) -> NDArray[Any]:
    return _loaded(*file_version(path, "zero_shot_top_k: classes", CLASSES_HINT))


@lru_cache(maxsize=8)
def _loaded(path: Path, size_bytes: int, modified_ns: int) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise MissingDependencyError(
            f"zero_shot_top_k: classes: {path} is no .npy file ({error}). {CLASSES_HINT}"
        ) from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype not in (np.float32, np.float16):
        raise InputError(
            f"zero_shot_top_k: classes: expected (K, d) float32 or float16 in {path}, got {np.shape(found)} of "
            f"{getattr(found, 'dtype', type(found).__name__)}. {CLASSES_HINT}"
        )
    zero_shot_labels(found[:0], found)  # says which class has no direction
    return found
