"""A run end to end: what it writes, that nothing but pool and recipe decides it, and that it survives being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

import pycurate
from pycurate import Recipe, open_pool
from pycurate.api.run import RunResult
from pycurate.engine import NoProgress
from pycurate.errors import InputError, MemoryCapError, PoolError, RecipeError, WorkspaceError
from pycurate.io.pool import Pool
from pycurate.kernels import Isa
from pycurate.report import read_examples, read_manifest
from pycurate.types import UID_DTYPE

STEPS = """
name: several
steps:
  - clip_score: {embeddings: l14, as: clip}
  - image_rules: {min_side: 200, max_aspect: 3}
  - caption_rules: {min_words: 2}
  - filter: "original_width < 1900 and url not like '%7.jpg'"
  - frequency: {key: caption, max_rows: 1}
  - top_fraction: {score: clip, fraction: 0.5, of: survivors}
"""


def run(recipe: Any, pool: Any, out: Path, **options: Any) -> RunResult:
    """``pycurate.run`` on threads unless told otherwise: starting worker processes is most of a small run's time."""
    return pycurate.run(recipe, pool, out, **{"processes": False, **options})


@pytest.fixture
def pool_path(tmp_path: Path, pool_factory: Any) -> Path:
    return Path(pool_factory.datacomp(tmp_path / "pool", shards=4, rows=300))


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.from_yaml(STEPS)


def outputs(out: Path) -> dict[str, bytes]:
    """Everything of a run that must be the same bytes whatever machine or history made it."""
    ledger = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted((out / "ledger").rglob("*.parquet"))}
    return {"subset.npy": (out / "subset.npy").read_bytes(), **ledger}


