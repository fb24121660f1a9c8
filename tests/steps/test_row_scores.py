from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from pycurate.errors import InputError, RecipeError
from pycurate.recipes import Recipe
from pycurate.steps import ClipScore, Language, RowScores, Threshold


def first_coordinate(rows: dict[str, np.ndarray]) -> np.ndarray:
    return rows["l14_img"][:, 0].astype(np.float32)


def weighted(embedding: Any, score: Any) -> Any:
    total = 0.0
    for x in embedding:
        total += x
    return total * score


EMBEDDINGS = np.arange(20, dtype=np.float16).reshape(5, 4)


def test_a_function_over_blocks_is_a_score(curate, block) -> None:
    steps = [RowScores(name="first", version=1, function=first_coordinate, embeddings=["l14_img"])]
    made = curate([*steps, Threshold(score="first", minimum=8)], block(l14_img=EMBEDDINGS))
    assert made.keep["a"].tolist() == [False, False, True, True, True]


def test_inputs_are_columns_and_earlier_scores(curate, block) -> None:
    seen: list[dict[str, np.ndarray]] = []

    def function(rows: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(rows)
        return rows["clip"] + rows["width"]

    rows = block(width=[1, None, 3], text=["a", None, "c"], tags=[["x"], ["y", "z"], None], stored=[0.5, 0.5, 0.5])
    steps = [
        ClipScore(column="stored", as_="clip"),
        RowScores(name="sum", version=1, function=function, inputs=["clip", "width", "text", "tags"]),
    ]
    made = curate(steps, rows, block_rows=3)
    np.testing.assert_array_equal(made.scores["a"]["sum"], [1.5, np.nan, 3.5])
    assert seen[0]["text"].tolist() == ["a", None, "c"]
    assert seen[0]["tags"].tolist() == [["x"], ["y", "z"], None]


def test_numba_compiles_a_function_of_one_row(curate, block) -> None:
    steps = [
        RowScores(name="w", version=1, function=weighted, embeddings=["l14_img"], inputs=["s"], numba=True),
    ]
    made = curate(steps, block(l14_img=EMBEDDINGS, s=[1.0, 2.0, np.nan, 0.5, 0.0]), block_rows=2)
    expected = EMBEDDINGS.astype(np.float64).sum(1) * [1.0, 2.0, np.nan, 0.5, 0.0]
    np.testing.assert_array_equal(made.scores["a"]["w"], expected)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda rows: [1.0, 2.0], "expected a NumPy array, got list"),
        (lambda rows: np.zeros(1), r"expected shape \(2,\), one score a row, got \(1,\)"),
        (lambda rows: np.zeros((2, 1)), r"expected shape \(2,\), one score a row, got \(2, 1\)"),
        (lambda rows: np.zeros(2, np.int64), "expected float32 or float64, got int64; convert it"),
    ],
)
def test_what_the_function_returns_is_checked(curate, block, function: Any, sentence: str) -> None:
    step = RowScores(name="mine", version=1, function=function, inputs=["x"])
    with pytest.raises(InputError, match=f"step 'mine': .*shard a, from row 0.: {sentence}"):
        curate([step], block(x=[1, 2]))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"version": 1, "inputs": ["x"]}, "row_scores: name is missing"),
        ({"name": "n", "inputs": ["x"]}, "row_scores: version is missing"),
        ({"name": "n", "version": 1}, "row_scores: expected inputs, embeddings or both"),
        ({"name": "n", "version": 1, "inputs": list("abcd"), "numba": True}, "expected at most 3 inputs"),
        ({"name": "n", "version": "one", "inputs": ["x"]}, "row_scores: version: expected a valid integer"),
    ],
)
def test_name_and_version_are_required(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        RowScores(function=first_coordinate, **values)


def test_a_new_version_is_another_score() -> None:
    one, two = (
        RowScores(name="n", version=v, function=first_coordinate, embeddings=["e"]).score_parameters() for v in (1, 2)
    )
    assert one != two


def test_a_function_by_name_travels_to_worker_processes(block) -> None:
    step = RowScores(name="n", version=1, function="numpy:asarray", inputs=["x"])
    assert step.python_bound
    assert not step.stays_in_process
    assert pickle.loads(pickle.dumps(step)) == step
    with pytest.raises(InputError, match=r"expected shape \(1,\), one score a row"):
        step.score(block(x=[1.0]))


def test_a_function_that_only_this_process_has_keeps_the_run_in_it() -> None:
    def step(function: Any, **more: Any) -> RowScores:
        return RowScores(name="n", version=1, function=function, inputs=["x"], **more)

    assert step(lambda rows: rows["x"]).stays_in_process
    assert not step(np.asarray).stays_in_process
    language = Language(languages=["en"])
    assert Recipe(name="x", steps=[language]).uses_processes
    assert Recipe(name="x", steps=[language, step(np.asarray)]).uses_processes
    assert not Recipe(name="x", steps=[language, step(lambda rows: rows["x"])]).uses_processes
    assert not Recipe(name="x", steps=[step(weighted, numba=True)]).uses_processes
