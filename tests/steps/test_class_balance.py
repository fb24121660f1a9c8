from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import pycurate
from pycurate.errors import RecipeError
from pycurate.ops.selection.balance import class_caps, water_filling
from pycurate.ops.selection.uid_draws import uid_keys
from pycurate.reference import balance as reference
from pycurate.steps import ClassBalance, Threshold
from pycurate.types import UID_DTYPE, Block


def shards_of(block: Any, cuts: list[int], n: int, **columns: np.ndarray) -> list[Block]:
    return [
        block(chr(ord("a") + i), **{name: values[start:stop] for name, values in columns.items()})
        for i, (start, stop) in enumerate(pairwise([0, *cuts, n]))
    ]


def kept(made: Any) -> np.ndarray:
    return np.concatenate([made.keep[shard] for shard in sorted(made.keep)])


def pool(n: int = 600) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.zipf(1.5, n).clip(0, 20) - 1
    labels[random.random(n) < 0.05] = -1
    scores = random.integers(0, 9, n).astype(np.float32)
    scores[random.random(n) < 0.05] = np.nan
    return {"label": labels, "s": scores, "uids": random.permutation(n)}


def uids_of(numbers: np.ndarray) -> np.ndarray:
    made = np.zeros(len(numbers), UID_DTYPE)
    made["f1"] = numbers
    return made


@pytest.mark.parametrize("by_score", [False, True])
@pytest.mark.parametrize(
    "budget", [{"cap": 7}, {"cap": 10_000}, {"total": 90}, {"total": 90, "floor": 4}, {"total": 10_000}]
)
def test_it_keeps_the_rows_of_its_definition(curate, block, budget: dict[str, int], by_score: bool) -> None:
    columns = pool()
    labels, scores = columns["label"], columns["s"]
    if by_score:
        keys: list[Any] = [None if value != value else -value for value in scores.tolist()]
    else:
        keys = uid_keys(uids_of(columns["uids"]), 4).tolist()
    names = sorted({int(label) for label, key in zip(labels, keys, strict=True) if label >= 0 and key is not None})
    counts = [sum(int(lab) == c and key is not None for lab, key in zip(labels, keys, strict=True)) for c in names]
    if "cap" in budget:
        quotas = [budget["cap"]] * len(names)
    else:
        quotas, _ = reference.water_filling(counts, budget["total"], [budget.get("floor", 0)] * len(names))
    caps = dict(zip(names, quotas, strict=True))
    expected = np.array(reference.class_caps(labels.tolist(), caps, keys, columns["uids"].tolist()))
    step = ClassBalance(label="label", seed=4, score="s" if by_score else None, **budget)
    for cuts in ([], [1, 250, 599], [300]):
        for memory_bytes in (64 << 20, 20_000):
            shards = shards_of(block, cuts, len(labels), **columns)
            made = curate([step.model_copy()], *shards[::-1], block_rows=100, memory_bytes=memory_bytes)
            np.testing.assert_array_equal(kept(made), expected)
    reasons = np.concatenate([made.reason[shard] for shard in sorted(made.reason)])
    unjudged = (labels < 0) | (np.isnan(scores) if by_score else False)
    np.testing.assert_array_equal(reasons == "class_balance.unjudged", unjudged)
    assert {reason for reason in reasons if reason} <= {"class_balance", "class_balance.unjudged"}
    assert made.artefacts[0]["kept"] == expected.sum()


def test_it_is_class_caps_of_the_whole_pool(curate, block) -> None:
    columns = pool()
    step = ClassBalance(label="label", total=100, seed=2)
    made = curate([step], *shards_of(block, [77, 400], 600, **columns), block_rows=50)
    labels = columns["label"]
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    found = class_caps(labels, water_filling(counts, 100).quotas, uids=uids_of(columns["uids"]), seed=2)
    np.testing.assert_array_equal(kept(made), found.keep)


@pytest.mark.parametrize("of", ["survivors", "pool"])
def test_rows_that_an_earlier_step_dropped_do_not_fill_a_class_unless_asked(curate, block, of: Any) -> None:
    rows = block(
        label=np.array([1, 1, 1, 1, 2]), s=np.float32([0.9, 0.8, 0.7, 0.6, 0.1]), other=np.float32([0, 1, 1, 1, 1])
    )
    steps = [Threshold(score="other", minimum=0.5), ClassBalance(label="label", cap=2, score="s", of=of)]
    expected = [False, True, of == "survivors", False, True]
    assert curate(steps, rows).keep["a"].tolist() == expected


