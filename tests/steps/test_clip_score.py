from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pycurate.reference import rowwise as reference
from pycurate.steps import ClipScore, Filter, Threshold, TopFraction

REASONS = {
    3: b"image embedding is zero",
    4: b"text embedding is zero",
    5: b"image embedding is not finite",
    6: b"text embedding is not finite",
    7: b"image embedding is not finite",
}


@pytest.fixture
def pair() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    image, text = generator.normal(size=(2, 40, 33)).astype(np.float16)
    image[3] = 0
    text[4] = 0
    image[5, 7] = np.nan
    text[6, 1] = np.inf
    image[7] = np.nan
    text[7] = 0
    return {"l14_img": image, "l14_txt": text}


def test_the_score_is_the_canonical_cosine(curate: Callable[..., Any], block: Any, pair: dict[str, Any]) -> None:
    made = curate([ClipScore(embeddings="l14", as_="clip")], block(**pair), block_rows=7).scores["a"]
    assert made["clip"].dtype == np.float32
    assert made["clip.flags"].dtype == np.uint8
    expected = reference.pair_similarity(pair["l14_img"], pair["l14_txt"], "cosine")
    np.testing.assert_array_equal(made["clip"], expected)
    judged = ~np.isin(np.arange(40), list(REASONS))
    np.testing.assert_array_equal(made["clip.flags"] == 0, judged)
    wide = {name: values.astype(np.float64)[judged] for name, values in pair.items()}
    plain = (wide["l14_img"] * wide["l14_txt"]).sum(1)
    plain /= np.linalg.norm(wide["l14_img"], axis=1) * np.linalg.norm(wide["l14_txt"], axis=1)
    np.testing.assert_allclose(made["clip"][judged], plain, rtol=0, atol=1e-6)  # float32 sums of 33 terms


def test_bfloat16_embeddings_come_as_uint16(curate: Any, block: Any, pair: dict[str, Any]) -> None:
    judged = ~np.isin(np.arange(40), list(REASONS))
    wide = {name: values[judged].astype(np.float32) for name, values in pair.items()}
    halves = {name: (values.view(np.uint32) >> 16).astype(np.uint16) for name, values in wide.items()}
    cut = {name: (values.astype(np.uint32) << 16).view(np.float32) for name, values in halves.items()}
    made = curate([ClipScore(embeddings="l14", as_="clip")], block(**halves)).scores["a"]
    np.testing.assert_array_equal(made["clip"], reference.pair_similarity(cut["l14_img"], cut["l14_txt"], "cosine"))
    assert not made["clip.flags"].any()


@pytest.mark.parametrize(
    "decide",
    [
        Threshold(score="clip", minimum=-2),
        Threshold(score="clip", minimum=-2, maximum=2),
        TopFraction(score="clip", fraction=1),
    ],
)
def test_rows_that_cannot_be_judged_say_why(curate: Any, block: Any, pair: dict[str, Any], decide: Any) -> None:
    made = curate([ClipScore(image="l14_img", text="l14_txt", as_="clip"), decide], block(**pair))
    dropped = {int(row): made.detail["a"][row] for row in np.flatnonzero(~made.keep["a"])}
    assert dropped == REASONS
    assert {made.reason["a"][row] for row in REASONS} == {f"{decide.kind}.unjudged"}


def test_a_column_of_the_pool_says_no_more_than_that_it_is_missing(curate: Any, block: Any) -> None:
    made = curate([Threshold(score="stored", minimum=0)], block(stored=[0.5, None]))
    assert made.detail["a"].tolist() == [None, None]
    assert made.reason["a"][1] == "threshold.unjudged"


def test_the_flags_can_be_filtered_on(curate: Any, block: Any, pair: dict[str, Any]) -> None:
    steps = [ClipScore(embeddings="l14", as_="clip"), Filter(expression='"clip.flags" & 10 = 0')]
    made = curate(steps, block(**pair))
    assert np.flatnonzero(~made.keep["a"]).tolist() == [3, 4, 7]