def test_a_run_writes_a_subset_that_its_ledger_explains(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    result = run(recipe, pool_path, tmp_path / "out")
    out = result.out
    subset = np.load(out / "subset.npy")
    assert subset.dtype == UID_DTYPE
    assert (np.sort(subset) == subset).all()
    rows = duckdb.sql(f"select * from '{out}/ledger/**/*.parquet'").df()
    pool_uids = duckdb.sql(f"select uid from '{pool_path}/*.parquet'").df().uid
    assert sorted(rows.uid) == sorted(pool_uids)
    kept = {f"{int(high):016x}{int(low):016x}" for high, low in subset.tolist()}
    assert set(rows.uid[rows.keep]) == kept
    assert rows[rows.keep].rule.isna().all()
    dropped = rows[~rows.keep]
    assert dropped.rule.notna().all()
    assert {name.split(".")[0] for name in dropped.rule} == {
        "image_rules", "caption_rules", "filter", "frequency", "top_fraction",
    }  # fmt: skip
    compared = dropped[dropped.rule.isin(["top_fraction", "image_rules.min_side", "caption_rules.min_words"])]
    assert (compared.value < compared.threshold).all()
    manifest = result.manifest
    assert manifest == read_manifest(out)
    assert (manifest.counts.rows, manifest.counts.kept) == (1200, len(subset))
    by_rule = dropped.rule.value_counts().to_dict()
    assert {r.name: r.dropped for s in manifest.steps for r in s.rules if r.dropped} == by_rule
    entering = [step.entering for step in manifest.steps]
    assert entering[0] == 1200
    assert all(step.kept == after for step, after in zip(manifest.steps, [*entering[1:], len(subset)], strict=True))


def test_the_ledger_tells_rows_in_the_order_of_the_pool(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, pool_path, tmp_path / "out")
    for shard in open_pool(pool_path).shards:
        ledger = pq.read_table(tmp_path / "out" / "ledger" / f"{shard.name}.parquet")
        assert ledger["uid"].to_pylist() == pq.read_table(pool_path / f"{shard.name}.parquet")["uid"].to_pylist()


@pytest.fixture
def expected(pool_path: Path, recipe: Recipe, tmp_path: Path) -> dict[str, bytes]:
    return outputs(run(recipe, pool_path, tmp_path / "expected", workers=1).out)


@pytest.mark.parametrize(("workers", "processes"), [(2, False), (3, True)])
def test_workers_change_nothing(
    pool_path: Path, recipe: Recipe, tmp_path: Path, expected: dict[str, bytes], workers: int, processes: bool
) -> None:
    result = run(recipe, pool_path, tmp_path / "out", workers=workers, processes=processes)
    assert outputs(result.out) == expected


def test_instruction_sets_change_nothing(
    isa: Isa, pool_path: Path, recipe: Recipe, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    assert outputs(run(recipe, pool_path, tmp_path / "out", workers=1).out) == expected


def test_memory_and_so_block_size_change_nothing(
    pool_path: Path, recipe: Recipe, tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pycurate.engine.memory.MAX_BLOCK_ROWS", 7)
    monkeypatch.setattr("pycurate.engine.memory.MIN_BLOCK_ROWS", 7)
    assert outputs(run(recipe, pool_path, tmp_path / "out", memory_bytes=600 << 20).out) == expected


def test_the_order_in_which_shards_are_listed_changes_nothing(
    pool_path: Path, recipe: Recipe, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    opened = open_pool(pool_path)
    facts = {name: getattr(opened, name) for name in ("root", "layout", "columns", "embeddings", "uid_source")}
    shuffled = Pool(shards=opened.shards[::-1], **facts)
    assert outputs(run(recipe, shuffled, tmp_path / "out").out) == expected


class _Count(NoProgress):
    def __init__(self) -> None:
        self.scanned = 0
        self._stage = ""

    def start(self, stage: str, shards: int) -> None:
        self._stage = stage

    def advance(self, rows: int, read_bytes: int = 0) -> None:
        self.scanned += rows if self._stage == "scan" else 0


def test_a_finished_run_is_not_done_again(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    first = run(recipe, pool_path, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    second = run(recipe, pool_path, tmp_path / "out")
    assert (first.reused, second.reused) == (False, True)
    assert second.manifest == first.manifest
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before
    (tmp_path / "out" / "subset.npy").write_bytes(b"spoilt")
    third = run(recipe, pool_path, tmp_path / "out")
    assert not third.reused
    assert len(np.load(third.subset)) == first.manifest.counts.kept


def test_a_changed_threshold_reads_no_pool_file(pool_path: Path, tmp_path: Path) -> None:
    run(Recipe.from_yaml(STEPS), pool_path, tmp_path / "out")
    progress = _Count()
    changed = STEPS.replace("min_side: 200", "min_side: 300").replace("fraction: 0.5", "fraction: 0.25")
    result = run(Recipe.from_yaml(changed), pool_path, tmp_path / "out", progress=progress)
    assert progress.scanned == 0
    fresh = run(Recipe.from_yaml(changed), pool_path, tmp_path / "fresh")
    assert outputs(result.out) == outputs(fresh.out)


def test_a_changed_shard_is_read_again_and_no_other(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, pool_path, tmp_path / "out")
    parquet = sorted(pool_path.glob("*.parquet"))[1]
    table = pq.read_table(parquet)
    pq.write_table(table.set_column(2, "text", [["one two three"] * len(table)]), parquet)
    progress = _Count()
    result = run(recipe, pool_path, tmp_path / "out", progress=progress)
    assert progress.scanned == 300
    assert outputs(result.out) == outputs(run(recipe, pool_path, tmp_path / "fresh").out)


def test_a_shard_that_left_the_pool_leaves_the_ledger(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, pool_path, tmp_path / "out")
    gone = min(pool_path.glob("*.parquet"))
    gone.with_suffix(".npz").unlink()
    gone.unlink()
    result = run(recipe, pool_path, tmp_path / "out")
    assert outputs(result.out) == outputs(run(recipe, pool_path, tmp_path / "fresh").out)


@pytest.mark.parametrize("killed_in", ["write_run", "write_marker"])
def test_another_recipe_killed_in_the_folder_spoils_nothing(
    pool_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    """Both recipes keep as many rows of every shard, so that no size tells their files apart."""

    first, second = (
        Recipe(name="r", steps=[{"filter": f"url like '%{digit}.jpg'"}]) for digit in (1, 2)
    )  # fmt: skip
    before = outputs(run(first, pool_path, tmp_path / "out").out)

    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pycurate.api.run.{killed_in}", killed)
        with pytest.raises(KeyboardInterrupt):
            run(second, pool_path, tmp_path / "out", workers=1)
    assert outputs(run(first, pool_path, tmp_path / "out").out) == before


def test_files_of_the_user_stay(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, pool_path, tmp_path / "out")
    (tmp_path / "out" / "mine.tmp").write_text("mine")
    run("datacomp-none", pool_path, tmp_path / "out")
    assert (tmp_path / "out" / "mine.tmp").read_text() == "mine"


SCRIPT = """
import sys, time
from pathlib import Path
import pycurate, pycurate.pipeline.workspace as workspace, pycurate.steps
plain = workspace.write_marker
def slow(*args, **kwargs):
    time.sleep(0.03)
    return plain(*args, **kwargs)
workspace.write_marker = slow
import pycurate.api.run as api
api.write_marker = slow
if __name__ == "__main__":
    print("go", flush=True)
    recipe = pycurate.Recipe.from_yaml(Path(sys.argv[1]).read_text())
    pycurate.run(recipe, sys.argv[2], sys.argv[3], workers=2, processes=sys.argv[4] == "processes")
"""


@pytest.mark.parametrize(
    ("kill", "how"), [(signal.SIGKILL, "threads"), (signal.SIGKILL, "processes"), (signal.SIGINT, "threads")]
)
def test_a_run_killed_anywhere_continues_to_the_same_bytes(
    pool_path: Path, recipe: Recipe, tmp_path: Path, expected: dict[str, bytes], kill: signal.Signals, how: str
) -> None:
    script, steps, out = tmp_path / "script.py", tmp_path / "steps.yaml", tmp_path / "out"
    script.write_text(SCRIPT)
    steps.write_text(STEPS)
    for delay in (0.05, 0.3, 0.6, 1.0):
        process = subprocess.Popen(
            [sys.executable, script, steps, pool_path, out, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, kill)
        process.communicate(timeout=60)
    assert outputs(run(recipe, pool_path, out).out) == expected
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"out": "notes"}, WorkspaceError, "out: .*notes is not empty and is not from an earlier pycurate run"),
        ({"out": "notes/text.txt"}, WorkspaceError, "out: cannot use .*text.txt as a folder"),
        ({"memory_bytes": 1 << 20}, MemoryCapError, "memory: 1 MiB is not enough for .* give at least"),
        ({"workers": 0}, InputError, "workers: expected at least 1, got 0"),
        ({"recipe": "datacomp-clip-l14-3O"}, RecipeError, "did you mean"),
        ({"pool": "nowhere"}, PoolError, "'.*nowhere' does not exist"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_do(
    pool_path: Path, tmp_path: Path, change: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text.txt").write_text("mine")
    arguments: dict[str, Any] = {"recipe": "datacomp-none", "pool": pool_path, "out": "out", **change}
    arguments["out"] = tmp_path / arguments["out"]
    with pytest.raises(kind, match=sentence):
        run(**arguments)
    assert (tmp_path / "notes" / "text.txt").read_text() == "mine"


def test_duplicate_uids_are_refused_or_kept_as_copies(tmp_path: Path, pool_factory: Any) -> None:
    uids = [f"{i % 90:032x}" for i in range(100)]
    path = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=50, uid=uids)
    with pytest.raises(PoolError, match=r"uid 0{32} .*allow-duplicate-uids"):
        run("datacomp-none", path, tmp_path / "out")
    result = run("datacomp-none", path, tmp_path / "out", allow_duplicate_uids=True)
    found = np.load(result.subset)
    assert len(found) == 100
    assert len(np.unique(found)) == 90


def test_one_row_is_a_pool(tmp_path: Path, pool_factory: Any) -> None:
    path = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=1)
    assert run("datacomp-clip-l14-30", path, tmp_path / "out").manifest.counts.rows == 1


def test_examples_are_the_rows_nearest_to_a_threshold(pool_path: Path, tmp_path: Path) -> None:
    result = run("datacomp-clip-l14-30", pool_path, tmp_path / "out")
    (rule,) = [r for s in result.manifest.steps for r in s.rules if r.threshold is not None]
    groups = {group.side: group.rows for group in read_examples(result.out).groups}
    scores = np.concatenate(
        [pq.read_table(p)["clip_l14_similarity_score"] for p in sorted(pool_path.glob("*.parquet"))]
    )
    above, below = np.sort(scores[scores >= rule.threshold]), np.sort(scores[scores < rule.threshold])[::-1]
    np.testing.assert_allclose([row.value for row in groups["above"]], above[:6])
    np.testing.assert_allclose([row.value for row in groups["below"]], below[:6])
    captions = {u: t for p in pool_path.glob("*.parquet") for u, t in zip(*_columns(p, "uid", "text"), strict=True)}
    assert all(row.caption == captions[row.uid] for rows in groups.values() for row in rows)


def _columns(path: Path, *names: str) -> list[list[Any]]:
    table = pq.read_table(path, columns=list(names))
    return [table[name].to_pylist() for name in names]


def test_the_manifest_is_json_that_other_tools_read(pool_path: Path, recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, pool_path, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert facts["memory"]["peak_bytes"] > 0
    assert [stage["name"] for stage in facts["stages"]] == ["fingerprint", "scan", "fit", "decide", "write"]
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_run_by_command_loads_only_what_it_uses(tmp_path: Path, pool_factory: Any) -> None:
    """Each of these costs 10 to 100 ms of every run; a preset over stored scores needs none of them."""
    pool = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=20)
    heavy = ["PIL", "asyncio", "duckdb", "fsspec", "multiprocessing.pool", "numba", "pandas", "pyarrow.compute", "rich"]
    arguments = ["pycurate", "run", "datacomp-clip-l14-30", str(pool), "-o", str(tmp_path / "out"), "-q"]
    code = (
        f"import sys\nsys.argv = {arguments}\n"
        "from pycurate.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('loaded', [name for name in {heavy} if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "loaded []"
