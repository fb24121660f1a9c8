"""Semantic duplicates as a step of a recipe."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pycurate import Recipe, dedup, plan, run
from pycurate.api.dedup_settings import dedup_preset
from pycurate.errors import InputError, RecipeError
from pycurate.index.kmeans import assign
from pycurate.io.pool import open_pool
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join import RowSource
from pycurate.pipeline.cluster_join import ClusteredJoin
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


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("semdedup", {"clusters": 5}),
        ("semdedup", {"clusters": 3, "eps": 0.165}),
        ("semdedup-nemo", {"eps": 0.05}),
        ("semdedup-nemo", {}),
        ("dedup-clip94", {}),
    ],
)
def test_presets_keep_the_rows_of_pycurate_dedup(
    tmp_path: Path, pool_factory: Any, preset: str, parameters: dict[str, Any]
) -> None:
    x = make_rows(200).astype(np.float16)
    x[100:] = (x[:100] + 0.03 * np.random.default_rng(4).standard_normal((100, 6))).astype(np.float16)
    pool = pool_factory.datacomp(tmp_path / "pool", 4, 50, embeddings={"e": x})
    run(Recipe.load(preset, embedding="e", **parameters), pool, tmp_path / "recipe")
    settings = dedup_preset(preset)
    if "clusters" in parameters:
        settings["clustering"] = replace(settings["clustering"], clusters=parameters["clusters"])
    found = dedup(pool, tmp_path / "dedup", **settings | {k: v for k, v in parameters.items() if k == "eps"})
    assert 20 < found.outcome.removed < 150
    kept = [(tmp_path / name / "subset.npy").read_bytes() for name in ("recipe", "dedup")]
    assert kept[0] == kept[1]
    rule = json.loads((tmp_path / "recipe" / "manifest.json").read_text())["steps"][0]["rules"][0]["description"]
    assert ("recall: " in rule) == (preset != "dedup-clip94")


@pytest.mark.parametrize("order", ["hard", "easy"])
@pytest.mark.parametrize("of", ["survivors", "pool"])
def test_the_row_farthest_from_its_centroid_or_the_nearest_stays(curate: Any, block: Any, order: Any, of: Any) -> None:
    x = make_rows()
    score = np.where(np.arange(90) % 9 == 1, 0, 1).astype(np.float32)
    uids = np.random.default_rng(5).permutation(90)
    a = block("a", uids=uids[:50].tolist(), e=x[:50], score=score[:50])
    b = block("b", uids=uids[50:].tolist(), e=x[50:], score=score[50:])
    step = SemanticDedup(
        embedding="e", eps=0.1, mode="clustered", clusters=4, probes="exact", keep=order, of=of, unjudged="keep"
    )
    made = curate([Threshold(score="score", minimum=1), step], a, b)
    survives = score == 1
    rows = np.flatnonzero(survives | (of == "pool"))
    with tempfile.TemporaryDirectory() as folder:
        source, by_uid = RowSource("x", x[rows], None), np.argsort(np.argsort(uids[rows]))
        join = ClusteredJoin(source, Path(folder), step.clustering, None, 1 << 30, 1, None, by_uid)
        near = assign(x[rows], join.centroids).similarities.astype(np.float64)
    ranked = np.lexsort([uids[rows], near if order == "hard" else -near])
    rank = np.empty(len(rows), np.int64)
    rank[ranked] = np.arange(len(rows))
    right = expected(x[rows], rank, "published", 0.9)
    kept = np.concatenate([made.keep["a"], made.keep["b"]])
    assert kept[rows].tolist() == (survives[rows] & (right[0] < 0)).tolist()
    assert np.count_nonzero(kept) < np.count_nonzero(survives)


def test_clusters_do_not_depend_on_shards(curate: Any, block: Any) -> None:
    x, uids = make_rows(), np.random.default_rng(5).permutation(90)
    step = SemanticDedup(embedding="e", eps=0.3, mode="clustered", clusters=7, probes=0, keep="hard", unjudged="keep")
    kept = []
    for order, cut in ((np.arange(90), 50), (np.random.default_rng(6).permutation(90), 20)):
        a, b = (block(n, uids=uids[r].tolist(), e=x[r]) for n, r in (("a", order[:cut]), ("b", order[cut:])))
        made = curate([step], a, b)
        kept.append(set(uids[order[np.concatenate([made.keep["a"], made.keep["b"]])]].tolist()))
    assert kept[0] == kept[1]
    exact = curate([SemanticDedup(embedding="e", eps=0.3, unjudged="keep")], block("a", uids=uids.tolist(), e=x))
    assert len(kept[0]) > np.count_nonzero(exact.keep["a"])  # clusters matter here


def test_index_mode_proposes_and_the_rule_says_what_it_lost(curate: Any, block: Any) -> None:
    x = make_rows()
    for removal in REMOVALS:
        step = SemanticDedup(embedding="e", eps=0.1, mode="index", removal=removal, unjudged="keep")
        made = curate([step], block("a", uids=list(range(90)), e=x))
        right = expected(x, np.arange(90), removal, 0.9)
        assert made.keep["a"].tolist() == (right[0] < 0).tolist()
        rule = step.rules(made.artefacts[0])[0]
        assert "recall: ivf index, 32 candidates" in rule.description


def test_probes_are_raised_until_a_recall_is_certified(curate: Any, block: Any) -> None:
    step = SemanticDedup(embedding="e", eps=0.1, mode="clustered", clusters=30, probes=0, min_recall=1)
    made = curate([step], block("a", uids=list(range(90)), e=make_rows()))
    assert made.artefacts[0]["recall"]["verdict"] in ("holds", "proven")
    assert (
        made.keep["a"].tolist()
        == curate([SemanticDedup(embedding="e", eps=0.1)], block("a", uids=list(range(90)), e=make_rows()))
        .keep["a"]
        .tolist()
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"keep": "hard"}, "keep: hard orders rows by their distance to a centroid; add mode: clustered"),
        ({"mode": "index", "clusters": 5}, "clusters: goes with mode: clustered, not with index"),
        ({"min_recall": 0.9}, "min_recall: goes with mode: clustered, not with exact"),
        ({"mode": "clustered", "probes": -1}, "probes: expected a number of clusters or exact, got -1"),
        ({"mode": "clustered", "keep": "hardest"}, "keep: expected lowest_uid, hard, easy, or one of"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_step("semantic_dedup", {"embedding": "e", **settings})
    assert sentence in str(caught.value)


def test_more_clusters_than_rows_is_an_error(curate: Any, block: Any) -> None:
    recipe = Recipe.load("semdedup", embedding="e")
    with pytest.raises(InputError, match="clusters: expected at most one for each of 90 rows, got 50,000; give fewer"):
        curate(list(recipe.steps), block("a", uids=list(range(90)), e=make_rows()))


KILLED = """
import os, signal, sys
from pycurate.pipeline.block_join import blocks
blocks.MOST_BLOCK_ROWS = 64
from pycurate import Recipe, run
from pycurate.steps import semantic_dedup
semantic_dedup.MAX_PAIRS = {most_pairs}
replaced, replace = 0, os.replace
def counted(*given):
    global replaced
    if replaced == {most_files}:
        os.kill(os.getpid(), signal.SIGKILL)
    replaced += 1
    replace(*given)
