"""A whole preset against the public script's algorithm, as a function of rows, with peak memory.

Whole processes, interpreter start included, pool in the page cache, both on two workers. PYCURATE_BENCH_DATA names a
folder for the generated pools (default: a temporary one); PYCURATE_BENCH_ROWS the sizes, 200000,1000000,4000000.
"""

from __future__ import annotations

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
PRESET, COLUMN, FRACTION = "datacomp-clip-l14-30", "clip_l14_similarity_score", "0.3"
PEER = Path(__file__).parent / "peers" / "datacomp_script.py"
ROUNDS = 5
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


def run_ours(recipe: str | Path, pool: Path, out: Path, *options: str) -> Figures:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pycurate", "run", str(recipe), pool, "--out", out, "--quiet", "--workers", "2"]
    return measure([*command, *options])


def run_peer(pool: Path, out: Path) -> Figures:
    return measure([sys.executable, PEER, pool, out, COLUMN, FRACTION, "2"])


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.benchmark(group="preset")
def test_bench_preset(benchmark, data, tmp_path, rows) -> None:
    pool = make_pool(data / f"pool-{rows}", rows)
    ours, theirs = [], []

    def pair() -> None:
        ours.append(run_ours(PRESET, pool, tmp_path / "out"))
        theirs.append(run_peer(pool, tmp_path / "peer.npy"))

    benchmark.pedantic(pair, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "subset.npy"), np.load(tmp_path / "peer.npy"))
    ratio = statistics.median(b.wall_seconds / a.wall_seconds for a, b in zip(ours, theirs, strict=True))
    benchmark.extra_info |= {
        "rows": rows,
        "pycurate seconds": round(statistics.median(f.wall_seconds for f in ours), 3),
        "script seconds": round(statistics.median(f.wall_seconds for f in theirs), 3),
        "times faster": round(ratio, 2),
        "pycurate peak MB": max(f.peak_bytes for f in ours) >> 20,
        "script peak MB": max(f.peak_bytes for f in theirs) >> 20,
    }
    print(f"\n{PRESET}, {rows:,} rows, 2 workers: {benchmark.extra_info}")


@pytest.mark.gate
@pytest.mark.parametrize("rows", SIZES)
def test_gate_memory(data, tmp_path, rows) -> None:
    """Peak memory stays under 600 MB whatever the rows, also when embeddings are read."""
    pool = make_pool(data / f"pool-{rows}", rows)
    recipe = tmp_path / "embedded.yaml"
    recipe.write_text(EMBEDDED)
    for name in (PRESET, recipe):
        for processes in ("--threads", "--processes"):
            found = run_ours(name, pool, tmp_path / "out", "--memory", "600M", processes)
            print(
                f"{name} {processes}, {rows:,} rows: peak {found.peak_bytes / 1e6:.0f} MB, {found.wall_seconds:.2f} s"
            )
            assert found.peak_bytes < 600e6
