"""What a run writes about the duplicates it dropped: groups, counts, examples, report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate import Recipe, run
from pycurate.report import read_examples

STEPS = [
    {"threshold": {"score": "clip_b32_similarity_score", "minimum": 0.2}},
    {"exact_dedup": {"key": "caption", "keep": {"highest": "clip_l14_similarity_score"}, "unjudged": "keep"}},
    {"exact_dedup": {"key": "url", "name": "same_url"}},
]


def make_pool(path: Path, pool_factory: Any, **options: Any) -> Path:
    random = np.random.default_rng(2)
    texts: list[str | None] = [f"a photo of {i}" for i in random.zipf(1.5, 300) % 60]
    texts[7] = None
    urls = [f"https://example.org/{i}.jpg" for i in random.integers(0, 50, 300)]
    made: Path = pool_factory.datacomp(path, shards=3, rows=100, text=texts, url=urls, **options)
    return made


def table_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def ledger_rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "ledger").rglob("*.parquet")) for row in table_of(path)]


def test_groups_hold_every_dropped_row_once_and_each_keeper(tmp_path: Path, pool_factory: Any) -> None:
    pool, out = make_pool(tmp_path / "pool", pool_factory), tmp_path / "out"
    manifest = run(Recipe(name="r", steps=STEPS), pool, out).manifest
    groups = table_of(out / "groups.parquet")
    dropped = {row["uid"]: row for row in ledger_rows(out) if row["rule"] in ("exact_dedup", "same_url")}
    assert len(dropped) > 60
    members = [row for row in groups if row["rule"] is not None]
    assert sorted(row["uid"] for row in members) == sorted(dropped)
    for row in members:
        said = dropped[row["uid"]]
        assert (row["step"], row["rule"], row["similarity"]) == (said["rule"], said["rule"], 1.0)
        assert row["partner_uid"] == row["keeper_uid"] == said["partner_uid"]
    keepers = [row for row in groups if row["rule"] is None]
    assert [row["group"] for row in keepers] == list(range(len(keepers)))
    for row in keepers:
        assert row["uid"] == row["keeper_uid"]
        assert (row["partner_uid"], row["similarity"]) == (None, None)
    order = [(("exact_dedup", "same_url").index(r["step"]), r["keeper_uid"], r["rule"] or "", r["uid"]) for r in groups]
    assert order == sorted(order)
    record = manifest.groups
    assert record is not None
    assert (record.path, record.rows) == ("groups.parquet", len(groups))
    assert record.sha256 == hashlib.sha256((out / "groups.parquet").read_bytes()).hexdigest()
    for step in record.steps:
        mine = [row for row in groups if row["step"] == step.step]
        assert step.groups == sum(row["rule"] is None for row in mine)
        assert step.dropped == len(mine) - step.groups
        assert step.largest == max(sum(r["group"] == g["group"] for r in mine) for g in mine)
        assert sum(size.groups for size in step.sizes) == step.groups


def test_groups_do_not_depend_on_how_it_is_run(tmp_path: Path, pool_factory: Any) -> None:
    pool = make_pool(tmp_path / "pool", pool_factory)
    recipe = Recipe(name="r", steps=STEPS)
    run(recipe, pool, tmp_path / "one", workers=1, processes=False)
    expected = (tmp_path / "one" / "groups.parquet").read_bytes()
    run(recipe, pool, tmp_path / "two", workers=2, processes=True)
    assert (tmp_path / "two" / "groups.parquet").read_bytes() == expected


@pytest.mark.parametrize(
    "place", ["pycurate.api.run.write_run", "pycurate.api.run._Run._write_groups", "pycurate.api.run.merge_runs"]
)
def test_a_run_killed_while_deciding_writes_the_same_groups(
    tmp_path: Path, pool_factory: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    pool = make_pool(tmp_path / "pool", pool_factory)
    recipe = Recipe(name="r", steps=STEPS)
    run(recipe, pool, tmp_path / "whole")

    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(place, killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, pool, tmp_path / "out")
    run(recipe, pool, tmp_path / "out")
    for name in ("groups.parquet", "subset.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "out" / "workspace" / "scratch").iterdir())


def test_a_later_run_without_such_a_step_leaves_no_groups_behind(tmp_path: Path, pool_factory: Any) -> None:
    pool = make_pool(tmp_path / "pool", pool_factory)
    run(Recipe(name="r", steps=STEPS), pool, tmp_path / "out")
    manifest = run(Recipe(name="r", steps=STEPS[:1]), pool, tmp_path / "out").manifest
    assert manifest.groups is None
    assert not (tmp_path / "out" / "groups.parquet").exists()


def test_examples_show_largest_groups_with_captions_and_pictures(tmp_path: Path, pool_factory: Any) -> None:
    pool, out = make_pool(tmp_path / "pool", pool_factory, images=True), tmp_path / "out"
    run(Recipe(name="r", steps=STEPS), pool, out)
    stored = {row["uid"]: row for path in pool.glob("*.parquet") for row in table_of(path)}
    groups = table_of(out / "groups.parquet")
    shown = read_examples(out).duplicates
    for step in ("exact_dedup", "same_url"):
        mine = [group for group in shown if group.step == step]
        assert {group.choice for group in mine} == {"largest", "least similar"}
        assert len({group.keeper.uid for group in mine}) == len(mine) == 8
        sizes = [group.size for group in mine if group.choice == "largest"]
        counted = [sum(r["group"] == g["group"] for r in groups) for g in groups if g["step"] == step and not g["rule"]]
        assert sizes == sorted(counted, reverse=True)[: len(sizes)]
    for group in shown:
        for row in (group.keeper, *group.rows):
            assert row.caption == stored[row.uid]["text"]
            assert row.url == stored[row.uid]["url"]
            assert row.image or row.image_note
        assert {row.value for row in group.rows} == {1.0}
        members = {row["uid"] for row in groups if row["keeper_uid"] == group.keeper.uid and row["step"] == group.step}
        assert {row.uid for row in group.rows} < members
    page = (out / "report.html").read_text()
    assert '<h2 id="duplicates">Duplicates</h2>' in page
    assert page.count('class="sheet"') == len(shown)


def test_nothing_dropped_is_no_group(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=30)
    manifest = run(Recipe(name="r", steps=[{"exact_dedup": "url"}]), pool, tmp_path / "out").manifest
    assert manifest.groups is not None
    assert (manifest.groups.rows, manifest.groups.steps[0].groups) == (0, 0)
    assert table_of(tmp_path / "out" / "groups.parquet") == []
    assert "No row duplicates another." in (tmp_path / "out" / "report.html").read_text()
