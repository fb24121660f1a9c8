from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate import Recipe, run
from pycurate.errors import InputError, MissingDependencyError, RecipeError
from pycurate.io.pool import open_pool
from pycurate.ops.labels.pseudo_labels import zero_shot_labels
from pycurate.steps import Threshold, ZeroShotTopK
from pycurate.types import UID_DTYPE


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    np.save(tmp_path / "classes.npy", np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32))
    return tmp_path / "classes.npy"


def images(n: int = 90) -> tuple[NDArray[np.float16], NDArray[np.void]]:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 8)).astype(np.float16)
    x[30:40] = x[2]
    x[5] = 0
    uids = np.zeros(n, UID_DTYPE)
    uids["f1"] = random.permutation(n)
    return x, uids


@pytest.mark.parametrize("k", [None, 1, 6, 500])
@pytest.mark.parametrize("minimum", [None, 0.2])
def test_each_class_keeps_its_best_rows(
    curate: Any, block: Any, texts: Path, k: int | None, minimum: float | None
) -> None:
    x, uids = images()
    right = zero_shot_labels(x, np.load(texts), k, minimum=minimum, uids=uids)
    numbers = uids["f1"].astype(int).tolist()
    a = block("a", uids=numbers[:35], e=x[:35])
    b = block("b", uids=numbers[35:], e=x[35:])
    made = curate([ZeroShotTopK(embedding="e", classes=str(texts), k=k, minimum=minimum)], a, b)
    keep = np.concatenate([made.keep["a"], made.keep["b"]])
    np.testing.assert_array_equal(keep, right.labels >= 0)
    assert made.reason["a"][5] == "zero_shot_top_k.unjudged"
    assert made.scores["a"]["zero_shot_top_k.class"][5] == -1


def test_only_survivors_compete_unless_all_are_to(curate: Any, block: Any, texts: Path) -> None:
    x, uids = images()
    a = block("a", uids=uids["f1"].astype(int).tolist(), e=x, score=np.arange(90, dtype=np.float32))
    late = Threshold(score="score", minimum=50)
    made = curate([late, ZeroShotTopK(embedding="e", classes=str(texts), k=5)], a)
    right = zero_shot_labels(x[50:], np.load(texts), 5, uids=uids[50:])
    np.testing.assert_array_equal(made.keep["a"][50:], right.labels >= 0)
    made = curate([late, ZeroShotTopK(embedding="e", classes=str(texts), k=5, of="pool")], a)
    np.testing.assert_array_equal(
        made.keep["a"][50:], zero_shot_labels(x, np.load(texts), 5, uids=uids).labels[50:] >= 0
    )


def test_a_run_keeps_k_of_each_class(tmp_path: Path, pool_factory: Any) -> None:
    np.save(tmp_path / "c.npy", np.random.default_rng(1).normal(size=(3, 24)).astype(np.float32))
    pool = pool_factory.datacomp(tmp_path / "pool", 2, 60)
    recipe = Recipe(name="t", steps=[ZeroShotTopK(embedding="l14_img", classes=str(tmp_path / "c.npy"), k=7)])
    result = run(recipe, pool, tmp_path / "out")
    blocks = [b for s in open_pool(pool).shards for b in s.blocks((), ("l14_img",))]
    x, uids = np.concatenate([b.embeddings["l14_img"] for b in blocks]), np.concatenate([b.uids for b in blocks])
    right = zero_shot_labels(x, np.load(tmp_path / "c.npy"), 7, uids=uids)
    kept = np.load(result.out / "subset.npy")
    assert sorted(kept.tolist()) == sorted(uids[right.labels >= 0].tolist())


def test_bad_files_are_named(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", 1, 10)

    def tried(classes: Any) -> Recipe:
        if classes is not None:
            np.save(tmp_path / "c.npy", classes)
        return Recipe(name="t", steps=[ZeroShotTopK(embedding="l14_img", classes=str(tmp_path / "c.npy"))])

    with pytest.raises(MissingDependencyError, match="zero_shot_top_k: classes: there is no file"):
        run(tried(None), pool, tmp_path / "out")
    with pytest.raises(RecipeError, match="has 5 elements a class, but l14_img has 24"):
        run(tried(np.ones((2, 5), np.float32)), pool, tmp_path / "out")
    for wrong in (np.ones(24, np.float32), np.ones((2, 24))):
        with pytest.raises(InputError, match=r"classes: expected \(K, d\) float32 or float16"):
            run(tried(wrong), pool, tmp_path / "out")
    with pytest.raises(InputError, match="class_embeddings: class 1 is zero or not finite"):
        run(tried(np.diag(np.array([1, 0] + [1] * 22, np.float32))), pool, tmp_path / "out")