os.replace = counted
step = semantic_dedup.SemanticDedup(embedding="e", eps=0.1, removal={removal!r}, mode={mode!r}, unjudged="keep")
run(Recipe(name="test", steps=[step]), {pool!r}, {out!r}, workers=1)
print(replaced)
"""


@pytest.mark.parametrize(
    ("removal", "mode"),
    [
        ("published", "exact"),
        ("greedy", "exact"),
        ("greedy", "clustered"),
        ("component", "clustered"),
        ("published", "index"),
    ],
)
def test_a_killed_recipe_goes_on_and_writes_the_same_bytes(
    tmp_path: Path, pool_factory: Any, removal: Removal, mode: str
) -> None:
    x = make_rows(400).astype(np.float16)
    pool = pool_factory.datacomp(tmp_path / "pool", 4, 100, embeddings={"e": x})

    def files_of(out: str, most_files: int) -> int:
        """Files that were finished; the process ends itself by SIGKILL as it is to finish another."""
        code = KILLED.format(
            most_files=most_files, most_pairs=5 if mode != "index" else 10**6, removal=removal, mode=mode,
            pool=str(pool), out=str(tmp_path / out),
        )  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return int(done.stdout.split()[-1]) if done.returncode == 0 else -1

    files = files_of("whole", 1 << 30)
    for most_files in (files // 4, files // 3):
        assert files_of("killed", most_files) == -1
    assert files_of("killed", 1 << 30) < files - files // 3  # a fit that began anew would finish all of its files again
    assert not list((tmp_path / "killed" / "workspace" / "scratch").iterdir())
    whole, killed = (sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("whole", "killed"))
    outputs = [path for path in whole if "workspace" not in path.parts and path.name != "report.html"]
    assert len(outputs) >= 7
    for path in outputs:
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert other in killed
        if path.name != "manifest.json":  # which has times
            assert path.read_bytes() == other.read_bytes(), path.name
