"""Steps whose kernels a GPU may run: what they decide there is what they decide here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate import build_pack
from pycurate.pipeline.step import Step
from pycurate.steps import Coreset, Decontaminate, KnnLabelNoise, SemanticDedup, ZeroShotTopK

N, D = 150, 8


def embeddings(seed: int, n: int = N) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = (np.eye(4, D)[random.integers(0, 4, n)] * 2 + random.normal(size=(n, D))).astype(np.float16)
    x[n // 2 :] = x[: n - n // 2] + (0.05 * random.normal(size=(n - n // 2, D))).astype(np.float16)
    x[3] = 0
    return x


def decontaminate(folder: Path, pool_factory: Any) -> Step:
    pool_factory.datacomp(folder / "eval", 1, 40, embeddings={"e": embeddings(0)[:40]})
    build_pack(folder / "eval", folder / "pack")
    return Decontaminate(against=(str(folder / "pack"),), similarity=0.9)


def zero_shot(folder: Path, pool_factory: Any) -> Step:
    np.save(folder / "classes.npy", np.random.default_rng(1).normal(size=(5, D)).astype(np.float32))
    return ZeroShotTopK(embedding="e", classes=str(folder / "classes.npy"), k=12)


STEPS: dict[str, Callable[[Path, Any], Step]] = {
    "exact": lambda *_: SemanticDedup(embedding="e", eps=0.05),
    "greedy": lambda *_: SemanticDedup(embedding="e", eps=0.05, removal="greedy"),
    "clustered": lambda *_: SemanticDedup(embedding="e", eps=0.05, mode="clustered", clusters=6, keep="hard"),
    "index": lambda *_: SemanticDedup(embedding="e", eps=0.05, mode="index", removal="component"),
    "noise": lambda *_: KnnLabelNoise(embedding="e", label="y", k=5),
    "coreset": lambda *_: Coreset(embedding="e", rows=20, neighbors=6),
    "coreset of parts": lambda *_: Coreset(embedding="e", rows=20, neighbors=6, graph="ivf", parts=3),
    "decontaminate": decontaminate,
    "zero-shot": zero_shot,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_decides_the_same(
    curate: Any, block: Any, pool_factory: Any, tmp_path: Path, gpu_calls: list[str], name: str
) -> None:
    step = STEPS[name](tmp_path, pool_factory)
    labels = np.random.default_rng(2).integers(0, 4, N)
    rows = block(e=embeddings(0), y=labels, caption=[f"caption {i}" for i in range(N)])
    here = curate([step], rows, block_rows=50)
    assert not gpu_calls
    there = curate([step.model_copy()], rows, block_rows=50, device="cuda")
    assert gpu_calls
    for field in ("keep", "reason", "detail", "partner"):
        assert getattr(there, field)["a"].tolist() == getattr(here, field)["a"].tolist()
    assert there.value["a"].tobytes() == here.value["a"].tobytes()
    assert not here.keep["a"].all()
    for column, values in here.scores["a"].items():
        assert there.scores["a"][column].tobytes() == values.tobytes()
    for found, right in zip(there.artefacts, here.artefacts, strict=True):
        assert all(
            np.asarray(found[key]).tobytes() == np.asarray(value).tobytes()
            for key, value in right.items()
            if isinstance(value, np.ndarray)
        )
