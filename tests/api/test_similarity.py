"""`pycurate.similarity_join`: how it is called, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pycurate
from pycurate.errors import InputError, MemoryCapError, WorkspaceError


def test_one_call_opens_a_join_and_answers_stay(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((50, 8), dtype=np.float32)
    x[40] = x[4] + 0.01
    x[30] = x[3]
    np.save(tmp_path / "x.npy", x)
    joined = pycurate.similarity_join(tmp_path / "x.npy", tmp_path / "out")
    pairs = joined.pairs_above(0.95)
    assert list(zip(pairs.rows, pairs.cols, strict=True)) == [(4, 40)]
    assert isinstance(pairs.rows, np.memmap)
    assert pairs.copy_of[30] == 3
    again = pycurate.similarity_join(tmp_path / "x.npy", tmp_path / "out", threads=1, precision="float32")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/answer/*")}
    np.testing.assert_array_equal(again.pairs_above(0.95).similarities, pairs.similarities)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/answer/*")} == before
    other_metric = pycurate.similarity_join(tmp_path / "x.npy", tmp_path / "out", metric="l2")
    np.testing.assert_array_equal(other_metric.nearest(2).indices, pycurate.nearest(x, 2, metric="l2").indices)


@pytest.mark.parametrize(
    ("source", "given", "kind", "sentence"),
    [
        (np.ones((3, 2)), {}, TypeError, r"source: expected float16, .* got dtype float64; convert it on purpose"),
        ([], {}, ValueError, "source: expected at least one array or .npy file, got an empty list"),
        (
            [np.ones((3, 2), np.float16), np.ones((3, 3), np.float16)],
            {},
            ValueError,
            r"source\[1\]: expected 2 columns of float16 as in source\[0\], got 3 of float16; the shards of one",
        ),
        ("no/such.npy", {}, InputError, r"source: expected the path of a \.npy file .* no/such\.npy cannot be read"),
        (np.ones((3, 2), np.int8), {"y": np.ones((3, 2), np.float16)}, ValueError, "y: expected 2 columns of int8 to"),
        (np.ones((3, 2), np.int8), {"metric": "dot"}, ValueError, "metric: expected 'cosine', .* got 'dot'"),
        (np.ones((3, 2), np.int8), {"threads": 0}, ValueError, "threads: expected None or at least 1, got 0"),
        (np.ones((3, 2), np.int8), {"memory_bytes": 1 << 20}, MemoryCapError, r"memory_bytes: .* give \d+ MiB more"),
    ],
)
def test_what_is_refused(
    source: Any, given: dict[str, Any], kind: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=sentence):
        pycurate.similarity_join(source, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_bad_questions_are_refused(tmp_path: Path) -> None:
    joined = pycurate.similarity_join(np.eye(4, dtype=np.float16), tmp_path)
    for ask in (joined.pairs_above, joined.components_above, joined.count_above):
        with pytest.raises(ValueError, match="threshold: expected a number, got NaN"):
            ask(float("nan"))
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        joined.nearest(0)
    with pytest.raises(ValueError, match="order: expected every row once, but row 1 is missing"):
        joined.most_similar_earlier(np.array([0, 2, 2, 3]), 0.5)


def test_a_damaged_file_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"not a matrix")
    with pytest.raises(InputError, match=r"source: expected the path of a \.npy file that holds one"):
        pycurate.similarity_join(tmp_path / "x.npy", tmp_path / "out")
    with pytest.raises(WorkspaceError, match=r"out: cannot write in .*choose another folder"):
        pycurate.similarity_join(np.eye(4, dtype=np.float16), tmp_path / "x.npy")
