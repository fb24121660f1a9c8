"""How the fit of ``perceptual_dedup`` grows with the pool under one memory cap, in processor time and memory.

Hashes are random, a third of them copies or within 3 bits of another one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

VIEWS = Path(__file__).parent.parent / "tests/steps"
ROWS = (250_000, 500_000, 1_000_000, 2_000_000)
CAP_BYTES = 48 << 20  # before, 2,000,000 rows held 392 MB

MEASURED = """
import sys, tempfile, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from perceptual_views import HashView, anonymous_bytes
from pycurate.steps import PerceptualDedup
removal, radius, cap = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
step = PerceptualDedup(radius=radius, removal=removal, name="p")
step.fit(HashView(Path(tempfile.mkdtemp()), 5000, cap))
for rows in map(int, sys.argv[5:]):
    with tempfile.TemporaryDirectory() as scratch:
        view, peak, running = HashView(Path(scratch), rows, cap), [0], [True]
        before = anonymous_bytes()
        def watch():
            while running[0]:
                peak[0] = max(peak[0], anonymous_bytes() - before)
                time.sleep(0.01)
        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.process_time()
        step.fit(view)
        spent = time.process_time() - started
        running[0] = False
        watcher.join()
        print(rows, spent, peak[0])
"""


def measured(removal: str, radius: int, rows: tuple[int, ...]) -> list[tuple[int, float, int]]:
    """(rows, seconds of a processor, bytes of anonymous memory) of each size."""
    command = [sys.executable, "-c", MEASURED, str(VIEWS), removal, str(radius), str(CAP_BYTES), *map(str, rows)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(int(n), float(seconds), int(peak)) for n, seconds, peak in (line.split() for line in lines)]


@pytest.mark.gate
@pytest.mark.parametrize("removal", ["component", "greedy", "published"])
def test_gate_growth(removal: str) -> None:
    """Memory stays under the cap; time grows between n, which bands take, and n * n, that of the pairs of blocks."""
    found = measured(removal, 4, ROWS)
    for rows, seconds, peak in found:
        print(f"\n{removal}, {rows:,} rows: {seconds:.1f} s of a processor, {peak >> 20} MiB of {CAP_BYTES >> 20}")
    sizes, times = np.log([f[0] for f in found]), np.log([f[1] for f in found])
    exponent = float(np.polyfit(sizes, times, 1)[0])
    print(f"growth exponent {exponent:.2f}")
    assert max(peak for _, _, peak in found) < CAP_BYTES
    assert exponent < 2
