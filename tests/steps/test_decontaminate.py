from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate import Recipe, build_pack, open_pool, run
from pycurate.errors import MissingDependencyError, RecipeError
from pycurate.steps import Decontaminate, make_step


@pytest.fixture
def pack(pool_factory: Any, tmp_path: Path) -> Path:
    text = ["the quick brown fox jumps over the lazy dog", "a second caption of another picture", "third"]
    image = np.eye(3, 8, dtype=np.float32)
    pool_factory.datacomp(
        tmp_path / "eval", 1, 3, embeddings={"img": image}, text=text, uid=[f"{i:032x}" for i in range(3)]
    )
    build_pack(tmp_path / "eval", tmp_path / "pack")
    return tmp_path / "pack"


def test_rows_near_an_item_go_and_name_it(curate: Any, block: Any, pack: Path) -> None:
    image = np.ones((6, 8), np.float32)
    image[0], image[1], image[4] = [9, 0.1, 0, 0, 0, 0, 0, 0], 0, 0
    captions = ["x", "Third", "see the quick brown fox jumps over the lazy cat", "over the lazy dog", None, "other"]
    rows = block(caption=captions, img=image)
    made = curate([Decontaminate(against=str(pack))], rows)
    assert made.reason["a"].tolist() == [
        "decontaminate.eval.img", "decontaminate.eval.caption", "decontaminate.eval.8-gram", None, None, None,
    ]  # fmt: skip
    assert [None if d is None else int(d, 16) for d in made.detail["a"]] == [0, 2, 0, None, None, None]
    assert made.value["a"][2] == 1
    assert made.value["a"][0] > 0.95
    made = curate([Decontaminate(against=str(pack), unjudged="drop", similarity={}, ngram=None)], rows)
    assert made.reason["a"].tolist()[4] == "decontaminate.unjudged"
    assert made.keep["a"].tolist() == [True, False, True, True, False, True]


def test_in_a_recipe_a_changed_pack_is_noticed(pool_factory: Any, tmp_path: Path, pack: Path) -> None:
    uids = [f"{i:032x}" for i in range(20)]
    pool_factory.datacomp(tmp_path / "pool", 2, 10, embeddings={"img": np.ones((20, 8), np.float16)}, uid=uids)
    recipe = Recipe(name="clean", steps=[make_step("decontaminate", {"against": [str(pack)], "similarity": 0.9})])
    out = tmp_path / "out"
    run(recipe, open_pool(tmp_path / "pool"), out)
    assert len(np.load(out / "subset.npy")) == 20
    pool_factory.datacomp(tmp_path / "eval2", 1, 1, embeddings={"img": np.ones((1, 8), np.float16)}, uid=["f" * 32])
    build_pack(tmp_path / "eval2", pack)
    run(recipe, open_pool(tmp_path / "pool"), out)
    assert len(np.load(out / "subset.npy")) == 0
    ledger = pq.read_table(next((out / "ledger").glob("*.parquet"))).to_pylist()
    assert {(row["rule"], row["detail"]) for row in ledger} == {("decontaminate.eval2.img", "f" * 32)}


def test_what_does_not_fit_is_said(pool_factory: Any, tmp_path: Path, pack: Path) -> None:
    with pytest.raises(RecipeError, match="ngram: expected greater than or equal to 3"):
        Decontaminate(against=str(pack), ngram=2)
    with pytest.raises(RecipeError, match="against"):
        Decontaminate(against=[])
    with pytest.raises(MissingDependencyError, match=r"against: there is no file or folder .* Build a pack with"):
        Decontaminate(against="nowhere").check_files()
    with pytest.raises(RecipeError, match=r"pack 'eval' holds nothing that the step compares"):
        Decontaminate(against=str(pack), similarity={}, captions=False).score_parameters()
    with pytest.raises(RecipeError, match="similarity: no pack has an embedding 'clip'"):
        Decontaminate(against=str(pack), similarity={"clip": 0.9}).score_parameters()
    with pytest.raises(RecipeError, match=r"similarity: expected a cosine in \[-1, 1\] for 'img', got 2"):
        Decontaminate(against=str(pack), similarity=2).score_parameters()
    with pytest.raises(RecipeError, match="are both called 'eval'"):
        Decontaminate(against=[str(pack), str(pack)]).score_needs()
    pool = open_pool(pool_factory.datacomp(tmp_path / "wide", 1, 3, embeddings={"img": np.ones((3, 9), np.float16)}))
    with pytest.raises(RecipeError, match="embedding 'img' has 8 dimensions, the pool's has 9"):
        Recipe(name="x", steps=[Decontaminate(against=str(pack))]).check(pool)
    pool = open_pool(pool_factory.plain(tmp_path / "plain"))
    with pytest.raises(RecipeError, match="the pool has no embedding 'img'"):
        Recipe(name="x", steps=[Decontaminate(against=str(pack))]).check(pool)
