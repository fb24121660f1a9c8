from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pycurate.errors import RecipeError
from pycurate.steps import CaptionRules, ClipScore, Filter, ImageRules, Threshold


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inclusive", [True, False])
def test_threshold_equals_a_pandas_comparison(curate, block, dtype: type, inclusive: bool) -> None:
    scores = np.array([0.1, 0.28, 0.3, np.nan, np.inf, -np.inf, 0.2799999, 0.2800001], dtype)
    scores = np.append(scores, dtype(0.28))
    column = pd.Series(scores)
    plain = (column >= 0.28) & (column <= 0.3) if inclusive else (column > 0.28) & (column < 0.3)
    made = curate([Threshold(score="s", minimum=0.28, maximum=0.3, inclusive=inclusive)], block(s=scores))
    np.testing.assert_array_equal(made.keep["a"], plain)
    assert made.reason["a"][:1].tolist() == ["threshold.minimum"]
    assert made.reason["a"][4] == "threshold.maximum"
    assert made.reason["a"][3] == "threshold.unjudged"
    assert made.value["a"][0] == scores[0]


def test_threshold_over_integers_and_nulls(curate, block) -> None:
    made = curate([Threshold(score="width", minimum=200)], block(width=[199, 200, None, 2**40]))
    assert made.keep["a"].tolist() == [False, True, False, True]
    assert made.reason["a"].tolist() == ["threshold", None, "threshold.unjudged", None]


def test_threshold_keeps_the_unjudged_when_told(curate, block) -> None:
    made = curate([Threshold(score="s", minimum=0.5, unjudged="keep")], block(s=[0.1, None, 0.9]))
    assert made.keep["a"].tolist() == [False, True, True]


def test_filter_keeps_true_drops_false_and_cannot_judge_null(curate, block) -> None:
    rows = block(width=[100, 300, None, 300], caption=["a", "b", "c", None])
    made = curate([Filter(expression="width >= 200 and caption is not null")], rows, block_rows=1)
    assert made.keep["a"].tolist() == [False, True, False, False]
    assert made.reason["a"].tolist() == ["filter", None, "filter.unjudged", "filter"]


def test_filter_sees_scores_of_earlier_steps(curate, block) -> None:
    steps = [
        CaptionRules(min_words=1),
        ClipScore(column="stored", as_="clip"),
        Filter(expression='"caption_rules.words" = 2 and clip >= 0.5 and stored < 1'),
    ]
    made = curate(steps, block(caption=["a b", "a b", "a", "a b"], stored=[0.7, 0.2, 0.7, np.nan]))
    assert made.keep["a"].tolist() == [True, False, False, False]
    assert made.reason["a"][3] == "filter.unjudged"


def _plain_basic(frame: pd.DataFrame) -> np.ndarray:
    """The caption and image rules of the public script's basic filter, on a pandas frame."""
    words = frame.text.apply(lambda text: len(text.split()))
    chars = frame.text.apply(len)
    shorter = np.minimum(frame.original_width, frame.original_height)
    longer = np.maximum(frame.original_width, frame.original_height)
    with np.errstate(all="ignore"):
        aspect = longer / shorter
    return ((words > 2) & (chars > 5) & (shorter >= 200) & (aspect <= 3.0)).to_numpy()


def test_caption_and_image_rules_equal_the_basic_filter(curate, block) -> None:
    generator = np.random.default_rng(0)
    rows = 3000
    words = ["", "a", "dog", "\u00a0", "\u3000", "ein", "京都", "\n", "\t"]
    text = [" ".join(generator.choice(words, generator.integers(0, 6))) for _ in range(rows)]
    sizes = np.array([0, 1, 66, 67, 199, 200, 201, 599, 600, 601, 5000])
    width, height = generator.choice(sizes, (2, rows))
    frame = pd.DataFrame({"text": text, "original_width": width, "original_height": height})
    steps = [CaptionRules(min_words=3, min_chars=6), ImageRules(min_side=200, max_aspect=3.0)]
    rows_made = block(caption=text, original_width=width, original_height=height)
    made = curate(steps, rows_made, block_rows=700)
    plain = _plain_basic(frame)
    assert 0 < plain.sum() < rows / 2
    np.testing.assert_array_equal(made.keep["a"], plain)


def test_the_first_broken_rule_is_the_reason_and_missing_values_are_unjudged(curate, block) -> None:
    rows = block(caption=["a b c d", "abc", "a b c d e f", None, "a b c"])
    made = curate([CaptionRules(min_words=2, max_words=5, max_chars=6)], rows)
    assert made.reason["a"].tolist() == [
        "caption_rules.max_chars",
        "caption_rules.min_words",
        "caption_rules.max_words",
        "caption_rules.unjudged",
        None,
    ]
    assert made.value["a"][:3].tolist() == [7, 1, 6]


