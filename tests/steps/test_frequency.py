from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pycurate.errors import RecipeError
from pycurate.ops.text.row_keys import normalise_caption
from pycurate.steps import Frequency, Threshold


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("max_rows", [1, 3, 10])
def test_values_in_too_many_rows_are_dropped_over_all_shards(curate, block, max_rows: int, normalise: bool) -> None:
    generator = np.random.default_rng(0)
    captions = [f"{'Dog' if n % 2 else 'dog '} {n // 2}" for n in generator.zipf(1.5, 900) % 200]
    captions = [None if n % 50 == 0 else caption for n, caption in enumerate(captions)]
    key = normalise_caption if normalise else str
    counts = Counter(key(caption) for caption in captions if caption is not None)
    expected = [caption is not None and counts[key(caption)] <= max_rows for caption in captions]
    assert 0 < sum(expected) < len(expected) - 18
    shards = [block(shard, caption=captions[i * 300 : (i + 1) * 300]) for i, shard in enumerate("abc")]
    made = curate([Frequency(key="caption", max_rows=max_rows, normalise=normalise)], *shards, block_rows=70)
    assert np.concatenate([made.keep[shard] for shard in "abc"]).tolist() == expected
    reasons = np.concatenate([made.reason[shard] for shard in "abc"])
    values = np.concatenate([made.value[shard] for shard in "abc"])
    for caption, reason, value in zip(captions, reasons, values, strict=True):
        if caption is None:
            assert reason == "frequency.unjudged"
        elif reason:
            assert value == counts[key(caption)]


def test_counts_are_of_the_pool_whatever_was_dropped_before(curate, block) -> None:
    rows = block(caption=["a", "a", "b"], s=[0.0, 1.0, 1.0])
    made = curate([Threshold(score="s", minimum=0.5), Frequency(key="caption", max_rows=1)], rows)
    assert made.keep["a"].tolist() == [False, False, True]


def test_short_names_stand_for_columns(curate, block) -> None:
    rows = block(sha256=["x", "x", "y"], url=["1", "2", "2"], host=["h", "i", "j"])
    steps = [Frequency(key=key, max_rows=1, name=key) for key in ("image", "url", "host")]
    made = curate(steps, rows)
    assert made.reason["a"].tolist() == ["image", "image", "url"]


def test_no_frequent_value_and_no_value_at_all(curate, block) -> None:
    made = curate([Frequency(key="caption", max_rows=1)], block(caption=["a", "b"]))
    assert made.keep["a"].all()
    assert len(made.artefacts[0]["keys"]) == 0


def test_rows_without_a_value_may_be_kept_and_never_count_as_equal(curate, block) -> None:
    rows = block(url=["x", None, None, None])
    made = curate([Frequency(key="url", max_rows=1, unjudged="keep")], rows)
    assert made.keep["a"].all()


def test_max_rows_changes_the_fit_and_not_the_keys() -> None:
    few, many = Frequency(key="url", max_rows=1), Frequency(key="url", max_rows=2)
    assert few.score_parameters() == many.score_parameters()
    assert few.fit_parameters() != many.fit_parameters()


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(RecipeError, match="frequency: max_rows: expected greater than or equal to 1, got 0"):
        Frequency(key="url", max_rows=0)
