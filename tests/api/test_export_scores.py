"""export_scores: every score column of a finished run, keyed by uid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate import Recipe, run
from pycurate.api.export_scores import export_scores
from pycurate.errors import InputError, WorkspaceError
from pycurate.io.pool import open_pool
from pycurate.io.subset import Subset
from pycurate.steps import Frequency, Language, Threshold, TopFraction


def language(caption: str) -> str:
    return "en" if len(caption) % 2 else ""


@pytest.fixture
def finished(tmp_path: Path, pool_factory: Any) -> tuple[Path, Path]:
    """A pool and the folder of a run over it."""
    scores = np.linspace(0, 0.4, 120, dtype=np.float32)
    scores[7] = np.nan
    pool = pool_factory.datacomp(tmp_path / "pool", shards=3, rows=40, clip_l14_similarity_score=scores)
    steps = [
        Threshold(score="clip_l14_similarity_score", minimum=0.2),
        Frequency(key="caption", max_rows=5),
        TopFraction(score="original_width", fraction=0.5),
        Language(languages=("en",), detector=language, version=1, name="lang"),
    ]
    return pool, run(Recipe(name="r", steps=steps), pool, tmp_path / "run", processes=False).out


def test_scores_of_every_row_by_uid(finished: tuple[Path, Path], tmp_path: Path) -> None:
    pool, out = finished
    result = export_scores(out, tmp_path / "scores", workers=2)
    assert (result.files, result.rows) == (3, 120)
    for shard in open_pool(pool).shards:
        stored = pq.read_table(pool / f"{shard.name}.parquet")
        made = pq.read_table(tmp_path / "scores" / f"{shard.name}.parquet")
        assert made.column_names == ["uid", *result.columns]
        assert made["uid"].to_pylist() == stored["uid"].to_pylist()
        score = "clip_l14_similarity_score"
        assert made[score].type == stored[score].type
        expected = [None if value != value else value for value in stored[score].to_pylist()]
        assert made[score].to_pylist() == expected
        assert made["original_width"].to_pylist() == stored["original_width"].to_pylist()
        assert made["lang"].to_pylist() == [language(text) or None for text in stored["text"].to_pylist()]
        keys = made["frequency.key"].to_pylist()
        assert all(len(key) == 32 for key in keys)
        assert len(set(keys)) == len(set(stored["text"].to_pylist()))


def test_only_rows_of_a_subset_and_files_of_an_earlier_call_go(finished: tuple[Path, Path], tmp_path: Path) -> None:
    out = finished[1]
    export_scores(out, tmp_path / "scores")
    (tmp_path / "scores" / "scores.json").write_text(json.dumps({"files": ["gone.parquet"]}))
    (tmp_path / "scores" / "gone.parquet").touch()
    kept = Subset.load(out / "subset.npy")
    assert 0 < len(kept.uids) < 120
    result = export_scores(out, tmp_path / "scores", subset=out / "subset.npy")
    assert result.rows == len(kept.uids)
    made = [uid for path in (tmp_path / "scores").glob("*.parquet") for uid in pq.read_table(path)["uid"].to_pylist()]
    assert np.array_equal(Subset.from_hex(made).uids, kept.uids)
    assert not (tmp_path / "scores" / "gone.parquet").exists()


def test_a_folder_without_a_finished_run_and_a_folder_of_something_else(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    pool, out = finished
    with pytest.raises(InputError, match=r"holds no finished run with its workspace .*: repeat the run there"):
        export_scores(pool, tmp_path / "scores")
    with pytest.raises(WorkspaceError, match="is not empty and holds no exported scores; choose another folder"):
        export_scores(out, out)
