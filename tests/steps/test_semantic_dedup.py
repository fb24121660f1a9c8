"""Semantic duplicates as a step of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pycurate import Recipe, plan, run
from pycurate.errors import RecipeError
from pycurate.io.pool import open_pool
from pycurate.ops.dedup.removal import Removal
from pycurate.reference import removal as reference
from pycurate.reference.fused_similarity import copy_of as copies_of
from pycurate.reference.fused_similarity import similarities as similarity_matrix
from pycurate.steps import SemanticDedup, Threshold, make_step

REMOVALS: tuple[Removal, ...] = ("published", "greedy", "component")


def make_rows(n: int = 90) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    x = random.standard_normal((n, 6), dtype=np.float32)
    x[n // 2 :] = x[: n - n // 2] + 0.1 * random.standard_normal((n - n // 2, 6), dtype=np.float32)
    x[[20, 60, 61]] = x[3]
    x[[5, 50]] = 0
    return x


def expected(
    x: NDArray[np.float32], rank: NDArray[np.int64], removal: Removal, threshold: float, strict: bool = False
) -> reference.Removed:
    matrix = similarity_matrix(x, None, "cosine")
    if removal == "greedy":
        copies = copies_of(x)
        copies[(x == 0).all(axis=1)] = -1
        return reference.greedy(matrix, rank, threshold, strict, copies)
    if removal == "component":
        return reference.component(matrix, rank, threshold, strict)
    return reference.published(matrix, rank, threshold, strict)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mode", ["exact", "clustered"])
@pytest.mark.parametrize("removal", REMOVALS)
def test_a_verdict_names_partner_and_similarity_of_the_definition(
    curate: Any, block: Any, removal: Removal, mode: Any, strict: bool
) -> None:
    x = make_rows()
    uids = np.random.default_rng(1).permutation(90)
    a, b = block("a", uids=uids[:40].tolist(), e=x[:40]), block("b", uids=uids[40:].tolist(), e=x[40:])
    step = SemanticDedup(
        embedding="e",
        eps=0.1,
        removal=removal,
        mode=mode,
        strict=strict,
        unjudged="keep",
        clusters=3 * (mode != "exact") or None,
    )
    made = curate([step], a, b)
    duplicate_of, similarity = expected(x, uids, removal, 0.9, strict)
    partner = np.concatenate([made.partner["a"], made.partner["b"]])
    value = np.concatenate([made.value["a"], made.value["b"]])
    assert partner.tolist() == [None if row < 0 else uids[row] for row in duplicate_of]
    np.testing.assert_array_equal(value.astype(np.float32), similarity)
    assert np.concatenate([made.keep["a"], made.keep["b"]]).tolist() == (duplicate_of < 0).tolist()


def test_rows_that_cannot_be_judged_follow_the_policy(curate: Any, block: Any) -> None:
    x = make_rows()
    made = curate([SemanticDedup(embedding="e", unjudged="drop")], block("a", uids=list(range(90)), e=x))
    assert made.reason["a"][[5, 50]].tolist() == ["semantic_dedup.unjudged"] * 2
    assert made.reason["a"][20] == "semantic_dedup"


def test_only_survivors_compete_unless_all_are_to(curate: Any, block: Any) -> None:
    x = make_rows()
    score = np.arange(90, dtype=np.float32)
    a = block("a", uids=list(range(90)), e=x, score=score)
    drop_first = Threshold(score="score", minimum=10)
    made = curate([drop_first, SemanticDedup(embedding="e", eps=0.1, unjudged="keep")], a)
    right = expected(x[10:], np.arange(80), "published", 0.9)
    assert made.keep["a"][10:].tolist() == (right[0] < 0).tolist()
    made = curate([drop_first, SemanticDedup(embedding="e", eps=0.1, of="pool", unjudged="keep")], a)
    right = expected(x, np.arange(90), "published", 0.9)
    assert made.keep["a"][10:].tolist() == (right[0][10:] < 0).tolist()
    nothing = Threshold(score="score", minimum=1000)
    assert not curate([nothing, SemanticDedup(embedding="e")], a).keep["a"].any()


def test_a_run_writes_ledger_and_groups_and_keeps_the_best(tmp_path: Path, pool_factory: Any) -> None:
    x = make_rows().astype(np.float16)
    score = np.random.default_rng(2).random(90).astype(np.float32)
    pool = pool_factory.datacomp(tmp_path / "pool", 3, 30, embeddings={"e": x}, clip_b32_similarity_score=score)
    step = SemanticDedup(embedding="e", eps=0.1, keep={"highest": "clip_b32_similarity_score"}, unjudged="keep")
    recipe = Recipe(name="test", steps=[step])
    assert plan(recipe, pool).to_dict()
    run(recipe, pool, tmp_path / "out")
    uids = np.concatenate([b.uids for s in open_pool(pool).shards for b in s.blocks()])
    order = sorted(range(90), key=lambda row: (-score[row], *uids[row].tolist()))
    rank = np.empty(90, np.int64)
    rank[order] = np.arange(90)
    right = expected(x, rank, "published", 0.9)
    ledger = pq.read_table(sorted((tmp_path / "out" / "ledger").glob("*.parquet"))).to_pydict()
    assert ledger["keep"] == (right[0] < 0).tolist()
    assert [uid is not None for uid in ledger["partner_uid"]] == (right[0] >= 0).tolist()
    groups = pq.read_table(tmp_path / "out" / "groups.parquet").to_pylist()
    assert sum(row["rule"] is not None for row in groups) == np.count_nonzero(right[0] >= 0)


def test_what_a_recipe_may_say() -> None:
    step = make_step("semantic_dedup", "l14_img")
    assert isinstance(step, SemanticDedup)
    assert step.threshold == 0.93
    assert step.rules({"without_value": 0})[0].threshold == 0.93
    with pytest.raises(RecipeError, match="eps"):
        make_step("semantic_dedup", {"embedding": "e", "eps": 3})
    with pytest.raises(RecipeError, match="removal"):
        make_step("semantic_dedup", {"embedding": "e", "removal": "any"})
