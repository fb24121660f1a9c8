from __future__ import annotations

from pathlib import Path
from typing import Any

from pycurate import Recipe, run
from pycurate.report import read_examples
from pycurate.report.outcome import EXAMPLE_SHARDS, example_shards


def test_the_shards_of_examples_depend_on_names_only() -> None:
    names = [f"part/{i:05d}" for i in range(1_000)]
    chosen = example_shards(names)
    assert len(chosen) == EXAMPLE_SHARDS
    assert chosen == example_shards(names[::-1])
    assert len({name[-2:] for name in chosen}) > 4  # spread, not the first few
    assert example_shards(names[:3]) == set(names[:3])


def test_examples_come_from_few_shards_and_counts_from_all(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=12, rows=20)
    recipe = Recipe(name="r", steps=[{"threshold": {"score": "clip_l14_similarity_score", "minimum": 0.22}}])
    result = run(recipe, pool, tmp_path / "out", processes=False)
    shown = {row.shard for group in read_examples(result.out).groups for row in group.rows}
    assert 1 < len(shown) <= EXAMPLE_SHARDS
    assert result.manifest.counts.rows == 240
    assert result.manifest.scores[0].count == 240
