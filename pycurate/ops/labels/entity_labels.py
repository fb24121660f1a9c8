"""Entities that a caption names and its image shows: candidates from the text, scored by the image (MOFI)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import Rows, check_count, same_element
from pycurate.kernels.rowwise import pair_similarity
from pycurate.ops.labels.label_codes import Labels
from pycurate.ops.text.row_keys import normalise_caption

_WORD = re.compile(r"\w+")
_STEP_PAIRS = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class EntityLabels:
    """Entities of each row: ``entities[indptr[i]:indptr[i + 1]]``, the most similar first, ties to the lower.

    Attributes
    ----------
    indptr
        (n + 1,) int64.
    entities
        (e,) int32 places in the list of entities.
    similarities
        (e,) float32 cosine of the image and the entity's text.
    candidates
        Entities found in captions, before images were looked at.
    unjudged
        (u,) rising rows without a caption, or whose image embedding is zero or not finite.
    """

    indptr: NDArray[np.int64]
    entities: Labels
    similarities: NDArray[np.float32]
    candidates: int
    unjudged: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def best(self) -> Labels:
        """(n,) the most similar entity of each row, -1 where there is none."""
        result = np.full(len(self), -1, np.int32)
        some = np.flatnonzero(np.diff(self.indptr))
        result[some] = self.entities[self.indptr[some]]
        return result


class EntityNames:
    """Names to look for in captions, as sequences of words.

    Words are runs of letters, digits and underscores after NFKC and case folding. Of names that overlap in a caption
    all count: "hot dog" and "dog".

    Parameters
    ----------
    names
        One or several names for each entity. A name without a word is refused.
    """

    def __init__(self, names: Sequence[str | Sequence[str]]) -> None:
        self.count = len(names)
        self._entities: dict[tuple[str, ...], list[int]] = {}
        for number, given in enumerate(names):
            for name in [given] if isinstance(given, str) else given:
                words = words_of(name)
                if not words:
                    raise InputError(f"names: entity {number} has a name without a word, {name!r}; leave it out")
                known = self._entities.setdefault(words, [])
                if number not in known:
                    known.append(number)
        self._lengths = sorted({len(words) for words in self._entities})
        self._first = {words[0] for words in self._entities}

    def in_caption(self, caption: str) -> list[int]:
        """Rising numbers of the entities that a caption names."""
        words = words_of(caption)
        found: set[int] = set()
        for start, word in enumerate(words):
            if word in self._first:
                for length in self._lengths:
                    found.update(self._entities.get(words[start : start + length], ()))
        return sorted(found)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a caption or name, in order."""
    return tuple(_WORD.findall(normalise_caption(text)))


def entity_labels(
    captions: pa.Array | pa.ChunkedArray | Sequence[str | None],
    x: NDArray[Any],
    names: EntityNames | Sequence[str | Sequence[str]],
    entity_embeddings: NDArray[Any],
    *,
    top: int = 5,
    minimum: float | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
) -> EntityLabels:
    """Entities that a caption names, ranked by how similar the image is to the text of each.

    Parameters
    ----------
    captions
        (n,) texts or None.
    x
        (n, d) image embeddings, float32, float16, bfloat16 or int8; may be a memory map.
    names
        One or several names for each of the E entities.
    entity_embeddings
        (E, d) text embedding of each.
    top
        Entities to keep for each row.
    minimum
        Those below this cosine are left out; by default none.
    threads, dtype
        As in `pycurate.nearest`.

    Returns
    -------
    EntityLabels

    Raises
    ------
    InputError
        A value is not as above.

    References
    ----------
    Wu, Wang, Zhang et al.: MOFI: learning image representations from noisy entity annotated images (ICLR 2024).
    """
    check_count("top", top)
    known = names if isinstance(names, EntityNames) else EntityNames(names)
    rows, entities = Rows.of("x", x, dtype), Rows.of("entity_embeddings", entity_embeddings, None)
    if len(captions) != len(rows):
        raise InputError(f"captions: expected {len(rows)}, one for each row of x, got {len(captions)}")
    if len(entities) != known.count or entities.dimension != rows.dimension:
        raise InputError(
            f"entity_embeddings: expected shape ({known.count}, {rows.dimension}), got {entities.values.shape}"
        )
    texts = captions.to_pylist() if isinstance(captions, pa.Array | pa.ChunkedArray) else captions
    unjudged = ~rows.judged("cosine", threads) | np.fromiter((text is None for text in texts), bool, len(texts))
    parts = list(_scored(texts, ~unjudged, known, rows, entities, top, minimum, threads))
    indptr = np.zeros(len(rows) + 1, np.int64)
    found = [np.concatenate([p[i] for p in parts]) if parts else np.empty(0) for i in range(3)]
    np.cumsum(np.bincount(found[0].astype(np.int64), minlength=len(rows)), out=indptr[1:])
    return EntityLabels(
        indptr,
        found[1].astype(np.int32),
        found[2].astype(np.float32),
        sum(p[3] for p in parts),
        np.flatnonzero(unjudged),
    )


def _scored(
    texts: Sequence[str | None],
    judged: NDArray[np.bool_],
    names: EntityNames,
    rows: Rows,
    entities: Rows,
    top: int,
    minimum: float | None,
    threads: int | None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], int]]:
    """Rows, entities, similarities and the number of candidates, some captions at a time."""
    pair_rows: list[int] = []
    pair_entities: list[int] = []
    for row, text in enumerate(texts):
        if text is not None and judged[row]:
            found = names.in_caption(text)
            pair_rows += [row] * len(found)
            pair_entities += found
        if pair_rows and (len(pair_rows) >= _STEP_PAIRS or row == len(texts) - 1):
            yield _best(np.array(pair_rows), np.array(pair_entities), rows, entities, top, minimum, threads)
            pair_rows, pair_entities = [], []


def _best(
    row: NDArray[np.int64],
    entity: NDArray[np.int64],
    rows: Rows,
    entities: Rows,
    top: int,
    minimum: float | None,
    threads: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], int]:
    a, b = same_element(rows.take(row), entities.take(entity), threads)
    scores = pair_similarity(a.values, b.values, threads=threads, dtype=a.dtype)
    kept = np.flatnonzero(scores >= (-np.inf if minimum is None else np.float32(minimum)))  # not NaN
    kept = kept[np.lexsort((entity[kept], -scores[kept], row[kept]))]
    first = np.searchsorted(row[kept], row[kept], side="left")
    kept = kept[np.arange(len(kept)) - first < top]
    return row[kept], entity[kept], scores[kept], len(row)
