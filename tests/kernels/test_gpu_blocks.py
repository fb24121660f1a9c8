"""Joins on several GPUs and of rows larger than one: what the body of the joins' tests does not ask of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import gpu_grid, stand_in
from pycurate.kernels.gpu_grid import Matrix, Operand, block_rows_of
from pycurate.kernels.join import join_of
from pycurate.kernels.partial_answers import MostSimilar, decoded, keys_of

pytestmark = pytest.mark.usefixtures("two_gpus", "small_blocks")

GPUS = "cuda:0,1"


def rows(n: int, d: int = 24, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d)).astype(np.float32)
    x[n // 2 :] = x[: n - n // 2] + random.standard_normal((n - n // 2, d)).astype(np.float32) / 8
    return x


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
        return
    for name in theirs.__slots__:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@pytest.fixture
def with_little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A GPU whose free memory holds so many rows of 24 float32 a block."""

    def limit(block_rows: int) -> None:
        per_row = 4 * (24 * 4 + 64 + 200) + 544 + 2 * 16
        monkeypatch.setattr(gpu_grid, "_LEAST_ROWS", 1)
        monkeypatch.setattr(stand_in, "free_bytes", lambda gpu: int(((300 << 20) + (block_rows + 0.5) * per_row) / 0.9))

    return limit


QUESTIONS: dict[str, Callable[..., Any]] = {
    "pairs": lambda x, **how: pycurate.pairs_above(x, 0.9, **how),
    "components": lambda x, **how: pycurate.components_above(x, 0.9, **how),
    "forest": lambda x, **how: pycurate.spanning_forest_above(x, 0.5, **how),
    "counts": lambda x, **how: pycurate.count_above(x, 0.5, **how),
    "earlier": lambda x, **how: pycurate.most_similar_earlier(x, np.argsort(x[:, 0]), 0.2, **how),
    "nearest": lambda x, **how: pycurate.nearest(x, 7, **how),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("n", [0, 1, 47, 48, 49, 331])
def test_any_number_of_blocks_has_the_answer_of_the_cpu(question: str, n: int) -> None:
    x = rows(n)
    assert_same(QUESTIONS[question](x, device=GPUS), QUESTIONS[question](x))


@pytest.mark.parametrize("question", QUESTIONS)
def test_rows_larger_than_one_gpu_go_through_it_in_blocks(
    question: str, with_little_memory: Callable[[int], None]
) -> None:
    x = rows(200)
    expected = QUESTIONS[question](x)
    with_little_memory(60)
    join = join_of(x, None, "cosine", "exact", "skip", None, None, "cuda")
    assert isinstance(join.left.array, Matrix)
    assert block_rows_of(Operand(join.left.array, None, "cosine", "exact", None), None, 16) == 60
    assert_same(QUESTIONS[question](x, device="cuda"), expected)


def test_blocks_are_halved_where_memory_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(300)
    sizes = []

    class Scarce(stand_in.Operand):
        def __init__(self, matrix: Any, *more: Any) -> None:
            sizes.append(matrix.shape[0])
            if matrix.shape[0] > 40:
                raise MemoryError("CUDA failed while allocating memory on the device")
            super().__init__(matrix, *more)

    monkeypatch.setattr(gpu_grid, "_LEAST_ROWS", 1)
    monkeypatch.setattr(stand_in, "Operand", Scarce)
    assert_same(pycurate.pairs_above(x, 0.9, device=GPUS), pycurate.pairs_above(x, 0.9))
    assert max(sizes) > 40 >= min(sizes)


def test_a_gpu_without_any_room_is_said(with_little_memory: Callable[[int], None]) -> None:
    with_little_memory(-1)
    with pytest.raises(MemoryError, match=r"device: expected room for 4 blocks .*MiB are free; free some, or pass"):
        pycurate.pairs_above(rows(100), 0.9, device=GPUS)


def test_every_gpu_gets_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as one is busy the other takes what is next."""
    seen = set()
    both = threading.Barrier(2, timeout=20)
    upload = stand_in.Matrix.upload.__func__  # type: ignore[attr-defined]

    def spy(cls: type, x: Any, element: str, device: int, numbers: Any = None) -> Any:
        if device not in seen:
            seen.add(device)
            both.wait()  # neither goes on before both have come
        return upload(cls, x, element, device, numbers)

    monkeypatch.setattr(stand_in.Matrix, "upload", classmethod(spy))
    pycurate.pairs_above(rows(400), 0.9, device=GPUS)
    assert seen == {0, 1}


def test_what_fails_on_a_gpu_fails_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA failed while computing")

    monkeypatch.setattr(stand_in, "pairs_above", broken)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="CUDA failed while computing"):
        pycurate.pairs_above(rows(400), 0.9, device=GPUS)
    assert threading.active_count() == before


def test_progress_rises_and_an_error_in_it_ends_the_join() -> None:
    told: list[float] = []
    pycurate.nearest(rows(400), 3, device=GPUS, progress=told.append)
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1

    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        pycurate.nearest(rows(400), 3, device=GPUS, progress=stop)
    assert threading.active_count() == before


def test_more_pairs_than_allowed_are_noticed_across_blocks() -> None:
    x = rows(300)
    count = len(pycurate.pairs_above(x, 0.9).rows)
    assert len(pycurate.pairs_above(x, 0.9, max_pairs=count, device=GPUS).rows) == count
    with pytest.raises(ValueError, match="max_pairs"):
        pycurate.pairs_above(x, 0.9, max_pairs=count - 1, device=GPUS)


def test_two_matrices_that_differ_are_refused() -> None:
    x = Matrix(rows(9, 24), "float32", (0, 1))
    y = Matrix(rows(9, 25), "float32", (0, 1))
    a, b = (Operand(side, None, "cosine", "exact", None) for side in (x, y))
    with pytest.raises(InputError, match="b: expected an operand prepared like a"):
        gpu_grid.asked(a, b, 0, None, lambda grid: None)


def test_out_of_core_joins_use_several_gpus(tmp_path: Path) -> None:
    x = rows(500)
    ours = pycurate.similarity_join(x, tmp_path / "gpus", memory_bytes=200 << 20, device=GPUS)
    assert_same(ours.pairs_above(0.9), pycurate.pairs_above(x, 0.9))
    assert_same(ours.nearest(4), pycurate.nearest(x, 4))


def test_numbers_put_together_from_parts_keep_ties_to_the_lower() -> None:
    best = MostSimilar(3)
    for numbers, similarities in (([5, -1, -1], [0.5, np.nan, np.nan]), ([1, 7, -1], [0.5, -0.25, np.nan])):
        best.add(slice(0, 3), np.array(numbers), np.array(similarities, np.float32))
    found, near = best.answer()
    np.testing.assert_array_equal(found, [1, 7, -1])
    np.testing.assert_array_equal(near, np.array([0.5, -0.25, np.nan], np.float32))


def test_keys_keep_their_numbers_and_order() -> None:
    similarities = np.array([-np.inf, -1, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1, np.inf], np.float32)
    keys = keys_of(np.arange(9), similarities)
    falling = np.argsort(keys)[::-1]
    np.testing.assert_array_equal(falling, [8, 7, 6, 5, 3, 4, 2, 1, 0])  # of equal ones the lower number first
    numbers, near = decoded(keys)
    np.testing.assert_array_equal(numbers, np.arange(9))
    np.testing.assert_array_equal(near, similarities)
    np.testing.assert_array_equal(keys_of(np.array([-1]), np.array([np.nan], np.float32)), [0])
    assert decoded(keys_of(np.array([(1 << 32) - 2]), similarities[:1]))[0] == (1 << 32) - 2
