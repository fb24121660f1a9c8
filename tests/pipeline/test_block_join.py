"""Fused similarity out of core equals the functions in memory, whatever the blocks, shards, kills and caps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.similarity import similarity_join
from pycurate.errors import InputError, MemoryCapError, WorkspaceError
from pycurate.kernels import fused_similarity as in_memory
from pycurate.kernels.block_similarity import BlockPair
from pycurate.kernels.distinct import row_hashes
from pycurate.kernels.spanning_forest import spanning_forest_above
from pycurate.pipeline.block_join import SimilarityJoin, distinct_rows, join, source, task_folder
from pycurate.pipeline.block_join.blocks import MOST_BLOCK_ROWS, MOST_BLOCK_ROWS_ON_GPU, BlockPlan, plan_blocks
from pycurate.pipeline.block_join.pair_runs import PAIR_DTYPE, _Run, merged
from pycurate.reference.fused_similarity import copy_of
from pycurate.reference.rowwise import narrow

Rows = NDArray[Any]
SetBlocks = Callable[[int, int], None]


@pytest.fixture
def set_blocks(monkeypatch: pytest.MonkeyPatch) -> SetBlocks:
    """Cut blocks of so many rows, and let so many pairs into memory, whatever the cap."""

    def set_blocks(block_rows: int, most_pairs: int = 1 << 20) -> None:
        monkeypatch.setattr(join, "plan_blocks", lambda *_, **__: BlockPlan(block_rows, most_pairs))

    return set_blocks


def make_rows(n: int = 150, d: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """Near-copies by threes, two clumps of equal bits that lie far apart, rows that cannot be judged."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d), dtype=np.float32)
    x[n // 2 : n // 2 + n // 3] = x[: n // 3] + 0.05 * random.standard_normal((n // 3, d), dtype=np.float32)
    x[[7, 40, 41, 100, n - 1]] = x[3]
    x[[60, 20, 130]] = x[11]
    x[[5, 90]] = np.nan
    x[[17, 77]] = 0
    x[18, 2] = np.inf
    return x


def as_element(x: NDArray[np.float32], element: str) -> tuple[Rows, dict[str, Any]]:
    if element == "int8":
        return np.rint(np.nan_to_num(x, posinf=0) * 30).astype(np.int8), {}
    if element == "bfloat16":
        return narrow(x, "bfloat16"), {"dtype": "bfloat16"}
    return x.astype(element), {}


def assert_same(found: Any, expected: Any) -> None:
    """Equal arrays, or equal fields of results."""
    fields = getattr(type(expected), "__dataclass_fields__", None)
    pairs = [(found, expected)] if fields is None else [(getattr(found, f), getattr(expected, f)) for f in fields]
    for actual, right in pairs:
        if right is None:
            assert actual is None
            continue
        assert actual.dtype == right.dtype
        np.testing.assert_array_equal(actual, right)


def assert_self_join_is_right(found: SimilarityJoin, x: Rows, metric: Any, threshold: float, **given: Any) -> None:
    order = np.random.default_rng(1).permutation(len(x))
    pairs = in_memory.pairs_above(x, threshold, metric=metric, **given)
    assert len(pairs.rows) > 10
    assert_same(found.pairs_above(threshold), pairs)
    assert_same(found.components_above(threshold), in_memory.components_above(x, threshold, metric, **given))
    assert_same(found.spanning_forest_above(threshold), spanning_forest_above(x, threshold, metric, **given))
    assert_same(found.count_above(threshold), in_memory.count_above(x, threshold, metric=metric, **given))
    assert_same(
        found.most_similar_earlier(order, threshold),
        in_memory.most_similar_earlier(x, order, threshold, metric, **given),
    )
    for k in (1, 4, len(x) + 3):
        assert_same(found.nearest(k), in_memory.nearest(x, k, metric=metric, **given))


@pytest.mark.parametrize("block_rows", [19, 64, 1000])
@pytest.mark.parametrize(("metric", "threshold"), [("cosine", 0.8), ("inner_product", 3.0), ("l2", -1.5)])
def test_a_self_join_equals_the_functions_in_memory(
    metric: Any, threshold: float, block_rows: int, set_blocks: SetBlocks, tmp_path: Path
) -> None:
    set_blocks(block_rows, 50)
    x = make_rows()
    assert_self_join_is_right(similarity_join(x, tmp_path / "out", metric=metric), x, metric, threshold)


@pytest.mark.parametrize("element", ["float16", "bfloat16", "int8"])
def test_every_element_type(element: str, set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(40)
    x, given = as_element(make_rows(), element)
    assert_self_join_is_right(similarity_join(x, tmp_path / "out", **given), x, "cosine", 0.8, **given)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_a_cross_join_equals_the_functions_in_memory(metric: Any, set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(33, 20)
    x, y = make_rows(), make_rows(140, seed=4)
    y[50:80], y[[100, 101]] = x[50:80], x[3]
    threshold = -1.5 if metric == "l2" else 0.9
    found = similarity_join(x, tmp_path / "out", y, metric)
    assert (found.n, found.m) == (150, 140)
    assert_same(found.pairs_above(threshold), in_memory.pairs_above(x, threshold, y, metric))
    assert_same(found.count_above(threshold), in_memory.count_above(x, threshold, y, metric))
    for k in (1, 5, 200):
        assert_same(found.nearest(k), in_memory.nearest(x, k, y, metric))
    with pytest.raises(ValueError, match="components_above is asked of one matrix, but this join has a y"):
        found.components_above(0.9)
    with pytest.raises(ValueError, match="most_similar_earlier is asked of one matrix"):
        found.most_similar_earlier(np.arange(150), 0.9)


def test_shards_of_any_kind_are_one_matrix(set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(31)
    x = make_rows().astype(np.float16)
    np.save(tmp_path / "a.npy", x[:50])
    np.save(tmp_path / "b.npy", np.asfortranarray(x[50:50]).reshape(0, 6))
    np.save(tmp_path / "c.npy", x)
    shards = [tmp_path / "a.npy", str(tmp_path / "b.npy"), x[50:70], np.load(tmp_path / "c.npy", mmap_mode="r")[70:]]
    found = similarity_join(shards, tmp_path / "out")
    assert found.n == 150
    np.testing.assert_array_equal(found.copy_of, copy_of(x))
    np.testing.assert_array_equal(found.unjudged, in_memory.unjudged_rows(x))
    assert_self_join_is_right(found, x, "cosine", 0.8)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows(n: int, set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(1)
    x = np.ones((n, 3), np.float32)
    for y, name in ((None, "self"), (np.ones((0, 3), np.float32), "cross")):
        found = similarity_join(x, tmp_path / name, y)
        assert_same(found.pairs_above(0.5), in_memory.pairs_above(x, 0.5, y))
        assert_same(found.count_above(0.5), in_memory.count_above(x, 0.5, y))
        assert_same(found.nearest(2), in_memory.nearest(x, 2, y))
    found = similarity_join(x, tmp_path / "self")
    assert_same(found.components_above(0.5), in_memory.components_above(x, 0.5))
    if n:
        expected = in_memory.most_similar_earlier(x, np.arange(n), 0.5)
        assert_same(found.most_similar_earlier(np.arange(n), 0.5), expected)


def test_no_row_that_can_be_judged(set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(4)
    x = np.zeros((9, 3), np.float16)
    found = similarity_join(x, tmp_path)
    assert_same(found.nearest(2), in_memory.nearest(x, 2))
    assert_same(found.components_above(0), in_memory.components_above(x, 0))
    assert_same(found.count_above(0), in_memory.count_above(x, 0))
    order = np.arange(9)
    assert_same(found.most_similar_earlier(order, 0), in_memory.most_similar_earlier(x, order, 0))


def test_rows_of_one_hash_are_told_apart_by_their_bytes(
    set_blocks: SetBlocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_blocks(40)
    hashes = distinct_rows.row_hashes
    monkeypatch.setattr(distinct_rows, "row_hashes", lambda *rows: hashes(*rows) % 3)
    x = make_rows()
    x[20, 0], x[60, 0] = 0.0, -0.0
    np.testing.assert_array_equal(similarity_join(x, tmp_path).copy_of, copy_of(x))


def test_pairs_beyond_memory_are_found_by_halves(set_blocks: SetBlocks, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = np.ones((90, 4), np.float32) + 0.01 * random.standard_normal((90, 4), dtype=np.float32)
    expected = in_memory.pairs_above(x, 0.9)
    assert len(expected.rows) == 90 * 89 // 2
    for block_rows, most in ((90, 1), (90, 100), (25, 7), (10, 3), (90, 5000)):
        set_blocks(block_rows, most)
        assert_same(similarity_join(x, tmp_path / f"{block_rows}-{most}").pairs_above(0.9), expected)


def test_a_row_with_more_pairs_than_a_buffer_holds(tmp_path: Path) -> None:
    parts = [[(0, 5), (1, 2), (1, 3), (1, 4), (2, 3)], [(1, 6), (1, 7), (1, 8), (3, 9)], [], [(0, 10), (1, 11)]]
    runs = []
    for number, part in enumerate(parts):
        run = np.array([(row, col, 0.5) for row, col in part], PAIR_DTYPE)
        run.tofile(tmp_path / str(number))
        runs.append((tmp_path / str(number), len(run)))
    for most in (1, 4, 8, 12, 100):
        found = np.concatenate(list(merged([_Run(path, 0, count) for path, count in runs], most)))
        assert list(zip(found["row"], found["col"], strict=True)) == sorted(pair for part in parts for pair in part)


def count_calls(monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[str]:
    """Note which questions kernels are asked; Ctrl-C at one of them."""
    asked: list[str] = []
    for name in ("pairs_above", "forest_above", "spanning_forest_above", "count_above", "max_earlier", "top_k"):
        original = getattr(BlockPair, name)

        def noted(self: BlockPair, *given: Any, _name: str = name, _original: Any = original, **named: Any) -> Any:
            if len(asked) == fail_at:
                raise KeyboardInterrupt
            asked.append(_name)
            return _original(self, *given, **named)

        monkeypatch.setattr(BlockPair, name, noted)
    return asked


QUESTIONS: dict[str, Callable[[SimilarityJoin], Any]] = {
    "pairs_above": lambda found: found.pairs_above(0.8),
    "components_above": lambda found: found.components_above(0.8),
    "spanning_forest_above": lambda found: found.spanning_forest_above(0.8),
    "count_above": lambda found: found.count_above(0.8),
    "most_similar_earlier": lambda found: found.most_similar_earlier(np.arange(found.n)[::-1], 0.5),
    "nearest": lambda found: found.nearest(3),
}


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stopped_run_goes_on_where_it_stopped(
    question: str, metric: Any, set_blocks: SetBlocks, tmp_path: Path
) -> None:
    set_blocks(30)
    x = make_rows()
    ask = QUESTIONS[question]
    with pytest.MonkeyPatch.context() as patch:
        asked = count_calls(patch)
        expected = ask(similarity_join(x, tmp_path / "whole", metric=metric))
        whole = len(asked)
    assert whole >= 10
    for stop in (0, 1, 6, whole - 1):  # in the second row of blocks, and one before the end
        with pytest.MonkeyPatch.context() as patch:
            asked = count_calls(patch, stop)
            folder = tmp_path / f"stopped-{stop}"
            with pytest.raises(KeyboardInterrupt):
                ask(similarity_join(x, folder, metric=metric))
            assert len(asked) == stop
        with pytest.MonkeyPatch.context() as patch:
            asked = count_calls(patch)
            assert_same(ask(similarity_join(x, folder, metric=metric)), expected)
            assert len(asked) == whole - stop
            assert_same(ask(similarity_join(x, folder, metric=metric)), expected)
            assert len(asked) == whole - stop, "an answer is read back"
        assert not list(folder.glob("*/tasks"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_damage_is_noticed_and_computed_again(question: str, set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(30)
    x, ask = make_rows(), QUESTIONS[question]
    expected = ask(similarity_join(x, tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            ask(similarity_join(x, tmp_path / "out"))
    left = [path for path in tmp_path.glob("out/*/tasks/*") if path.suffix != ".json"]
    assert left
    for number, path in enumerate(sorted(left)):
        shutil.copytree(tmp_path / "out", tmp_path / f"damaged-{number}")
        damaged = tmp_path / f"damaged-{number}" / path.relative_to(tmp_path / "out")
        damaged.write_bytes(damaged.read_bytes()[:-1])
        assert_same(ask(similarity_join(x, tmp_path / f"damaged-{number}")), expected)


def test_smaller_blocks_drop_tasks_and_larger_caps_keep_them(set_blocks: SetBlocks, tmp_path: Path) -> None:
    x = make_rows()
    expected = in_memory.pairs_above(x, 0.8)
    for first, second, kept in ((30, 60, 7), (30, 29, 0)):
        folder = tmp_path / str(second)
        set_blocks(first)
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, 7)
            with pytest.raises(KeyboardInterrupt):
                similarity_join(x, folder).pairs_above(0.8)
        set_blocks(second)
        with pytest.MonkeyPatch.context() as patch:
            asked = count_calls(patch)
            assert_same(similarity_join(x, folder).pairs_above(0.8), expected)
        blocks = -(-(150 - 12) // (first if kept else second))
        assert len(asked) == blocks * (blocks + 1) // 2 - kept


KILLED = """
import os, signal, sys
import numpy as np
from pycurate.api.similarity import similarity_join
from pycurate.kernels.block_similarity import BlockPair
from pycurate.pipeline.block_join import join
from pycurate.pipeline.block_join.blocks import BlockPlan
join.plan_blocks = lambda *_, **__: BlockPlan(30, 1000)
asked, original = [], BlockPair.top_k
def killing(self, *given, **named):
    asked.append(1)
    if len(asked) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *given, **named)
BlockPair.top_k = killing
similarity_join(sys.argv[1], sys.argv[2]).nearest(3)
"""


def test_a_run_killed_with_sigkill_goes_on(
    set_blocks: SetBlocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_blocks(30, 1000)
    x = make_rows()
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x.npy"), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    asked = count_calls(monkeypatch)
    assert_same(similarity_join(tmp_path / "x.npy", tmp_path / "out").nearest(3), in_memory.nearest(x, 3))
    assert len(asked) == 15 - 8


def test_other_rows_are_refused(tmp_path: Path) -> None:
    x = make_rows()
    np.save(tmp_path / "x.npy", x)
    similarity_join(tmp_path / "x.npy", tmp_path / "out").count_above(0.8)
    similarity_join(x, tmp_path / "memory").count_above(0.8)
    similarity_join(x.copy(), tmp_path / "memory")
    x[1, 1] += 1
    with pytest.raises(WorkspaceError, match="memory holds answers about other rows than these; choose another folder"):
        similarity_join(x, tmp_path / "memory")
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(WorkspaceError, match="out holds answers about other rows than these; choose another folder"):
        similarity_join(tmp_path / "x.npy", tmp_path / "out")


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    x = make_rows()
    found = similarity_join(x, tmp_path, progress=lambda fraction: similarity_join(x, tmp_path))
    with pytest.raises(WorkspaceError, match=f"is in use by process {os.getpid()} on .*; wait for that run to end"):
        found.pairs_above(0.8)


def test_more_pairs_than_allowed_are_an_error_and_stay_for_a_run_that_allows_more(
    set_blocks: SetBlocks, tmp_path: Path
) -> None:
    set_blocks(30)
    x = make_rows()
    expected = in_memory.pairs_above(x, 0.8)
    count = len(expected.rows)
    with pytest.raises(InputError, match=rf"max_pairs: expected at most {count - 1} pairs at or above 0\.8, but"):
        similarity_join(x, tmp_path).pairs_above(0.8, max_pairs=count - 1)
    assert_same(similarity_join(x, tmp_path).pairs_above(0.8, max_pairs=count), expected)
    with pytest.raises(ValueError, match="max_pairs: expected None or at least 0, got -1"):
        similarity_join(x, tmp_path).pairs_above(0.8, max_pairs=-1)


def test_a_full_disk_is_noticed_before_anything_is_written(
    set_blocks: SetBlocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_blocks(30)
    x = make_rows()
    found = similarity_join(x, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(task_folder.shutil, "disk_usage", lambda _: usage._replace(free=(16 << 20) + 100))
    with pytest.raises(WorkspaceError, match=r"more bytes are needed in .*, but 16,777,316 are free; free some space"):
        found.pairs_above(0.8)
    assert not list(tmp_path.glob("**/*.pairs"))
    with pytest.raises(WorkspaceError, match="more bytes are needed"):
        found.nearest(3)


def test_progress_rises_to_one(set_blocks: SetBlocks, tmp_path: Path) -> None:
    set_blocks(30, 20)
    told: list[float] = []
    found = similarity_join(make_rows(), tmp_path, metric="inner_product", progress=told.append)
    for ask in QUESTIONS.values():
        told.clear()
        ask(found)
        assert told == sorted(told)
        assert told[-1] == pytest.approx(1)
        assert len(told) >= 15


def test_the_plan_is_the_formula_and_says_what_is_missing() -> None:
    plan = plan_blocks(1 << 30, 1_000_000, 512, 1024, 0)
    left = (1 << 30) - 128_000_000 - 12 * 512 * (1024 + 16 * 512) - 2048 * 1024 - (16 << 20)
    assert plan.most_pairs == left // 8 // 80
    assert plan.block_rows == (left - left // 8) // (2 * (1024 + 512 + 576))
    assert plan_blocks(1 << 40, 1000, 512, 1024, 0).block_rows == MOST_BLOCK_ROWS
    on_gpu = plan_blocks(1 << 30, 1_000_000, 512, 1024, 0, on_gpu=True)
    assert 1.2 * plan.block_rows < on_gpu.block_rows < 1.5 * plan.block_rows  # three blocks of rows alone
    assert plan_blocks(1 << 40, 1000, 512, 1024, 0, on_gpu=True).block_rows == MOST_BLOCK_ROWS_ON_GPU
    with pytest.raises(
        MemoryCapError, match=r"memory_bytes: expected enough .* of 1,000,000 rows, got .* give \d+ MiB more"
    ):
        plan_blocks(100 << 20, 1_000_000, 512, 1024, 0)
    with pytest.raises(MemoryCapError) as caught:
        plan_blocks(0, 1000, 512, 1024, 0)
    missing = int(str(caught.value).split("give ")[1].split(" MiB")[0])
    assert plan_blocks(missing << 20, 1000, 512, 1024, 0).block_rows >= 64
    with pytest.raises(MemoryCapError):
        plan_blocks((missing - 1) << 20, 1000, 512, 1024, 0)


FOREST_PEAK = """
import sys
from pycurate.api.similarity import similarity_join
from pycurate.engine.memory import MemoryMeter
with MemoryMeter(0.01) as meter:
    found = similarity_join(sys.argv[1], sys.argv[2], memory_bytes=int(sys.argv[3]), threads=2)
    forest = found.spanning_forest_above(0.5)
print(len(forest.rows), meter.peak_bytes)
"""


@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_a_forest_stays_under_the_cap(spread: float, tmp_path: Path) -> None:
    """Of 24,000 noisy copies all pairs, 288 million and 5.8 GB, are above the floor, or some of them."""
    random = np.random.default_rng(0)
    x = random.standard_normal(256) + spread * random.standard_normal((24_000, 256))
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    cap = 232 << 20
    command = [sys.executable, "-c", FOREST_PEAK, str(tmp_path / "x.npy"), str(tmp_path / "out"), str(cap)]
    edges, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert edges > 23_000
    assert peak < cap
    plan = json.loads(next(tmp_path.glob("out/spanning_forest*/plan.json")).read_text())
    assert plan["block_rows"] < 12_000  # it was cut


PEAK = """
import re, sys
from pathlib import Path
from pycurate.api.similarity import similarity_join
found = similarity_join(sys.argv[1], sys.argv[2], memory_bytes=int(sys.argv[3]), threads=1)
assert found.count_above(0.9).sum() == 200
assert len(found.pairs_above(0.9).rows) == 100
# Not getrusage: its peak counts the parent's memory at the fork.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10)
"""


def test_the_process_stays_under_the_cap(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((40_000, 1024), dtype=np.float32)
    x[20_000:20_100] = x[:100] + 0.1 * random.standard_normal((100, 1024), dtype=np.float32)
    np.save(tmp_path / "x.npy", x.astype(np.float16))  # 82 MB, and 47 MB prepared in one piece
    cap = 280 << 20
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x.npy"), str(tmp_path / "out"), str(cap)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < cap
    plan = json.loads(next(tmp_path.glob("out/pairs_above*/plan.json")).read_text())
    assert plan["block_rows"] < 10_000


@pytest.mark.parametrize("step", [1, 3, -1, -2])
def test_rows_come_from_mapped_files_in_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Pieces are copied by several threads, and the pages of each are let go of, of views with any stride, too."""
    monkeypatch.setattr(source, "READ_BYTES", 2048)
    x = np.random.default_rng(0).standard_normal((5000, 24)).astype(np.float32)
    np.save(tmp_path / "a.npy", x[:3000])
    np.save(tmp_path / "b.npy", x[3000:])
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r")[::step] for name in "ab"]
    whole = np.concatenate([x[:3000][::step], x[3000:][::step]])
    read = source.RowSource("source", mapped, None)
    for rows in (np.arange(len(whole)), np.arange(0, len(whole), 7), np.array([0, len(whole) - 1]), np.empty(0, int)):
        np.testing.assert_array_equal(read.take(rows), whole[rows])
    mixed = np.random.default_rng(1).permutation(len(whole))
    np.testing.assert_array_equal(read.take_any(mixed), whole[mixed])
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in read.pieces()]), whole)


@pytest.mark.parametrize("element", ["float32", "float16", "int8"])
def test_hashes_follow_from_the_bytes_of_a_row_alone(element: str) -> None:
    for d in (0, 1, 7, 33, 64):
        x = (40 * np.random.default_rng(d).standard_normal((9000, d))).astype(element)
        hashes = row_hashes(x, element, 1)
        np.testing.assert_array_equal(row_hashes(x, element, 3), hashes)
        np.testing.assert_array_equal(row_hashes(x[::-2], element, 2), hashes[::-2])
        bits = np.unique(x.view(f"u{x.itemsize}"), axis=0) if d else x[:1]
        assert len(np.unique(hashes)) == len(bits)  # 64 bits: no two of 9,000 rows by chance


def test_blocks_of_another_device_are_kept_where_they_fit(tmp_path: Path) -> None:
    folder = task_folder.TaskFolder(tmp_path, {"question": "pairs"})
    assert folder.open_tasks(MOST_BLOCK_ROWS_ON_GPU) == MOST_BLOCK_ROWS_ON_GPU
    plan = plan_blocks(16 << 30, 10_000_000, 512, 1024, 0)
    assert plan.fitting_rows > MOST_BLOCK_ROWS_ON_GPU > plan.block_rows
    assert folder.open_tasks(plan.block_rows, plan.fitting_rows) == MOST_BLOCK_ROWS_ON_GPU
    less = plan_blocks(4 << 30, 10_000_000, 512, 1024, 0)
    assert folder.open_tasks(less.block_rows, less.fitting_rows) == less.block_rows
