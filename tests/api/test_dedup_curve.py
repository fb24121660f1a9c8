"""The curve of kept rows, its page, groups and plan, as people and machines read them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pycurate.api.dedup import dedup
from pycurate.api.dedup_append import dedup_append
from pycurate.api.dedup_curve import dedup_curve
from pycurate.api.dedup_groups import dedup_groups
from pycurate.api.dedup_plan import plan_dedup
from pycurate.errors import InputError, MemoryCapError
from pycurate.kernels.rowwise import pair_similarity
from pycurate.ops.dedup.removal import Removal
from pycurate.report.dedup_page import CurvePoint, render_curve, share_floor

REMOVALS: tuple[Removal, ...] = ("published", "greedy", "component")


def make_rows() -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    x = random.standard_normal((120, 6), dtype=np.float32)
    x[60:100] = x[:40] + 0.2 * random.standard_normal((40, 6), dtype=np.float32)
    x[[7, 40, 41]] = x[3]
    return x


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    captions = [f"caption <b>{i}</b>" for i in range(120)]
    folder = tmp_path_factory.mktemp("curve") / "pool"
    return Path(pool_factory.datacomp(folder, 3, 40, embeddings={"e": make_rows()}, text=captions, images=True))


def printed(value: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(value.render())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("removal", REMOVALS)
def test_the_curve_falls_and_shows_pairs_just_above_each_threshold(
    pool: Path, tmp_path: Path, removal: Removal
) -> None:
    found = dedup(pool, tmp_path / "out", removal=removal, eps=0.1, floor=0.5)
    curve = dedup_curve(tmp_path / "out", examples=2)
    assert [p.eps for p in curve.points] == sorted(p.eps for p in curve.points)
    if removal != "greedy":  # which keeps a row more where a row that it kept before is gone
        assert [p.kept for p in curve.points] == sorted((p.kept for p in curve.points), reverse=True)
    assert curve.chosen is not None
    assert curve.chosen.kept == found.outcome.kept
    assert {p.threshold for p in curve.shown} >= {1.0, 0.5, 0.9}
    assert len(curve.pairs) > 6
    x = make_rows()
    for pair in curve.pairs:
        assert pair.similarity >= np.float32(pair.threshold)
        assert pair.later.image is not None
        a, b = (int(str(row.caption).split("<b>")[1].split("<")[0]) for row in (pair.later, pair.earlier))
        assert pair_similarity(x[a : a + 1], x[b : b + 1])[0] == pair.similarity
    page = curve.page.read_text()
    assert "caption &lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("https://example.org", "")
    text = printed(curve)
    assert "least similar pairs at eps 0.1" in text
    assert f"{found.outcome.kept:,}" in text
    told = curve.to_dict()
    assert told["points"][0] == {"eps": 0.0, "threshold": 1.0, "kept": curve.points[0].kept}
    assert len(told["pairs"]) == len(curve.pairs)


def test_chosen_thresholds_and_pools_that_are_gone(pool: Path, tmp_path: Path) -> None:
    dedup(make_rows(), tmp_path / "array", eps=0.1)
    curve = dedup_curve(tmp_path / "array", [0.9, 0.95], examples=1)
    assert [p.threshold for p in curve.points] == [0.95, 0.9]
    assert curve.pairs[0].later.caption is None
    with pytest.raises(InputError, match=r"below 0\.8, the floor"):
        dedup_curve(tmp_path / "array", [0.7])
    with pytest.raises(InputError, match="holds no finished search"):
        dedup_curve(tmp_path / "nothing")


def test_a_search_by_blocks_says_that_it_knows_one_threshold(tmp_path: Path) -> None:
    dedup(make_rows(), tmp_path / "out", removal="greedy", eps=0.1, max_pairs=3)
    curve = dedup_curve(tmp_path / "out")
    assert [p.threshold for p in curve.points] == [0.9]
    assert "more than 3 pairs: only eps 0.1 is known" in curve.note
    assert "only eps 0.1 is known" in curve.page.read_text()


def test_rows_of_several_batches_are_shown(pool: Path, tmp_path: Path) -> None:
    dedup(make_rows()[:50], tmp_path / "a", eps=0.2, removal="component")
    dedup_append(pool, tmp_path / "b", tmp_path / "a")
    curve = dedup_curve(tmp_path / "b")
    assert any(pair.later.caption is not None for pair in curve.pairs)
    assert any(pair.earlier.caption is None for pair in curve.pairs)


def test_the_largest_groups_come_first(pool: Path, tmp_path: Path) -> None:
    found = dedup(pool, tmp_path / "out", eps=0.2, removal="component")
    groups = dedup_groups(tmp_path / "out", 3)
    assert groups.groups == found.outcome.groups
    sizes = [size for size, _ in groups.shown]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == found.outcome.largest_group
    assert all(rows[0]["uid"] == rows[0]["keeper_uid"] for _, rows in groups.shown)
    assert "kept" in printed(groups)
    assert groups.to_dict()["shown"][0]["rows"] == sizes[0]
    with pytest.raises(InputError, match=r"has no groups\.parquet"):
        dedup_groups(tmp_path)


def test_a_plan_says_what_a_search_takes(pool: Path, tmp_path: Path) -> None:
    plan = plan_dedup(pool, eps=0.1, removal="greedy", memory_bytes=1 << 30)
    assert (plan.rows, plan.dimension, plan.similarities, plan.sampled_rows) == (120, 6, 120 * 119 // 2, 120)
    assert plan.products == plan.similarities * 6
    assert plan.floor == pytest.approx(0.8)
    assert plan.seconds > 0
    assert "at most 1.07" in printed(plan)
    assert plan.to_dict()["memory_bytes"] == 1 << 30
    x = np.random.default_rng(0).standard_normal((5000, 8)).astype(np.float16)
    assert plan_dedup(x, mode="clustered").similarities < 5000 * 4999 // 2
    assert plan_dedup(x, mode="index").similarities < 5000 * 4999 // 2
    assert plan_dedup(x).disk_bytes > x.nbytes
    assert plan_dedup(np.empty((0, 4), np.float32)).similarities == 0
    with pytest.raises(MemoryCapError, match="MiB more"):
        plan_dedup(pool, memory_bytes=1 << 20)


def test_the_axis_of_the_chart_begins_below_the_least_share() -> None:
    assert share_floor(100, []) < 1
    for kept in (0, 1, 10, 50, 90, 99, 100):
        low = share_floor(100, [CurvePoint(0.9, kept)])
        assert 0 <= low <= kept / 100
        assert low < 1
    assert "<svg" in render_curve("t", "n", 0, [], [], None, [])