def test_labels_of_floats_with_missing_ones_are_whole_numbers_or_refused(curate, block) -> None:
    made = curate([ClassBalance(label="label", cap=1)], block(label=np.float32([3, 3, np.nan, 4, -1])))
    assert made.keep["a"].sum() == 2
    assert made.reason["a"][2] == made.reason["a"][4] == "class_balance.unjudged"
    with pytest.raises(
        RecipeError, match=r"class_balance: label 'label': expected whole numbers, got float32 with others"
    ):
        curate([ClassBalance(label="label", cap=1)], block(label=np.float32([3, 3.5])))


def test_text_is_a_class_by_its_hash(curate, block) -> None:
    columns = pool()
    texts = np.array(["dog", "cat", "", "  ", "emu"], object)[columns["label"].clip(-1, 3) + 1]
    texts[::50] = None
    names = [text if text and text.strip() else None for text in texts]
    keys = uid_keys(uids_of(columns["uids"]), 0).tolist()
    caps = dict.fromkeys(("dog", "cat", "emu"), 5)
    expected = np.array(reference.class_caps(names, caps, keys, columns["uids"].tolist()))
    step = ClassBalance(label="name", text=True, cap=5, name="even")
    shards = shards_of(block, [200], 600, name=texts, uids=columns["uids"])
    made = curate([step], *shards, block_rows=64)
    np.testing.assert_array_equal(kept(made), expected)
    assert expected.sum() == 15
    assert step.produces() == ("even.class",)
    assert made.reason["a"][0] == "even.unjudged"
    assert np.isnan(made.value["a"]).all()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"label": "text"}, "step 'class_balance': label 'text' is a column of string; set text: true"),
        (
            {"label": "original_width", "text": True},
            "'original_width' is a column of int64; leave text out for numbers",
        ),
    ],
)
def test_the_type_of_the_column_is_checked_before_anything_runs(
    pool_factory, tmp_path, parameters: dict[str, Any], sentence: str
) -> None:
    path = pool_factory.datacomp(tmp_path / "pool", 1, 20)
    recipe = pycurate.Recipe(name="r", steps=[ClassBalance(cap=3, **parameters)])
    with pytest.raises(RecipeError, match=sentence):
        pycurate.run(recipe, path, tmp_path / "out")


def test_a_run_over_text_and_numbers(pool_factory, tmp_path) -> None:
    path = pool_factory.datacomp(tmp_path / "pool", 3, 40, text=["cat", "dog", "dog", "emu"] * 30)
    steps = [ClassBalance(label="text", text=True, total=50, name="words"), ClassBalance(label="original_width", cap=1)]
    made = pycurate.run(pycurate.Recipe(name="r", steps=steps), path, tmp_path / "out")
    assert made.manifest.steps[0].kept == 50
    assert "at most 16 rows of each text, 50 in all" in made.manifest.steps[0].rules[0].description


def test_the_rule_says_what_was_done(curate, block) -> None:
    step = ClassBalance(label="label", cap=2, unjudged="keep")
    made = curate([step], block(label=np.array([5, 5, 5, 9, -1])))
    assert made.keep["a"].sum() == 4
    rules = step.rules(made.artefacts[0])
    assert rules[0].description == (
        "at most 2 rows of each label (drawn by uid); 1 of 2 classes have more; effective classes 1.755, then 1.89"
    )
    assert rules[1].description == "label is negative or missing"
    assert made.value["a"][np.flatnonzero(~made.keep["a"])].tolist() == [5]


def test_nothing_to_balance(curate, block) -> None:
    step = ClassBalance(label="label", total=3)
    made = curate([step], block(label=np.array([-1, -1])))
    assert not made.keep["a"].any()
    assert "0 of 0 classes" in step.rules(made.artefacts[0])[0].description


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"label": "l"}, "class_balance: expected one of cap and total"),
        ({"label": "l", "cap": 3, "total": 4}, "class_balance: expected one of cap and total"),
        ({"label": "l", "cap": 3, "floor": 4}, "floor goes with total"),
        ({"label": "l", "cap": 0}, "cap: expected greater than or equal to 1, got 0"),
        ({"cap": 3}, "label is missing"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        ClassBalance(**parameters)
