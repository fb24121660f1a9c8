from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pycurate import Recipe, run
from pycurate.report import outcome, read_examples
from pycurate.report.outcome import EXAMPLE_SHARDS, example_shards
from pycurate.types import UID_DTYPE


def test_the_shards_of_examples_depend_on_names_only() -> None:
    names = [f"part/{i:05d}" for i in range(1_000)]
    chosen = example_shards(names)
    assert len(chosen) == EXAMPLE_SHARDS
    assert chosen == example_shards(names[::-1])
    assert len({name[-2:] for name in chosen}) > 2  # spread, not the first few
    assert example_shards(names[:3]) == set(names[:3])


def test_examples_come_from_few_shards_and_counts_from_all(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=12, rows=20)
    recipe = Recipe(name="r", steps=[{"threshold": {"score": "clip_l14_similarity_score", "minimum": 0.22}}])
    result = run(recipe, pool, tmp_path / "out", processes=False)
    shown = {row.shard for group in read_examples(result.out).groups for row in group.rows}
    assert 1 < len(shown) <= EXAMPLE_SHARDS
    assert result.manifest.counts.rows == 240
    assert result.manifest.scores[0].count == 240


def test_examples_come_from_the_first_rows_where_these_have_enough(monkeypatch: Any) -> None:
    monkeypatch.setattr(outcome, "EXAMPLE_ROWS", 20)
    values = np.linspace(0, 1, 100, dtype=np.float32)
    uids = np.zeros(100, UID_DTYPE)
    uids["f0"] = np.arange(100)[::-1]

    def shown(dropped: np.ndarray[Any, Any]) -> list[int]:
        return [c.row for c in outcome._nearest("s", np.flatnonzero(dropped), values, 1.0, uids)]

    assert shown(values <= 1) == [19, 18, 17, 16, 15, 14]
    assert shown(values >= values[15]) == [99, 98, 97, 96, 95, 94]  # only five of them are among the first 20
    assert [c.row for c in outcome._smallest("s", np.arange(100), values.astype(np.float64), uids)] == [
        *range(19, 13, -1)
    ]
    assert outcome._smallest("s", np.arange(15, 100), values.astype(np.float64), uids)[0].row == 99