def test_image_rules_drop_what_breaks_a_rule_even_where_another_size_is_missing(curate, block) -> None:
    rows = block(
        original_width=[100, 300, None, 0, 601],
        original_height=[300, 300, 300, 0, 200],
        image_bytes=[None, None, 9000, 9000, 9000],
    )
    made = curate([ImageRules(min_side=200, max_aspect=3, min_bytes=5000)], rows)
    assert made.reason["a"].tolist() == [
        "image_rules.min_side",
        "image_rules.unjudged",
        "image_rules.unjudged",
        "image_rules.min_side",
        "image_rules.max_aspect",
    ]


def test_exclusive_bounds_are_those_of_align(curate, block) -> None:
    rows = block(original_width=[200, 201, 603, 604], original_height=[200, 201, 201, 202])
    made = curate([ImageRules(min_side=200, max_aspect=3, inclusive=False)], rows)
    assert made.keep["a"].tolist() == [False, True, False, True]


def test_caption_script_and_word_list(curate, block, tmp_path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("代购\n\nCheap\n", encoding="utf-8")
    rows = block(caption=["京都", "plain", "京都 代购", "京都 cheap", None])
    made = curate([CaptionRules(script="Han", word_list=str(words))], rows)
    assert made.reason["a"].tolist() == [
        None,
        "caption_rules.script",
        "caption_rules.word_list",
        "caption_rules.word_list",
        "caption_rules.unjudged",
    ]


def test_a_changed_bound_leaves_the_stored_measures_alone(tmp_path) -> None:
    few, many = CaptionRules(min_words=2), CaptionRules(min_words=9)
    assert few.score_parameters() == many.score_parameters()
    assert few.produces() == many.produces()
    words = tmp_path / "words.txt"
    words.write_text("a")
    before = CaptionRules(word_list=str(words)).score_parameters()
    words.write_text("b")
    assert CaptionRules(word_list=str(words)).score_parameters() != before


def test_clip_score_passes_a_stored_column_on_in_its_precision(curate, block) -> None:
    column = pa.array([0.25, None, 0.5], pa.float32())
    made = curate([ClipScore(column="stored", as_="clip")], block(stored=column))
    assert made.scores["a"]["clip"].dtype == np.float32
    np.testing.assert_array_equal(made.scores["a"]["clip"], np.float32([0.25, np.nan, 0.5]))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Threshold(score="s"), "threshold: expected minimum, maximum or both"),
        (lambda: Threshold(score="s", minimum=1, maximum=0), "threshold: minimum 1 is above maximum 0"),
        (lambda: Threshold(minimum=1), "threshold: score is missing"),
        (lambda: Threshold(score="s", minimun=1), "threshold: unknown key 'minimun'; did you mean 'minimum'"),
        (lambda: Threshold(score="s", minimum="x"), "threshold: minimum: expected a valid number.*got 'x'"),
        (lambda: Threshold(score="s", minimum=float("nan")), "threshold: minimum: expected a finite number, got nan"),
        (lambda: Threshold(score="s", minimum=1, unjudged="kepp"), "threshold: unjudged: expected 'drop', 'keep'"),
        (lambda: Threshold(score="s", minimum=1, name="a.b"), "threshold: name: expected letters, digits"),
        (lambda: CaptionRules(), "caption_rules: expected at least one of: min_words"),
        (lambda: CaptionRules(min_words=-1), "caption_rules: min_words: expected greater than or equal to 0, got -1"),
        (lambda: CaptionRules(script="Klingon"), "caption_rules: script: expected a Unicode script, such as Han"),
        (lambda: ImageRules(), "image_rules: expected at least one of: min_side"),
        (lambda: ImageRules(max_aspect=0.5), "image_rules: max_aspect: expected greater than or equal to 1"),
        (lambda: Filter(expression="1 = 1"), "filter: expression: '1 = 1' names no column"),
        (lambda: Filter(expression="sum(a) > 1"), r"filter: expression: .*sum\(\) is an aggregate"),
        (lambda: ClipScore(), "clip_score: expected exactly one of: embeddings, image and text together, column"),
        (lambda: ClipScore(image="a"), "clip_score: expected exactly one of"),
        (lambda: ClipScore(embeddings="l14", column="c"), "clip_score: expected exactly one of"),
    ],
)
def test_a_wrong_key_or_value_is_named(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make()
