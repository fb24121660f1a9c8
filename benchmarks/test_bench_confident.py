"""Confident learning at 100,000 x 1,000 float32, one thread, against cleanlab: its filters and its batched version.

Processor time, medians of interleaved runs in one process. Memory: the highest resident size above that before the
call, in a process of its own that holds the probabilities.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.kernels import confident

ROWS, CLASSES, BLOCK_ROWS = 100_000, 1000, 10_000

pytestmark = pytest.mark.filterwarnings("ignore")  # cleanlab's of small classes, and those of packages it loads


@cache
def problem() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A tenth of the labels wrong; probabilities that mostly know."""
    random = np.random.default_rng(0)
    true = random.integers(0, CLASSES, ROWS)
    p = random.random((ROWS, CLASSES), np.float32) ** 8
    p[np.arange(ROWS), true] += 20 * random.random(ROWS, np.float32)
    p /= p.sum(axis=1, keepdims=True)
    return np.where(random.random(ROWS) < 0.1, random.integers(0, CLASSES, ROWS), true), p


def ours(filter_by: str) -> NDArray[Any]:
    return pycurate.find_label_issues(*problem(), filter_by=filter_by, n_jobs=1)


def cleanlab_filter(filter_by: str) -> NDArray[Any]:
    from cleanlab.filter import find_label_issues

    return find_label_issues(*problem(), filter_by=filter_by, n_jobs=1)


def cleanlab_batched() -> NDArray[Any]:
    """What is ``low_self_confidence`` less the rows predicted as labelled."""
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    return find_label_issues_batched(*problem(), n_jobs=1, verbose=False, batch_size=BLOCK_ROWS, return_mask=True)


def median_times(calls: dict[str, Callable[[], Any]], rounds: int = 5) -> tuple[dict[str, float], dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    answers = {}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            answers[name] = call()
            times[name].append(time.process_time() - started)
    return {name: float(np.median(spent)) for name, spent in times.items()}, answers


@pytest.mark.gate
def test_gate_find_label_issues() -> None:
    pytest.importorskip("cleanlab")
    spent, _ = median_times(
        {
            "prune_by_noise_rate": lambda: ours("prune_by_noise_rate"),
            "its prune_by_noise_rate": lambda: cleanlab_filter("prune_by_noise_rate"),
            "confident_learning": lambda: ours("confident_learning"),
            "its confident_learning": lambda: cleanlab_filter("confident_learning"),
        }
    )
    ratios = {name: spent[f"its {name}"] / spent[name] for name in ("prune_by_noise_rate", "confident_learning")}
    print(f"\n{spent}\n{ratios}")
    assert min(ratios.values()) >= 5


@pytest.mark.gate
def test_gate_against_the_batched_version() -> None:
    pytest.importorskip("cleanlab")
    spent, found = median_times({"ours": lambda: ours("low_self_confidence"), "batched": cleanlab_batched})
    from pycurate.ops.labels.confident_learning import class_thresholds, scan_rows
    from pycurate.ops.labels.probabilities import probability_blocks

    labels, p = problem()
    blocks = probability_blocks(p, labels)
    as_given = scan_rows(blocks, class_thresholds(blocks)).predicted_as_given
    differ = int(((found["ours"] & ~as_given) != found["batched"]).sum())
    print(f"\n{spent}: {spent['batched'] / spent['ours']:.1f} x; {differ} of {int(found['batched'].sum())} rows differ")
    # Its thresholds are means of means in float32.
    assert differ <= 0.001 * found["batched"].sum()
    assert spent["batched"] / spent["ours"] >= 5


_MEASURED = """
import json, sys, warnings
sys.path.insert(0, sys.argv[2])
warnings.simplefilter("ignore")
import test_bench_confident as bench
bench.problem()
import cleanlab.filter, cleanlab.experimental.label_issues_batched, pycurate.ops.labels.label_issues
def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
eval(sys.argv[1])
print(json.dumps(resident("VmHWM") - before))
"""


def extra_bytes(call: str) -> int:
    from pathlib import Path

    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", _MEASURED, call, here], capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.gate
def test_gate_memory() -> None:
    pytest.importorskip("cleanlab")
    mine = extra_bytes("bench.ours('prune_by_noise_rate')")
    whole, batched = (
        extra_bytes("bench.cleanlab_filter('prune_by_noise_rate')"),
        extra_bytes("bench.cleanlab_batched()"),
    )
    print(f"\nextra memory in MB: ours {mine >> 20}, cleanlab {whole >> 20}, batched {batched >> 20}")
    assert mine <= 0.1 * min(whole, batched)


@pytest.mark.benchmark(group="summary of 100,000 x 1,000 float32")
def test_bench_summary(benchmark: Any, isa: Any) -> None:
    labels, p = problem()
    benchmark(confident.summarise_rows, p, labels, np.full(CLASSES, 0.5), 1)
    benchmark.extra_info["GB/s"] = round(p.nbytes / 1e9 / benchmark.stats["min"], 1)


@pytest.mark.benchmark(group="summary of 400 x 1,000 float32, in cache")
def test_bench_summary_in_cache(benchmark: Any, isa: Any) -> None:
    labels, p = problem()
    benchmark(confident.summarise_rows, p[:400], labels[:400], np.full(CLASSES, 0.5), 1)


@pytest.mark.benchmark(group="entropies of 20,000 x 1,000 float32")
def test_bench_entropies(benchmark: Any, isa: Any) -> None:
    benchmark(confident.entropies, problem()[1][:20_000], 1)


@pytest.mark.benchmark(group="entropies of 20,000 x 1,000 float32")
def test_bench_entropies_scipy(benchmark: Any) -> None:
    special = pytest.importorskip("scipy.special")
    p = problem()[1][:20_000]
    benchmark(lambda: -special.xlogy(p, p).sum(axis=1))
