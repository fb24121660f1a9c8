"""Whole calls with a device: the files of the CPU, and a run that another device goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pycurate import Recipe, build_pack, decontaminate, dedup, dedup_append, run
from pycurate.api.coreset import coreset
from pycurate.api.dedup_settings import Mode
from pycurate.api.index import index_pool
from pycurate.api.label_noise import label_noise
from pycurate.api.pseudo_label import pseudo_label
from pycurate.api.search import search_index
from pycurate.kernels.device import cuda_kernels
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join import SimilarityJoin
from pycurate.pipeline.cluster_join import Clustering
from pycurate.steps import KnnLabelNoise, SemanticDedup

N, D = 180, 8


def embeddings() -> NDArray[np.float16]:
    random = np.random.default_rng(0)
    x = (np.eye(4, D)[random.integers(0, 4, N)] * 2 + random.normal(size=(N, D))).astype(np.float16)
    x[N // 2 :] = x[: N // 2] + (0.05 * random.normal(size=(N // 2, D))).astype(np.float16)
    x[[9, 70]] = x[8]
    x[3] = 0
    return x


@pytest.fixture
def pool(pool_factory: Any, tmp_path: Path) -> Path:
    labels = np.random.default_rng(1).integers(0, 4, N)
    return Path(pool_factory.datacomp(tmp_path / "pool", 3, N // 3, embeddings={"e": embeddings()}, label=labels))


def written(out: Path) -> dict[str, bytes]:
    """What a call leaves for its reader: arrays and tables; of manifests and reports the figures are in them, too."""
    kept = (p for p in out.rglob("*") if p.suffix in (".npy", ".parquet") and "workspace" not in p.parts)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in kept}


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``stopping(files)``: Ctrl-C as the next file after so many is to be finished."""
    replace, left = os.replace, 1 << 30

    def until_then(*paths: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        replace(*paths)

    def after(files: int) -> None:
        nonlocal left
        left = files

    monkeypatch.setattr(os, "replace", until_then)
    return after


@pytest.mark.parametrize("mode", ["exact", "clustered", "index"])
@pytest.mark.parametrize("removal", ["published", "greedy", "component"])
def test_dedup_in_every_mode(gpu_calls: list[str], tmp_path: Path, mode: Mode, removal: Removal) -> None:
    options: dict[str, Any] = {"mode": mode, "removal": removal, "eps": 0.05}
    if mode == "clustered":
        options |= {"clustering": Clustering(clusters=6, probes=1), "priority": "hard"}
    if removal == "greedy" and mode != "index":
        options["max_pairs"] = 10  # by blocks
    here = dedup(embeddings(), tmp_path / "here", **options)
    assert not gpu_calls
    there = dedup(embeddings(), tmp_path / "there", device="cuda", **options)
    assert gpu_calls
    assert here.outcome.removed > N // 4
    assert written(tmp_path / "there") == written(tmp_path / "here")
    assert there.manifest.get("certificate") == here.manifest.get("certificate")


@pytest.mark.parametrize("removal", ["published", "greedy", "component"])
def test_appended_rows(gpu_calls: list[str], tmp_path: Path, removal: Removal) -> None:
    x = embeddings()
    np.save(tmp_path / "first.npy", x[:120])
    dedup(tmp_path / "first.npy", tmp_path / "first", removal=removal, eps=0.05)
    for at in ("cpu", "cuda"):
        dedup_append(x[120:], tmp_path / at, tmp_path / "first", device=at)
        assert bool(gpu_calls) == (at == "cuda")
    assert written(tmp_path / "cuda") == written(tmp_path / "cpu")


@pytest.mark.parametrize("mode", ["exact", "clustered"])
def test_a_stopped_dedup_goes_on_with_another_device(
    gpu_calls: list[str], stopping: Callable[[int], None], tmp_path: Path, mode: Mode
) -> None:
    options: dict[str, Any] = {"mode": mode, "removal": "greedy", "eps": 0.05, "max_pairs": 10}
    dedup(embeddings(), tmp_path / "whole", **options)
    stopping(12 if mode == "exact" else 25)
    with pytest.raises(KeyboardInterrupt):
        dedup(embeddings(), tmp_path / "stopped", device="cuda", **options)
    stopping(1 << 30)
    asked = len(gpu_calls)
    assert asked
    dedup(embeddings(), tmp_path / "stopped", device="cpu", **options)
    assert len(gpu_calls) == asked
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
    again = dedup(embeddings(), tmp_path / "stopped", device="cuda", **options)  # finished: nothing is compared
    assert len(gpu_calls) == asked
    assert again.out == tmp_path / "stopped"


def test_decontaminate_also_after_a_stop(
    gpu_calls: list[str], stopping: Callable[[int], None], pool: Path, pool_factory: Any, tmp_path: Path
) -> None:
    pool_factory.datacomp(tmp_path / "eval", 1, 30, embeddings={"e": embeddings()[:30]}, seed=5)
    build_pack(tmp_path / "eval", tmp_path / "pack")
    report = decontaminate(pool, tmp_path / "pack", tmp_path / "whole", similarity=0.9)
    assert not gpu_calls
    decontaminate(pool, tmp_path / "pack", tmp_path / "there", similarity=0.9, device="cuda")
    assert len(gpu_calls) == 3  # shards
    assert written(tmp_path / "there") == written(tmp_path / "whole")
    stopping(9)
    with pytest.raises(KeyboardInterrupt):
        decontaminate(pool, tmp_path / "pack", tmp_path / "stopped", similarity=0.9)
    stopping(1 << 30)
    gpu_calls.clear()
    again = decontaminate(pool, tmp_path / "pack", tmp_path / "stopped", similarity=0.9, device="cuda")
    assert 0 < len(gpu_calls) < 3
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
    assert again.to_dict() == report.to_dict() | {"out": str(again.out)}


def test_an_index_of_a_pool_and_a_search(gpu_calls: list[str], pool: Path, tmp_path: Path) -> None:
    for at in ("cpu", "cuda"):
        index_pool(pool, "e", tmp_path / at, prefix=4, kind="flat", device=at)
        np.save(tmp_path / "v.npy", embeddings()[:40])
        found = search_index(tmp_path / at, vector=tmp_path / "v.npy", k=5, device=at)
        assert bool(gpu_calls) == (at == "cuda")
        if at == "cpu":
            right = found
    assert found.to_dict()["results"] == right.to_dict()["results"]
    made, expected = (json.loads((tmp_path / at / "index.json").read_text()) for at in ("cuda", "cpu"))
    assert made["certificate"] == expected["certificate"]


def test_labels_and_a_coreset(gpu_calls: list[str], pool: Path, tmp_path: Path) -> None:
    classes = np.random.default_rng(2).normal(size=(5, D)).astype(np.float32)
    calls: dict[str, Callable[[Path, str], object]] = {
        "noise": lambda out, at: label_noise(pool, "e", out / "n.parquet", label="label", k=5, device=at),
        "pseudo": lambda out, at: pseudo_label(pool, "e", classes, out / "p.parquet", k=4, device=at),
        "coreset": lambda out, at: coreset(pool, out / "c", rows=20, neighbors=6, device=at),
    }
    for name, call in calls.items():
        for at in ("cpu", "cuda"):
            (tmp_path / at / name).mkdir(parents=True)
            call(tmp_path / at / name, at)
            assert bool(gpu_calls) == (at == "cuda"), name
        gpu_calls.clear()
        found, right = (written(tmp_path / at / name) for at in ("cuda", "cpu"))
        assert found == right
        assert len(found) > 0


def test_a_stopped_recipe_goes_on_with_another_device(
    gpu_calls: list[str], monkeypatch: pytest.MonkeyPatch, pool: Path, tmp_path: Path
) -> None:
    def ctrl_c(*arguments: Any) -> None:
        raise KeyboardInterrupt

    steps = [SemanticDedup(embedding="e", eps=0.05), KnnLabelNoise(embedding="e", label="label", k=5)]
    recipe = Recipe(name="r", steps=steps)
    whole = run(recipe, pool, tmp_path / "whole")
    assert not gpu_calls
    monkeypatch.setattr(cuda_kernels(), "top_k", ctrl_c)  # in the second step
    with pytest.raises(KeyboardInterrupt):
        run(recipe, pool, tmp_path / "stopped", device="cuda")
    assert set(gpu_calls) == {"max_earlier"}
    monkeypatch.setattr(SimilarityJoin, "most_similar_earlier", ctrl_c)  # the first step is not asked again
    gone_on = run(recipe, pool, tmp_path / "stopped")
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
    assert gone_on.manifest.recipe == whole.manifest.recipe
    assert run(recipe, pool, tmp_path / "stopped", device="cuda").reused
    assert pq.read_table(next((tmp_path / "stopped" / "ledger").glob("*.parquet"))).num_rows == N // 3
