"""Joins in clusters and by an index on a device: the answers of the CPU, whoever begins and goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.clustered import clustered_join, indexed_join
from pycurate.kernels import stand_in
from pycurate.pipeline.neighbor_lists import joined_lists

N, THRESHOLD = 400, 0.9


def make_rows() -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    x = random.standard_normal((N, 12), dtype=np.float32)
    x[N // 2 :] = x[: N // 2] + 0.1 * random.standard_normal((N // 2, 12), dtype=np.float32)
    x[[7, 40, 300]] = x[3]
    x[17] = 0
    return x


def answers(join: Any) -> list[bytes]:
    pairs, forest = join.pairs_above(THRESHOLD), join.spanning_forest_above(THRESHOLD)
    best = join.most_similar_earlier(np.arange(N)[::-1], THRESHOLD)
    arrays = [pairs.rows, pairs.cols, pairs.similarities, forest.rows, forest.cols, forest.similarities]
    arrays += [best.indices, best.similarities, join.components_above(THRESHOLD)]
    assert len(pairs.rows) > 100
    return [np.asarray(array).tobytes() for array in arrays] + [repr(join.certificate(THRESHOLD)).encode()]


@pytest.mark.parametrize("probes", [2, "exact"])
def test_clusters(gpu_calls: list[str], tmp_path: Path, probes: Any) -> None:
    x = make_rows()
    made = [
        clustered_join(x, tmp_path / at, clusters=9, probes=probes, init="k-means||", device=at)
        for at in ("cuda", "cpu")
    ]
    assert answers(made[0]) == answers(made[1])
    assert made[0].centroids.tobytes() == made[1].centroids.tobytes()
    assert {"top_k", "pairs_above", "forest_above", "spanning_forest_above", "max_earlier"} == set(gpu_calls)


def test_clusters_on_several_gpus(
    two_gpus: None, small_blocks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, used = stand_in.Matrix.upload, set()

    def told(x: NDArray[Any], element: str, device: int, *rows: Any) -> Any:
        used.add(device)
        return upload(x, element, device, *rows)

    monkeypatch.setattr(stand_in.Matrix, "upload", told)
    there = clustered_join(make_rows(), tmp_path / "there", clusters=9, device="cuda:0,1")
    assert answers(there) == answers(clustered_join(make_rows(), tmp_path / "here", clusters=9))
    assert used == {0, 1}


def test_an_index(gpu_calls: list[str], tmp_path: Path) -> None:
    x = make_rows()
    there, here = (indexed_join(x, tmp_path / at, nprobe=3, k=8, device=at) for at in ("cuda", "cpu"))
    assert answers(there) == answers(here)
    assert {"top_k", "pairs_above"} == set(gpu_calls)


def test_lists(gpu_calls: list[str], tmp_path: Path) -> None:
    read = []
    for at in ("cuda", "cpu"):
        (tmp_path / at).mkdir()
        lists = joined_lists(make_rows(), 9, tmp_path / at, memory_bytes=64 << 20, device=at)
        read.append([array.tobytes() for array in lists.read(0, lists.count)])
    assert read[0] == read[1]
    assert set(gpu_calls) == {"top_k"}
    (tmp_path / "wide").mkdir()
    gpu_calls.clear()
    joined_lists(make_rows(), 130, tmp_path / "wide", memory_bytes=64 << 20, device="cuda")
    assert not gpu_calls


def test_a_question_that_was_stopped_goes_on_with_another_device(
    gpu_calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, replace, left = make_rows(), os.replace, 0

    def until_then(*paths: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", until_then)
    left = 1000
    whole = answers(clustered_join(x, tmp_path / "whole", clusters=9))
    files, left = 1000 - left, 25
    with pytest.raises(KeyboardInterrupt):
        answers(clustered_join(x, tmp_path / "stopped", clusters=9, device="cuda"))
    assert gpu_calls
    left = 1000
    gone_on = clustered_join(x, tmp_path / "stopped", clusters=9, device="cpu")
    asked = len(gpu_calls)
    assert answers(gone_on) == whole
    assert len(gpu_calls) == asked
    assert 1000 - left <= files - 20  # it took what was there
