"""Ten million rows under a small cap on memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SHARDS, SHARD_ROWS = 10, 1_000_000
TOTAL, CAP_MIB = 1_000_000, 400
BALANCED = """
import re, sys, threading, time
import pycurate
from pycurate.steps import ClassBalance

def anonymous_kib():  # the cap leaves clean pages of files out
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

peak = [0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous_kib())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
step = ClassBalance(label="label", total=int(sys.argv[3]))
recipe = pycurate.Recipe(name="balance", steps=[step])
result = pycurate.run(recipe, sys.argv[1], sys.argv[2], memory_bytes=int(sys.argv[4]) << 20, workers=2, processes=False)
print(result.manifest.counts.kept, peak[0] >> 10)
print(result.manifest.steps[0].rules[0].description)
"""


@pytest.mark.slow
def test_ten_million_rows_of_five_thousand_classes_under_400_mib(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "pool").mkdir()
    counts = np.zeros(5000, np.int64)
    for shard in range(SHARDS):
        labels = random.zipf(1.3, SHARD_ROWS).clip(1, 5000) - 1
        counts += np.bincount(labels, minlength=5000)
        pq.write_table(pa.table({"label": labels}), tmp_path / "pool" / f"part_{shard:03d}.parquet")
    done = subprocess.run(
        [sys.executable, "-c", BALANCED, tmp_path / "pool", tmp_path / "out", str(TOTAL), str(CAP_MIB)],
        capture_output=True,
        text=True,
        check=True,
    )
    figures, description = done.stdout.splitlines()
    kept, peak_mib = map(int, figures.split())
    assert kept == TOTAL
    assert 30 < peak_mib < CAP_MIB, peak_mib
    cap = next(cap for cap in range(100_000) if np.minimum(counts, cap + 1).sum() > TOTAL)
    assert f"at most {cap:,} rows of each label, 1,000,000 in all" in description
