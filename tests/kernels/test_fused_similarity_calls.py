"""How the functions of fused similarity are called: kinds of arrays, policies, limits, errors, progress, Ctrl-C."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate import _core
from pycurate.errors import InputError
from pycurate.kernels import fused_similarity
from pycurate.kernels.arrays import matrix_of
from pycurate.kernels.fused_similarity import (
    components_above,
    count_above,
    log_sum_exp,
    most_similar_earlier,
    nearest,
    pairs_above,
    unjudged_rows,
)
from pycurate.kernels.spanning_forest import heaviest_forest, spanning_forest_above
from pycurate.reference import rowwise

ELEMENTS = ["float16", "bfloat16", "float32", "int8"]

Rows = NDArray[Any]


def options(x: object) -> dict[str, Any]:
    """How to call a function on ``x``: bfloat16 is held as uint16 here, unless its type says what it is."""
    return {"dtype": "bfloat16" if isinstance(x, np.ndarray) and x.dtype == np.uint16 else None}


def make_rows(element: str) -> Rows:
    """48 rows of 5 elements; row 7 is a copy of row 3 and row 9 is zero."""
    x = np.random.default_rng(0).standard_normal((48, 5), dtype=np.float32)
    x[7], x[9] = x[3], 0
    if element == "int8":
        return np.rint(x * 30).astype(np.int8)
    return x if element == "float32" else rowwise.narrow(x, element)


def answers(x: Any) -> list[NDArray[Any]]:
    given = options(x)
    pairs, found = pairs_above(x, 0.5, **given), nearest(x, 3, x, "l2", **given)
    earlier = most_similar_earlier(x, np.arange(len(x))[::-1], 0.2, **given)
    return [
        *(pairs.rows, pairs.cols, pairs.similarities, pairs.copy_of, pairs.unjudged),
        *(found.indices, found.similarities, earlier.indices, earlier.similarities),
        components_above(x, 0.5, **given),
        count_above(x, 0.5, x, **given),
        log_sum_exp(x, x, 3, **given).cols,
        unjudged_rows(x, **given),
    ]


def assert_same_answers(x: Any, expected: Rows) -> None:
    assert len(pairs_above(expected, 0.5, **options(expected)).rows) > 10
    for actual, right in zip(answers(x), answers(expected), strict=True):
        np.testing.assert_array_equal(actual, right)


@pytest.mark.parametrize("element", ELEMENTS)
def test_a_memory_map_stays_one(element: str, tmp_path: Path) -> None:
    x = make_rows(element)
    np.save(tmp_path / "rows.npy", x)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert np.shares_memory(matrix_of("x", mapped, **options(x))[0], mapped)
    assert_same_answers(mapped, x)


@pytest.mark.parametrize("element", ELEMENTS)
def test_torch_tensors_are_read_in_place(element: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = make_rows(element)
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if element == "bfloat16" else torch.from_numpy(x)
    array, name = matrix_of("x", tensor, None)
    assert name == element
    assert array.ctypes.data == tensor.data_ptr()
    assert_same_answers(tensor, x)
    assert_same_answers(tensor[::2], x[::2])


class OnAnotherDevice:
    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("not to be asked for")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 10, 0  # of AMD


def test_torch_tensors_that_cannot_be_shared_are_named() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.zeros((3, 4))
    with pytest.raises(TypeError, match=r"x: expected .* got dtype float64; .*astype\(numpy\.float32\)"):
        pairs_above(x.double(), 0.5)
    with pytest.raises(TypeError, match=r"x: expected an array or tensor that DLPack can share .* got Parameter"):
        pairs_above(torch.nn.Parameter(x), 0.5)
    with pytest.raises(TypeError, match="y: expected float32 to match x, got bfloat16"):
        pairs_above(x, 0.5, x.bfloat16())
    with pytest.raises(ValueError, match=r"x: expected a tensor in CPU memory, .* pass x\.cpu"):
        pairs_above(OnAnotherDevice(), 0.5)
    with pytest.raises(TypeError, match=r"x: expected an array or tensor that DLPack can share .*meta"):
        pairs_above(torch.zeros((3, 4), device="meta"), 0.5)


def test_bfloat16_of_ml_dtypes_is_taken_as_it_is() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    x = make_rows("bfloat16")
    assert_same_answers(x.view(ml_dtypes.bfloat16), x)


def test_a_hundred_thousand_identical_rows_cost_memory_for_the_answer_only() -> None:
    n, k = 100_000, 4
    x = np.ones((n, 8), np.float16)
    x[-1] = -1
    tracemalloc.start()
    found = nearest(x, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.indices[5:-1], np.tile(np.arange(k), (n - 6, 1)))
    np.testing.assert_array_equal(found.indices[[0, 2, n - 1]], [[1, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3]])
    np.testing.assert_array_equal(found.similarities[-1], np.full(k, -1, np.float32))
    assert peak < 40 * 12 * n * k  # a pair of the clump would be 10^10 times that
    pairs = pairs_above(x, 0.9)
    assert len(pairs.rows) == 0
    assert np.count_nonzero(pairs.copy_of == 0) == n - 2
    np.testing.assert_array_equal(components_above(x, 0.9), [0] * (n - 1) + [n - 1])
    np.testing.assert_array_equal(count_above(x, 0.9), [n - 2] * (n - 1) + [0])
    earlier = most_similar_earlier(x, np.arange(n), 0.9)
    np.testing.assert_array_equal(earlier.indices, [-1] + [0] * (n - 2) + [-1])


def test_the_row_of_highest_priority_comes_first_in_order() -> None:
    x = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    x[1, 2] = 0.1
    assert most_similar_earlier(x, np.array([2, 1, 0]), 0.9).indices.tolist() == [1, -1, -1]
    assert most_similar_earlier(x, np.array([0, 1, 2], np.uint8), 0.9).indices.tolist() == [-1, 0, -1]


def test_a_threshold_is_rounded_to_float32_once() -> None:
    x = np.array([[1, 0], [4, 3]], np.float32)  # similarity 0.8, as float32 a little more than the decimal
    similarity = float(np.float32(0.8))
    assert similarity > 0.8
    for threshold, count in ((0.8, 1), (similarity, 1), (similarity + 1e-9, 1), (similarity + 6e-8, 0)):
        assert len(pairs_above(x, threshold).rows) == count, threshold


def test_thresholds_beyond_every_similarity() -> None:
    x = make_rows("float32")
    distinct = len(x) - 2  # one is zero, one a copy
    for threshold in (-1, -1.5, -1e300, -math.inf):
        assert len(pairs_above(x, threshold).rows) == distinct * (distinct - 1) // 2
    for threshold in (1.0001, 1e300, math.inf):
        assert len(pairs_above(x, threshold).rows) == 0
        np.testing.assert_array_equal(components_above(x, threshold), np.arange(len(x)))


def test_more_than_max_pairs_is_an_error() -> None:
    x = make_rows("float32")
    count = len(pairs_above(x, 0.2).rows)
    assert count > 10
    assert len(pairs_above(x, 0.2, max_pairs=count).rows) == count
    with pytest.raises(InputError, match=rf"max_pairs: expected at most {count - 1} pairs at or above 0\.2, .*raise"):
        pairs_above(x, 0.2, max_pairs=count - 1)
    with pytest.raises(ValueError, match="max_pairs: expected at least 0, got -1"):
        pairs_above(x, 0.2, max_pairs=-1)


def test_rows_that_cannot_be_judged_raise_if_asked() -> None:
    x = np.ones((9, 4), np.float32)
    x[[1, 5]] = 0
    y = np.ones((9, 4), np.float32)
    y[2:8, 3] = np.nan
    with pytest.raises(InputError, match=r"x: .*squared norm of 2 of them is not finite or zero: rows 1, 5; .*'skip'"):
        pairs_above(x, 0.5, unjudged="raise")
    with pytest.raises(InputError, match=r"y: .*of 6 of them is not finite: rows 2, 3, 4, 5, 6, \.\.\.;"):
        nearest(x, 2, y, "l2", unjudged="raise")
    assert count_above(x, -1, metric="l2", unjudged="raise").tolist() == [6, 1] + [6] * 3 + [1] + [6] * 3


def test_progress_rises() -> None:
    x = np.random.default_rng(0).standard_normal((6000, 128), dtype=np.float32)
    x[3000] = x[0]
    asked: dict[str, Any] = {"metric": "inner_product", "precision": "float32", "threads": 1}
    for ask in (
        lambda seen: count_above(x, 0, progress=seen.append, **asked),
        lambda seen: most_similar_earlier(x, np.arange(6000), 0, progress=seen.append, **asked),  # in two parts
    ):
        seen: list[float] = []
        ask(seen)
        assert seen
        assert seen == sorted(seen)
        assert seen[0] >= 0
        assert seen[-1] <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_stops_a_long_call(threads: int) -> None:
    x = np.random.default_rng(0).standard_normal((400_000, 64), dtype=np.float32)  # half of 10^11 pairs pass
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        count_above(x, 0.0, threads=threads)
    assert time.monotonic() - start < 1.5  # within a second of the signal
    interrupt.join()


ROWS = np.ones((3, 4), np.float32)
ORDER = np.arange(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pairs_above(ROWS, math.nan), ValueError, "threshold: expected a number, got NaN"),
        (lambda: components_above(ROWS, math.nan), ValueError, "threshold: expected a number, got NaN"),
        (lambda: spanning_forest_above(ROWS, math.nan), ValueError, "floor: expected a number, got NaN"),
        (lambda: count_above(ROWS, math.nan), ValueError, "threshold: expected a number, got NaN"),
        (lambda: most_similar_earlier(ROWS, ORDER, math.nan), ValueError, "floor: expected a number, got NaN"),
        (lambda: log_sum_exp(ROWS, ROWS, math.inf), ValueError, "scale: expected a finite number, got inf"),
        (lambda: log_sum_exp(ROWS, None, 1), TypeError, "y: expected an array, got None; pass x again"),
        (lambda: nearest(ROWS, 0), ValueError, "k: expected at least 1, got 0"),
        (lambda: pairs_above(ROWS, 0.5, metric="dot"), ValueError, "metric: expected 'cosine', .* or 'l2', got 'dot'"),
        (lambda: nearest(ROWS, 1, precision="fp8"), ValueError, "precision: expected 'exact' or 'float32', got 'fp8'"),
        (lambda: nearest(ROWS, 1, unjudged="drop"), ValueError, "unjudged: expected 'skip' or 'raise', got 'drop'"),
        (lambda: nearest(ROWS, 1, threads=0), ValueError, "threads: expected None or at least 1, got 0"),
        (lambda: nearest(ROWS, 1, dtype="float16"), ValueError, "dtype: expected None or 'bfloat16', got 'float16'"),
        (lambda: pairs_above(None, 0.5), TypeError, "x: expected a NumPy array, got NoneType"),
        (lambda: pairs_above([[1.0]], 0.5), TypeError, r"x: expected a NumPy array, got list; pass numpy\.asarray"),
        (lambda: pairs_above(ROWS.astype(float), 0.5), TypeError, "x: expected float16, .*got dtype float64; convert"),
        (lambda: pairs_above(ROWS.astype(int), 0.5), TypeError, "x: expected float16, .*got dtype int64; convert"),
        (lambda: pairs_above(ROWS.view(np.uint16), 0.5), TypeError, "x: got dtype uint16, .*pass dtype='bfloat16'"),
        (lambda: pairs_above(ROWS[0], 0.5), ValueError, r"x: expected a 2-D array \(n, d\), got 1-D"),
        (lambda: pairs_above(ROWS.T, 0.5), ValueError, r"x: expected adjacent elements .*\(4, 16\); pass numpy"),
        (lambda: pairs_above(ROWS, 0.5, ROWS[:, ::2]), ValueError, "y: expected adjacent elements in each row"),
        (lambda: pairs_above(ROWS, 0.5, ROWS[:, :3]), ValueError, r"y: expected shape \(m, 4\) .*, got \(3, 3\)"),
        (lambda: count_above(ROWS, 0.5, ROWS.astype(np.int8)), TypeError, "y: expected float32 to match x, got int8"),
        (lambda: most_similar_earlier(ROWS, [0, 1, 2], 0.5), TypeError, "order: expected an array .* got list"),
        (lambda: most_similar_earlier(ROWS, ORDER * 1.0, 0.5), TypeError, "order: .*integers.*got dtype float64"),
        (lambda: most_similar_earlier(ROWS, ORDER[:2], 0.5), ValueError, r"order: expected shape \(3,\).* got \(2,\)"),
        (lambda: most_similar_earlier(ROWS, ORDER + 1, 0.5), ValueError, "order: .* from 0 to 2, got 3 at position 2"),
        (lambda: most_similar_earlier(ROWS, ORDER // 2, 0.5), ValueError, "order: .* row 2 is missing"),
        (lambda: unjudged_rows(ROWS, "dot"), ValueError, "metric: expected 'cosine', 'inner_product' or 'l2'"),
    ],
)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_the_functions_are_those_of_the_top_package() -> None:
    for name in fused_similarity.__all__:
        if name[0].islower():
            assert getattr(pycurate, name) is getattr(fused_similarity, name)


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "similarity.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == 9
    monkeypatch.chdir(tmp_path)
    exec("\n".join(examples), {})


def test_a_clump_has_one_tree_that_answers_every_threshold() -> None:
    """More pairs than are held at a time, so that the forest is reduced, and levels reject what comes later."""
    random = np.random.default_rng(0)
    x = (1 + 0.1 * random.standard_normal((700, 64))).astype(np.float32)
    x[500:] = random.standard_normal((200, 64))
    for threads in (1, 3):
        forest = spanning_forest_above(x, -1, threads=threads)
        assert len(forest.rows) == 699
        assert (np.diff(forest.similarities) <= 0).all()
        for threshold in np.quantile(forest.similarities, [0, 0.2, 0.7, 1]):
            above = forest.similarities >= threshold
            labels = _core.fused_similarity.components(700, forest.rows[above], forest.cols[above])
            np.testing.assert_array_equal(labels, components_above(x, threshold))


def test_the_heaviest_forest_of_edges() -> None:
    rows, cols = np.array([0, 1, 0, 3, 0]), np.array([1, 2, 2, 4, 2])
    found = heaviest_forest(5, rows, cols, np.array([0.5, 0.7, 0.7, 0.1, 0.6], np.float32))
    np.testing.assert_array_equal(found[0], [0, 1, 3])
    np.testing.assert_array_equal(found[1], [2, 2, 4])
    with pytest.raises(ValueError, match=r"rows, cols: expected numbers in \[0, 4\), got 4"):
        heaviest_forest(4, rows, cols, np.ones(5, np.float32))
    with pytest.raises(ValueError, match="similarities: expected numbers, got NaN at 0"):
        heaviest_forest(5, rows, cols, np.full(5, np.nan, np.float32))
