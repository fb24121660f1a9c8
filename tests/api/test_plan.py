"""``plan``: exact bytes and rows, nothing written, a sample that measures the real steps."""

from __future__ import annotations

import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pycurate.api.plan import plan
from pycurate.api.plan_report import Plan
from pycurate.api.plan_sample import Sample, estimate_time, sample_scan
from pycurate.errors import InputError, MemoryCapError, MissingDependencyError, PoolError, RecipeError
from pycurate.io.pool import open_pool
from pycurate.io.shard import Shard
from pycurate.pipeline.scan import Scanner, ScanTask, column_sets
from pycurate.pipeline.step import Needs, Step
from pycurate.pipeline.workspace import Workspace
from pycurate.recipes import Recipe
from pycurate.types import Block, ScoreArray

SHARDS, ROWS = 3, 200
TOTAL = SHARDS * ROWS

RECIPE = Recipe(
    name="trial",
    steps=[
        {"clip_score": {"as": "clip", "embeddings": "l14"}},
        {"threshold": {"score": "clip", "minimum": 0.1}},
        {"threshold": {"score": "clip_b32_similarity_score", "minimum": 0.2, "maximum": 0.9}},
        {"image_rules": {"min_side": 100, "max_aspect": 3}},
    ],
)


class Slow(Step):
    """A score that takes at least ``seconds_per_row``."""

    kind: ClassVar[str] = "slow"
    seconds_per_row: float = 1e-5

    def score_needs(self) -> Needs:
        return Needs(columns=("original_width",))

    def produces(self) -> tuple[str, ...]:
        return ("slow",)

    def score(self, block: Block) -> dict[str, ScoreArray]:
        time.sleep(self.seconds_per_row * block.rows)
        return {"slow": np.zeros(block.rows, np.float32)}


class Repeated(Slow):
    """Work for each row, in Python, as the pipeline is told."""

    kind: ClassVar[str] = "repeated"
    python_bound: ClassVar[bool] = True
    seconds_per_row: float = 0.0


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Path:
    path: Path = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS)
    return path


@pytest.fixture(scope="module")
def wider_pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("plan") / "pool"
    made: Path = pool_factory.datacomp(path, 4, 2000, embeddings={"a": np.zeros((8000, 2), np.float16)})
    return made


def shown(made: Plan) -> str:
    console = Console(width=250, file=io.StringIO())
    console.print(made.render())
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def tree(path: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in path.rglob("*")}


def stored_bytes(pool: Path, columns: set[str]) -> int:
    total = 0
    for path in pool.glob("*.parquet"):
        group = pq.ParquetFile(path).metadata.row_group(0)
        chunks = [group.column(i) for i in range(group.num_columns)]
        total += sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema in columns)
    return total


def scan(pool: Path, recipe: Recipe, out: Path, shards: slice = slice(None)) -> None:
    """What a killed run leaves: some shards scored."""
    sets = column_sets(recipe.steps)
    opened = open_pool(pool)
    scanner = Scanner(opened, Workspace(out / "workspace"), tuple(sets), 64)
    (out / "workspace").mkdir(parents=True, exist_ok=True)
    for shard in opened.shards[shards]:
        task = scanner.missing(shard, shard.fingerprint())
        assert task is not None
        scanner.run(task)


def test_bytes_rows_and_disk_are_exact(pool: Path) -> None:
    made = plan(RECIPE, pool, workers=2, memory_bytes=1 << 30)
    assert (made.rows, made.shards, made.layout) == (TOTAL, SHARDS, "datacomp")
    columns = {"uid", "clip_b32_similarity_score", "original_width", "original_height"}
    assert set(made.read.columns) == columns
    assert made.read.embeddings == ("l14_img", "l14_txt")
    assert made.read.total_bytes == 2 * TOTAL * 24 * 2 + stored_bytes(pool, columns)
    assert (made.read.left_bytes, made.read.reused_bytes, made.read.left_shards) == (made.read.total_bytes, 0, SHARDS)
    assert made.disk.uid_bytes == made.disk.run_bytes == made.disk.subset_bytes == 16 * TOTAL
    # clip float32 and its flags uint8, the stored column float32, two measures float64
    assert made.disk.score_bytes == (4 + 1 + 4 + 8 + 8) * TOTAL
    assert made.disk.scratch_bytes == 0
    assert made.disk.total_bytes == 3 * 16 * TOTAL + made.disk.score_bytes + made.disk.ledger_bytes
    assert made.disk.free_bytes is None
    assert (made.memory.cap_bytes, made.memory.workers, made.memory.processes) == (1 << 30, 2, 0)


