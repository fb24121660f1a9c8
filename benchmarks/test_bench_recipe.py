"""A whole preset against the public script's algorithm, as a function of rows, with peak memory.

Whole processes, interpreter start included, pool in the page cache, both on two workers. PYCURATE_BENCH_DATA names a
folder for the generated pools (default: a temporary one); PYCURATE_BENCH_ROWS the sizes, 200000,1000000,4000000.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
from measure import Figures, measure
from pools import make_pool

SIZES = [int(rows) for rows in os.environ.get("PYCURATE_BENCH_ROWS", "200000,1000000").split(",")]
PEER = Path(__file__).parent / "peers" / "datacomp_script.py"
ROUNDS = 5
BASIC = """
name: basic
steps:
  - language: {languages: [en], detector: 'datacomp_script:language', version: 1}
  - caption_rules: {min_words: 3, min_chars: 6}
  - image_rules: {min_side: 200, max_aspect: 3}
"""
EMBEDDED = """
name: embedded
steps:
  - clip_score: {embeddings: l14, as: clip}
  - top_fraction: {score: clip, fraction: 0.3}
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get("PYCURATE_BENCH_DATA")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("pools")


def bytecode(folder: Path) -> dict[str, str]:
    """Both sides keep compiled bytecode, as an installed package does, also where the environment forbids it."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def run_ours(recipe: str | Path, pool: Path, out: Path, *options: str) -> Figures:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pycurate", "run", str(recipe), pool, "--out", out, "--quiet", "--workers", "2"]
    return measure([*command, *options], {"PYTHONPATH": str(PEER.parent), **bytecode(out.parent)})


def run_peer(pool: Path, out: Path, rule: str) -> Figures:
    return measure([sys.executable, PEER, pool, out, rule, "2"], bytecode(out.parent))


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("preset", ["datacomp-clip-l14-30", "datacomp-basic"])
@pytest.mark.benchmark(group="preset")
def test_bench_preset(benchmark, data, tmp_path, preset, rows) -> None:
    """``datacomp-basic`` with a language function of no cost on both sides: a model would cost them the same."""
    pool = make_pool(data / f"pool-{rows}", rows)
    ours, theirs = [], []
    recipe: str | Path = preset
    rule = "clip_l14_similarity_score=0.3"
    if preset == "datacomp-basic":
        recipe, rule = tmp_path / "basic.yaml", "basic"
        recipe.write_text(BASIC)

    def pair() -> None:
        ours.append(run_ours(recipe, pool, tmp_path / "out"))
        theirs.append(run_peer(pool, tmp_path / "peer.npy", rule))

    benchmark.pedantic(pair, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "subset.npy"), np.load(tmp_path / "peer.npy"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    benchmark.extra_info |= {
        "pycurate seconds": round(statistics.median(f.wall_seconds for f in ours), 2),
        "of which stages": round(sum(stage["seconds"] for stage in manifest["stages"]), 2),
        "script seconds": round(statistics.median(f.wall_seconds for f in theirs), 2),
        "times faster": _median_ratio(ours, theirs, "wall_seconds"),
        "times less CPU": _median_ratio(ours, theirs, "cpu_seconds"),
        "pycurate peak MB": max(f.peak_bytes for f in ours) >> 20,
        "script peak MB": max(f.peak_bytes for f in theirs) >> 20,
    }
    print(f"\n{preset}, {rows:,} rows, 2 workers: {benchmark.extra_info}")


def _median_ratio(ours: list[Figures], theirs: list[Figures], figure: str) -> float:
    pairs = zip(ours, theirs, strict=True)
    return round(statistics.median(getattr(b, figure) / getattr(a, figure) for a, b in pairs), 2)


@pytest.mark.gate
@pytest.mark.parametrize("rows", SIZES)
def test_gate_memory(data, tmp_path, rows) -> None:
    """Peak memory stays under 600 MB whatever the rows, also when embeddings are read."""
    pool = make_pool(data / f"pool-{rows}", rows)
    recipe = tmp_path / "embedded.yaml"
    recipe.write_text(EMBEDDED)
    for name in ("datacomp-clip-l14-30", recipe):
        for processes in ("--threads", "--processes"):
            found = run_ours(name, pool, tmp_path / "out", "--memory", "600M", processes)
            print(
                f"{name} {processes}, {rows:,} rows: peak {found.peak_bytes / 1e6:.0f} MB, {found.wall_seconds:.2f} s"
            )
            assert found.peak_bytes < 600e6
