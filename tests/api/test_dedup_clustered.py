"""Clustered mode: SemDeDup's rule row for row, and duplicates across borders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.dedup import dedup
from pycurate.api.dedup_append import dedup_append
from pycurate.api.dedup_settings import dedup_preset
from pycurate.errors import InputError
from pycurate.index.kmeans import assign
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.block_join import RowSource
from pycurate.pipeline.block_join.blocks import BlockPlan, plan_blocks
from pycurate.pipeline.cluster_join import ClusteredJoin, Clustering
from pycurate.reference.rowwise import pair_similarity as canonical

SMALL = Clustering(clusters=6, probes=0, iterations=100, seed=1234)


def make_rows(n: int = 400, d: int = 12, seed: int = 0) -> NDArray[np.float16]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d), dtype=np.float32)
    x[n // 2 :] = x[: n - n // 2] + 0.15 * random.standard_normal((n - n // 2, d), dtype=np.float32)
    x[[9, 300, 301]] = x[4]
    x[17] = 0
    return x.astype(np.float16)


def semdedup(
    x: NDArray[Any], clusters: NDArray[np.int32], near: NDArray[np.float32], eps: float, hard: bool, strict: bool
) -> list[bool]:
    """The published rule: within each cluster, farthest from the centroid first, ties by row; any earlier row."""
    keep = [True] * len(x)
    for cluster in range(int(clusters.max()) + 1):
        rows = [int(row) for row in np.flatnonzero(clusters == cluster)]
        rows.sort(key=lambda row: (near[row] if hard else -near[row], row))
        for place, row in enumerate(rows):
            for before in rows[:place]:
                similarity = canonical(x[row : row + 1], x[before : before + 1], "cosine")[0]
                limit = np.float32(1 - eps)
                if similarity > limit if strict else similarity >= limit:
                    keep[row] = False
    return keep


@pytest.mark.parametrize(
    ("priority", "strict", "eps"), [("hard", True, 0.07), ("easy", False, 0.01), ("hard", True, 0.165)]
)
def test_semdedup_is_the_published_rule_given_the_same_clusters(
    tmp_path: Path, priority: str, strict: bool, eps: float
) -> None:
    x = make_rows()
    settings = {**dedup_preset("semdedup"), "clustering": SMALL, "priority": priority, "strict": strict, "eps": eps}
    found = dedup(x, tmp_path / "out", **settings)
    join = ClusteredJoin(RowSource("x", x, None), tmp_path / "join", SMALL, None, 1 << 30, 1, None)
    assigned = assign(x, join.centroids)
    assert found.duplicates.kept.tolist() == semdedup(
        x, assigned.clusters, assigned.similarities, eps, priority == "hard", strict
    )
    assert 0 < found.outcome.removed < 300
    assert "certificate" in found.manifest
    assert "recall   6 clusters, 0 probes" in found.render()


@pytest.mark.parametrize("removal", ["published", "greedy", "component"])
def test_with_every_border_probed_it_is_exact_mode(tmp_path: Path, removal: Removal) -> None:
    x = make_rows()
    exact = dedup(x, tmp_path / "exact", removal=removal, eps=0.1)
    found = dedup(x, tmp_path / "out", mode="clustered", removal=removal, eps=0.1, clustering=Clustering(8, "exact"))
    for limit in (0.8, 0.9, 0.97):
        for a, b in zip(exact.store.at(limit), found.store.at(limit), strict=True):
            np.testing.assert_array_equal(a, b)
    assert found.manifest["certificate"]["verdict"] == "proven"


@pytest.mark.parametrize("removal", ["published", "greedy", "component"])
def test_an_index_proposes_and_the_certificate_says_what_it_lost(tmp_path: Path, removal: Removal) -> None:
    x = make_rows()
    exact = dedup(x, tmp_path / "exact", removal=removal, eps=0.1)
    found = dedup(x, tmp_path / "out", mode="index", removal=removal, eps=0.1)
    assert abs(exact.outcome.kept - found.outcome.kept) < 10
    assert found.manifest["certificate"]["recall"] > 0.95


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("block_rows", "most"), [(1 << 18, 1 << 20), (64, 1 << 20), (64, 5)])
@pytest.mark.parametrize("clustering", [Clustering(6, 0), Clustering(9, 2), Clustering(5, "exact"), Clustering(1, 0)])
def test_greedy_removal_of_too_many_pairs_goes_through_the_rows_that_meet(
    tmp_path: Path, clustering: Clustering, block_rows: int, most: int, strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does with all pairs that meet, whose result it is, whatever blocks and pairs fit in memory."""
    x = make_rows(seed=3)
    settings: dict[str, Any] = {"mode": "clustered", "removal": "greedy", "clustering": clustering, "strict": strict}
    pairs = dedup(x, tmp_path / "pairs", threshold=0.75, floor=0.75, **settings)
    assert 30 < pairs.outcome.removed < 300

    def small(*given: int) -> BlockPlan:
        plan = plan_blocks(*given)
        return BlockPlan(min(block_rows, plan.block_rows), min(most, plan.most_pairs))

    monkeypatch.setattr("pycurate.pipeline.greedy_blocks.plan_blocks", small)
    found = dedup(x, tmp_path / "blocks", threshold=0.75, max_pairs=3, **settings)
    assert found.store.only_threshold == 0.75
    for a, b in zip(pairs.duplicates, found.duplicates, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_index_proposes_no_more_pairs_than_it_holds(tmp_path: Path) -> None:
    x = make_rows()
    found = dedup(x, tmp_path / "out", mode="index", removal="greedy", eps=0.1, max_pairs=3)
    assert found.store.only_threshold is None


def test_probes_are_raised_until_a_recall_is_certified(tmp_path: Path) -> None:
    found = dedup(
        make_rows(), tmp_path / "out", mode="clustered", eps=0.1, min_recall=0.9, clustering=Clustering(20, 0)
    )
    assert found.manifest["certificate"]["verdict"] in ("holds", "proven")
    again = dedup(
        make_rows(), tmp_path / "out", mode="clustered", eps=0.05, min_recall=0.9, clustering=Clustering(20, 0)
    )
    assert again.store.floor == found.store.floor


def test_new_rows_are_appended_exactly_unless_rows_are_ordered_by_cluster(tmp_path: Path) -> None:
    x = make_rows()
    dedup(x[:200], tmp_path / "a", mode="clustered", eps=0.1)
    found = dedup_append(x[200:], tmp_path / "b", tmp_path / "a")
    exact = dedup(x, tmp_path / "exact", eps=0.1)
    np.testing.assert_array_equal(found.duplicates.kept[200:], exact.duplicates.kept[200:])
    assert [batch["mode"] for batch in found.manifest["batches"]] == ["clustered", "exact"]
    dedup(x[:200], tmp_path / "c", mode="clustered", eps=0.1, priority="hard")
    with pytest.raises(InputError, match=r"^earlier: its rows are ordered by 'hard'"):
        dedup_append(x[200:], tmp_path / "d", tmp_path / "c")


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    x = make_rows()
    with pytest.raises(InputError, match=r"^clustering: goes with clustered mode"):
        dedup(x, tmp_path / "out", clustering=SMALL)
    with pytest.raises(InputError, match=r"^min_recall: goes with clustered mode, not with index mode"):
        dedup(x, tmp_path / "out", mode="index", min_recall=0.9)
    with pytest.raises(InputError, match=r"^min_recall: goes with clustered mode"):
        dedup(x, tmp_path / "out", min_recall=0.9)
    for share in (-0.1, 1.5):
        with pytest.raises(InputError, match=r"^min_recall: expected a share from 0 to 1, got"):
            dedup(x, tmp_path / "out", mode="clustered", min_recall=share)
    with pytest.raises(InputError, match=r"^threshold: expected a cosine from -1 to 1 .*, got a threshold of 1\.5"):
        dedup(x, tmp_path / "none", threshold=1.5)
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match=r"^probes: expected a whole number of at least 0, got -1"):
        Clustering(probes=-1)
    with pytest.raises(InputError, match=r"^tolerance: expected a share of at least 0 and below 1, got 1"):
        Clustering(tolerance=1)
    with pytest.raises(InputError, match=r"^clusters: expected at most one for each of 400 rows, got 50,000"):
        dedup(x, tmp_path / "semdedup", **dedup_preset("semdedup"))
    with pytest.raises(InputError, match=r"^preset: the pool has no preset 'semdedupe'"):
        dedup_preset("semdedupe")
