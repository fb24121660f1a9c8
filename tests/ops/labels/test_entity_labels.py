from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pycurate.errors import InputError
from pycurate.kernels.rowwise import pair_similarity
from pycurate.ops.labels import entity_labels as module
from pycurate.ops.labels.entity_labels import EntityNames, entity_labels

NAMES = [["dog", "hound"], "hot dog", "Eiffel Tower", "café", "tower"]
CAPTIONS = [
    "A hot-dog, near the EIFFEL  tower!",
    "Hound & dog",
    None,
    "",
    "Cafe\u0301 terrace",
    "dogs only",
    "the tower, a dog, a café",
]


def test_entities_are_whole_words_and_all_that_overlap() -> None:
    names = EntityNames(NAMES)
    found = [names.in_caption(caption) for caption in CAPTIONS if caption is not None]
    assert found == [[0, 1, 2, 4], [0], [], [3], [], [0, 3, 4]]


@pytest.mark.parametrize("kind", [list, pa.array])
def test_candidates_are_ranked_by_their_image(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP_PAIRS", 2)
    random = np.random.default_rng(0)
    x = random.normal(size=(7, 4)).astype(np.float32)
    texts = random.normal(size=(5, 4)).astype(np.float16)
    x[1] = np.nan
    found = entity_labels(kind(CAPTIONS), x, NAMES, texts, top=2)
    wide = texts.astype(np.float32)
    for row, named in {0: [0, 1, 2, 4], 4: [3], 6: [0, 3, 4]}.items():
        scores = {e: float(pair_similarity(x[row : row + 1], wide[e : e + 1])[0]) for e in named}
        expected = sorted(scores, key=lambda e: -scores[e])[:2]
        part = slice(found.indptr[row], found.indptr[row + 1])
        assert found.entities[part].tolist() == expected
        np.testing.assert_array_equal(found.similarities[part], [np.float32(scores[e]) for e in expected])
        assert found.best[row] == expected[0]
    assert np.diff(found.indptr).tolist() == [2, 0, 0, 0, 1, 0, 2]
    assert found.unjudged.tolist() == [1, 2]
    assert found.candidates == 8
    none = entity_labels(CAPTIONS, x, NAMES, texts, minimum=1.5)
    assert len(none.entities) == 0
    assert (none.best == -1).all()
    assert len(entity_labels([], x[:0], NAMES, texts)) == 0


def test_bad_input_is_named() -> None:
    x = np.ones((2, 4), np.float32)
    with pytest.raises(InputError, match="names: entity 1 has a name without a word"):
        EntityNames(["a", "!!"])
    with pytest.raises(InputError, match="captions: expected 2"):
        entity_labels(["a"], x, ["a"], x[:1])
    with pytest.raises(InputError, match=r"entity_embeddings: expected shape \(1, 4\)"):
        entity_labels(["a", "b"], x, ["a"], x)
    with pytest.raises(InputError, match="top: expected"):
        entity_labels(["a", "b"], x, ["a"], x[:1], top=0)