def test_the_ledger_fits_its_bound(tmp_path: Path) -> None:
    from pycurate.api.plan import LEDGER_ROW_BYTES
    from pycurate.pipeline.decide import Decision
    from pycurate.pipeline.ledger import write_ledger
    from pycurate.types import UID_DTYPE, Rule

    rows = 100_000
    random = np.random.default_rng(0)
    uids = np.frombuffer(random.bytes(16 * rows), UID_DTYPE)
    reason = random.integers(1, 4, rows).astype(np.uint16)
    rules = [Rule(name, name, threshold=0.1) for name in ("a", "b", "c")]
    write_ledger(tmp_path / "ledger.parquet", uids, Decision(reason, random.random(rows), None, (rows,), (0,)), rules)
    assert 40 * rows < (tmp_path / "ledger.parquet").stat().st_size < LEDGER_ROW_BYTES * rows


def test_nothing_is_written(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    scan(pool, RECIPE, tmp_path / "out", slice(0, 1))
    before = tree(tmp_path)
    plan(RECIPE, pool, sample_seconds=0.05)
    plan(RECIPE, pool, sample_seconds=0.05, out=tmp_path / "out")
    plan(RECIPE, pool, sample_seconds=0.05, out=tmp_path / "new" / "deep")
    assert tree(tmp_path) == before


def test_what_an_earlier_run_left_is_not_read_again(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = plan(RECIPE, pool, out=out, sample_seconds=0.05)
    scan(pool, RECIPE, out, slice(0, 2))
    made = plan(RECIPE, pool, out=out, sample_seconds=0.05)
    last = open_pool(pool).shards[-1]
    left = last.bytes_to_read(
        ("original_width", "original_height", "clip_b32_similarity_score"), ("l14_img", "l14_txt"), uids=True
    )
    assert (made.read.total_bytes, made.read.left_bytes, made.read.left_shards) == (whole.read.total_bytes, left, 1)
    assert made.disk.uid_bytes == 16 * ROWS
    assert made.disk.score_bytes == whole.disk.score_bytes // SHARDS
    assert any("2 of 3 shards have all their scores" in note for note in made.notes)

    more = Recipe(name="more", steps=[*RECIPE.steps, {"caption_rules": {"min_words": 2}}])
    added = plan(more, pool, out=out, sample_seconds=0.05)
    assert added.read.left_shards == SHARDS
    assert added.read.left_bytes == left + stored_bytes(pool, {"text"})
    assert added.disk.score_bytes == made.disk.score_bytes + 4 * TOTAL

    scan(pool, RECIPE, out, slice(2, 3))
    done = plan(RECIPE, pool, out=out, sample_seconds=0.05)
    assert (done.read.left_bytes, done.read.left_shards, done.disk.score_bytes) == (0, 0, 0)
    assert done.time is not None
    assert (done.time.rows_per_second, done.time.scan_seconds) == (None, 0.0)
    assert "nothing to score" in shown(done)


def test_steps_are_told_in_words(pool: Path) -> None:
    clip, above, between, image = plan(RECIPE, pool, sample_seconds=0).steps
    assert clip.sentence == "reads l14_img, l14_txt; makes clip, clip.flags"
    assert above.sentence == "keeps rows where clip >= 0.1"
    assert between.decides_by == ("clip_b32_similarity_score",)
    assert between.sentence == (
        "keeps rows where clip_b32_similarity_score >= 0.2 and clip_b32_similarity_score <= 0.9"
    )
    assert image.reads == ("original_width", "original_height")
    assert "keeps rows where shorter side >= 100 and aspect ratio <= 3" in image.sentence
    fitted = Recipe(name="top", steps=[{"top_fraction": {"score": "clip_l14_similarity_score", "fraction": 0.3}}])
    (top,) = plan(fitted, pool, sample_seconds=0).steps
    assert top.sentence == "looks at all of clip_l14_similarity_score to find its rule; keeps or drops by it"


def test_repeated_keys_need_scratch(pool: Path) -> None:
    recipe = Recipe(name="few", steps=[{"frequency": {"key": "caption", "max_rows": 2}}])
    assert plan(recipe, pool, sample_seconds=0.05).disk.scratch_bytes == 16 * TOTAL


def test_a_full_disk_and_a_strangers_folder_are_warned_of(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    made = plan(RECIPE, pool, out=out, sample_seconds=0.05)
    assert made.warnings == ()
    assert made.disk.free_bytes is not None
    needed = made.disk.total_bytes
    small = shutil.disk_usage(tmp_path)._replace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    full = plan(RECIPE, pool, out=out, sample_seconds=0.05)
    assert full.warnings == (
        f"The run may not fit: up to {needed:,} bytes to write, {needed - 1:,} free at {out}. Choose an output folder "
        "on a larger disk.",
    )
    assert "Warning: The run may not fit" in shown(full)
    monkeypatch.undo()
    out.mkdir()
    (out / "thesis.tex").touch()
    (warning,) = plan(RECIPE, pool, out=out, sample_seconds=0.05).warnings
    assert "is not empty and is not from an earlier run" in warning


def test_what_would_stop_the_run_stops_the_plan(pool: Path, tmp_path: Path) -> None:
    def recipe(**threshold: Any) -> Recipe:
        return Recipe(name="wrong", steps=[{"threshold": {"minimum": 0.1, **threshold}}])

    with pytest.raises(RecipeError, match=r"'clip_l14_similarity_scor'.*did you mean 'clip_l14_similarity_score'"):
        plan(recipe(score="clip_l14_similarity_scor"), pool)
    with pytest.raises(RecipeError, match=r"no embedding 'l15_img'.*did you mean 'l14_img'"):
        plan(Recipe(name="wrong", steps=[{"clip_score": {"embeddings": "l15"}}]), pool)
    with pytest.raises(MissingDependencyError, match=r"words\.txt"):
        plan(Recipe(name="w", steps=[{"caption_rules": {"word_list": str(tmp_path / "words.txt")}}]), pool)
    with pytest.raises(MemoryCapError, match="give at least"):
        plan(RECIPE, pool, memory_bytes=100 << 20)
    with pytest.raises(InputError, match="workers: expected at least 1, got 0"):
        plan(RECIPE, pool, workers=0)
    first = min(pool.glob("*.npz"))
    first.write_bytes(first.read_bytes()[:3000])
    with pytest.raises(PoolError, match="truncated"):
        plan(RECIPE, pool)


def test_no_sample_reads_no_row(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a row was read")

    monkeypatch.setattr(Shard, "blocks", refuse)
    made = plan(RECIPE, pool, sample_seconds=0)
    assert made.time is None
    assert "no sample was taken" in shown(made)


@pytest.mark.parametrize(("workers", "processes"), [(1, False), (2, False), (2, True)])
def test_the_sample_measures_the_real_steps(wider_pool: Path, workers: int, processes: bool) -> None:
    recipe = Recipe(name="slow", steps=[Slow()])
    started = time.perf_counter()
    made = plan(recipe, wider_pool, workers=workers, processes=processes, sample_seconds=0.2)
    assert time.perf_counter() - started < 6
    assert made.time is not None
    assert made.time.rows_per_second is not None
    assert 0 < made.time.rows_per_second < 1e5
    assert made.time.scan_seconds > 8000 / 1e5 / workers
    assert 3 * 1024 <= made.time.sampled_rows <= 8000
    assert made.disk.score_bytes == 4 * 8000


def test_time_follows_from_the_sample() -> None:
    sample = Sample(rows=5000, seconds=0.5, set_up_seconds=2.0)

    def scan_seconds(sample: Sample, rows_left: int, shards_left: int, processes: bool = False) -> float:
        return estimate_time(sample, 10**6, rows_left, 4, processes, shards_left).scan_seconds

    assert scan_seconds(sample, 10**6, 10) == 2 + 10**6 / 4e4
    assert scan_seconds(sample, 10**5, 2) == 2 + 10**5 / 2e4
    assert scan_seconds(sample, 10**5, 2, processes=True) == 4 + 10**5 / 2e4
    assert scan_seconds(Sample(), 0, 0) == 0


def test_the_sample_stops_when_its_time_is_over(wider_pool: Path, tmp_path: Path) -> None:
    pool = open_pool(wider_pool)
    sets = tuple(column_sets([Slow(name="slow", seconds_per_row=1e-4)]))
    tasks = [ScanTask(shard.name, "", tuple(s.folder for s in sets)) for shard in pool.shards]
    sample = sample_scan(Scanner(pool, Workspace(tmp_path / "none"), sets, 65_536), tasks, 1, False, 0.1)
    assert sample.rows == 3 * 1024  # one block of each of three shards is over the time already
    assert sample.seconds >= 0.3


def test_a_damaged_row_in_the_sample_is_named(tmp_path: Path, pool_factory: Any) -> None:
    uids = [f"{i:032x}" for i in range(20)]
    uids[3] = "no uid"
    pool = pool_factory.datacomp(tmp_path / "pool", 1, 20, uid=uids)
    with pytest.raises(PoolError, match="row 3: uid 'no uid' is not 32 hex digits"):
        plan("datacomp-none", pool)


def test_python_for_every_row_is_noted(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(name="python", steps=[Repeated()])
    small = plan(recipe, pool, workers=2, sample_seconds=0.05)
    assert small.memory.processes == 0
    assert any("so little work does not pay for starting worker processes" in note for note in small.notes)
    monkeypatch.setattr("pycurate.api.settings.PROCESS_START_SECONDS", 0.0)
    made = plan(recipe, pool, workers=2, sample_seconds=0.05)
    assert made.memory.processes == 2
    assert "repeated runs Python for every row, in 2 worker processes: that sets the pace, not reading." in made.notes
    assert "No embedding is read: the recipe uses stored columns only." in made.notes
    single = plan(recipe, pool, workers=1, sample_seconds=0.05)
    assert single.memory.processes == 0
    many = plan(RECIPE, pool, workers=5, sample_seconds=0.05)
    assert many.notes == ("There are fewer shards to read (3) than workers (5); some will idle.",)


def test_people_and_machines_read_it(pool: Path, tmp_path: Path) -> None:
    made = plan(RECIPE, pool, out=tmp_path / "out", workers=1, sample_seconds=0.05)
    values = json.loads(json.dumps(made.to_dict()))
    assert values["disk"]["total_bytes"] == made.disk.total_bytes
    assert values["read"]["reused_bytes"] == 0
    assert values["time"]["seconds"] == pytest.approx(made.time.seconds if made.time else None)
    assert values["steps"][1]["sentence"] == "keeps rows where clip >= 0.1"
    text = shown(made)
    for words in ("600 rows in 3 shards", "an estimate from", "1 threads", "keeps rows where clip >= 0.1", "free at"):
        assert words in text
    long = replace(made, time=estimate_time(Sample(1000, 1.0, 0.0), 10**9, 10**9, 1, False, 3))
    assert "about 278.3 h" in shown(long)


@pytest.mark.parametrize(("mode", "copies"), [("exact", 1), ("clustered", 2), ("index", 2)])
def test_copies_of_embeddings_are_counted(tmp_path: Path, pool_factory: Any, mode: str, copies: int) -> None:
    made = pool_factory.datacomp(tmp_path / "pool", 2, 50, embeddings={"a": np.zeros((100, 6), np.float16)})
    recipe = Recipe(name="r", steps=[{"semantic_dedup": {"embedding": "a", "mode": mode}}])
    disk = plan(recipe, made, sample_seconds=0).disk
    assert disk.scratch_bytes == (copies * 12 + 124 + 168) * 100


def test_duplicates_need_scratch_partners_and_groups(pool: Path) -> None:
    recipe = Recipe(name="r", steps=[{"exact_dedup": "url"}, {"exact_dedup": "caption"}])
    disk = plan(recipe, pool, sample_seconds=0).disk
    assert disk.artefact_bytes == 2 * 20 * TOTAL
    assert disk.scratch_bytes == (2 * 84 + 168) * TOTAL
    assert disk.groups_bytes == 124 * TOTAL
