from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pycurate.errors import RecipeError
from pycurate.steps import Threshold, TopFraction
from pycurate.types import Block


def _shards(block: Any, scores: np.ndarray, cuts: list[int], uids: np.ndarray | None = None) -> list[Block]:
    """The same rows as shards a, b, c, ..., cut at ``cuts``."""
    edges = [0, *cuts, len(scores)]
    uids = np.arange(len(scores))[::-1] if uids is None else uids
    return [
        block(chr(ord("a") + i), s=scores[start:stop], uids=uids[start:stop])
        for i, (start, stop) in enumerate(pairwise(edges))
    ]


def _kept(made: Any) -> np.ndarray:
    return np.concatenate([made.keep[shard] for shard in sorted(made.keep)])


def _script(scores: np.ndarray, fraction: float) -> np.ndarray:
    """The public script's rule for a fraction, NaN sorted last as ``np.sort`` does."""
    n = int(len(scores) * fraction)
    if n >= len(scores):
        return ~np.isnan(scores)
    threshold = -np.sort(-scores)[n]
    return scores >= threshold


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fraction", [0.0005, 0.1, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_datacomp_ties_are_the_scripts(curate, block, dtype: type, fraction: float, missing: float) -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(0.25, 0.05, 1000).round(3).astype(dtype)  # many ties
    scores[generator.random(1000) < missing] = np.nan
    step = TopFraction(score="s", fraction=fraction, ties="datacomp", of_unjudged=True)
    made = curate([step], *_shards(block, scores, [10, 600]), block_rows=1000)
    np.testing.assert_array_equal(_kept(made), _script(scores, fraction))
    reasons = np.concatenate([made.reason[shard] for shard in "abc"])
    assert {reason for reason in reasons if reason} <= {"top_fraction", "top_fraction.unjudged"}
    np.testing.assert_array_equal(reasons == "top_fraction.unjudged", np.isnan(scores))


def test_a_row_without_score_at_the_datacomp_rank_keeps_nothing_and_says_so(curate, block) -> None:
    scores = np.float32([0.5, 0.4, np.nan, np.nan])
    step = TopFraction(score="s", fraction=0.5, ties="datacomp", of_unjudged=True)
    made = curate([step], block(s=scores))
    assert not made.keep["a"].any()
    assert "row 3 of 4 has no score, so nothing is in it" in step.rules(made.artefacts[0])[0].description


@pytest.mark.parametrize("of_unjudged", [False, True])
@pytest.mark.parametrize("fraction", [0.0005, 0.1, 0.34, 0.7, 0.95, 1.0])
def test_exact_keeps_n_rows_and_breaks_ties_by_uid(curate, block, fraction: float, of_unjudged: bool) -> None:
    generator = np.random.default_rng(2)
    scores = generator.integers(0, 12, 1000).astype(np.float32)
    scores[generator.random(1000) < 0.1] = np.nan
    uids = generator.permutation(1000)
    total = 1000 if of_unjudged else int((~np.isnan(scores)).sum())
    order = [row for row in np.lexsort((uids, -scores)).tolist() if not np.isnan(scores[row])]
    expected = np.zeros(1000, np.bool_)
    expected[order[: int(total * fraction)]] = True
    step = TopFraction(score="s", fraction=fraction, of_unjudged=of_unjudged)
    for cuts in ([], [1, 500, 999], [300]):
        made = curate([step.model_copy()], *_shards(block, scores, cuts, uids), block_rows=1000)
        np.testing.assert_array_equal(_kept(made), expected)


@pytest.mark.parametrize("unjudged", ["drop", "keep"])
def test_of_survivors_takes_the_top_of_what_earlier_steps_left(curate, block, unjudged: str) -> None:
    scores = np.float32([0.9, 0.8, 0.7, 0.6, np.nan, 0.5, 0.4, 0.3])
    other = np.float32([0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    rows = block(s=scores, other=other)
    steps = [Threshold(score="other", minimum=0.5), TopFraction(score="s", fraction=0.5, of="survivors")]
    steps[1] = steps[1].model_copy(update={"unjudged": unjudged})
    made = curate(steps, rows)
    # survivors with a score: 0.8, 0.6, 0.5, 0.4
    assert scores[made.keep["a"]][:2].tolist() == pytest.approx([0.8, 0.6])
    assert made.keep["a"][4] == (unjudged == "keep")
    assert made.keep["a"].sum() == 2 + (unjudged == "keep")


def test_of_pool_counts_rows_that_earlier_steps_dropped(curate, block) -> None:
    rows = block(s=np.float32([0.9, 0.8, 0.7, 0.6]), other=np.float32([0, 1, 1, 1]))
    made = curate([Threshold(score="other", minimum=0.5), TopFraction(score="s", fraction=0.5)], rows)
    assert made.keep["a"].tolist() == [False, True, False, False]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_copies_of_one_uid_are_kept_in_the_order_of_shard_and_row(curate, block, n: int) -> None:
    # Six rows of one uid and score in three shards; the second of them was dropped before.
    scores = np.float32([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    other = np.float32([1, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    uids = np.array([7, 7, 7, 7, 7, 7, 1, 2, 3, 4])
    shards = [
        block(shard, s=scores[part], other=other[part], uids=uids[part])
        for shard, part in (("a", slice(0, 3)), ("b", slice(3, 5)), ("c", slice(5, 10)))
    ]
    steps = [Threshold(score="other", minimum=0.5), TopFraction(score="s", fraction=n / 9 + 1e-9, of="survivors")]
    made = curate(steps, *reversed(shards))
    survivors = [0, 2, 3, 4, 5]
    expected = np.zeros(10, np.bool_)
    expected[survivors[:n]] = True
    np.testing.assert_array_equal(_kept(made), expected)


def test_nothing_to_judge_and_integer_columns(curate, block) -> None:
    none = curate([TopFraction(score="s", fraction=0.5)], block(s=np.float32([np.nan, np.nan])))
    assert not none.keep["a"].any()


def test_integers_are_scores_too(curate, block) -> None:
    made = curate([TopFraction(score="width", fraction=0.5)], block(width=[5, 9, 7, 2**53]))
    assert made.keep["a"].tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fraction": 0}, "top_fraction: fraction: expected greater than 0, got 0"),
        ({"fraction": 30}, "top_fraction: fraction: expected less than or equal to 1, got 30"),
        ({"fraction": 0.3, "of": "pol"}, "top_fraction: of: expected 'pool' or 'survivors', got 'pol'"),
        ({"fraction": 0.3, "tie": "exact"}, "unknown key 'tie'; did you mean 'ties'"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        TopFraction(score="s", **values)


def test_text_cannot_be_a_score(curate, block) -> None:
    from pycurate.steps import Language

    steps = [
        Language(languages=["x"], detector=lambda caption: "x", version=1),
        TopFraction(score="language", fraction=1),
    ]
    with pytest.raises(RecipeError, match="score 'language': expected a column of numbers"):
        curate(steps, block(caption=["a"]))
