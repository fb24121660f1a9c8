"""Sweeps of label propagation and confident learning's passes on the GPU of this machine, as tables:
``python benchmarks/gpu/labels.py --out FILE``.

Needs a GPU, PyTorch with CUDA and pycurate built with its CUDA kernels. Times are medians of wall-clock milliseconds,
the device synchronised, after a warm-up of the same call; every answer is compared with the CPU's, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from label_peers import pass_of_torch, random_graph, sweep_of_torch

import pycurate
from pycurate.kernels.confident import entropies, self_probabilities, summarise_rows
from pycurate.kernels.graph import LABELLED, NO_LABEL, SeedRows, SparseRows
from pycurate.kernels.sweeps import sweeps_of

K, ALPHA = 16, 0.9
SWEEP = ["Sweep, k = 16", "ours", "TB/s, gathered rows counted", "each array once", "cuSPARSE product", "PyTorch sweep"]
SWEEP += ["", "CPU", ""]


def milliseconds_of(call: Callable[[], Any], repeats: int = 5) -> tuple[float, Any]:
    result = call()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times), result


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of the device's own copy."""
    x = torch.empty(1 << 29, dtype=torch.float32, device="cuda")
    y = torch.empty_like(x)
    return 2e3 * x.nbytes / milliseconds_of(lambda: y.copy_(x))[0]


def require_same(name: str, found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        if np.asarray(one).tobytes() != np.asarray(other).tobytes():
            raise SystemExit(f"{name}: the GPU's bits are not the CPU's")


def seeds_of(n: int, classes: int) -> SeedRows:
    """One label for every hundredth row."""
    rows = np.arange(n) % 100 == 0
    labels = (np.flatnonzero(rows) * 7 % classes).astype(np.uint32)
    indptr = np.concatenate([[0], np.cumsum(rows)]).astype(np.uint64)
    return SeedRows(indptr, labels, np.full(len(labels), 1 - ALPHA, np.float32))


def race_dense(matrix: SparseRows, kind: str, classes: int, peak: float) -> list[str]:
    n = len(matrix)
    width, seeds = -(-classes // 16) * 16, seeds_of(len(matrix), classes)
    state = np.random.default_rng(0).random((n, width), np.float32)
    on: Any = sweeps_of(matrix, seeds, labels=width, gpu=0)
    there, into = on.values(state), on.room(state)
    ours, changes = milliseconds_of(lambda: on.sweep_dense(there, into, alpha=ALPHA))
    here: Any = sweeps_of(matrix, seeds, labels=width)
    out = np.empty_like(state)
    cpu, expected = milliseconds_of(lambda: here.sweep_dense(state, out, alpha=ALPHA), 1)
    require_same(f"{n} x {classes}", (on.read(into), changes), (out, expected))
    product, whole = sweep_of_torch(matrix, seeds, state[:, :classes], ALPHA, milliseconds_of)
    torch.cuda.empty_cache()
    edges = len(matrix.indices)
    touched = edges * (8 + 4 * width) + n * (8 + 8 * width)  # every gathered row counted, cached or not
    once = edges * 8 + n * (8 + 8 * width)
    cells = [f"{kind}, {n:,} x {classes}", f"{ours:.2f}", f"{touched / ours / 1e9:.2f}", f"{1e3 * once / peak:.2f}"]
    return [*cells, f"{product:.2f}", f"{whole:.2f}", f"{whole / ours:.1f} x", f"{cpu:.0f}", f"{cpu / ours:.0f} x"]


def race_top(matrix: SparseRows, kind: str, classes: int, kept: int) -> list[str]:
    n, seeds = len(matrix), seeds_of(len(matrix), classes)
    state = np.zeros((n, kept), LABELLED)
    state["label"] = NO_LABEL
    state["label"][::100, 0], state["value"][::100, 0] = seeds.labels, 1
    on: Any = sweeps_of(matrix, seeds, labels=classes, gpu=0)
    there, into = on.values(state), on.room(state)
    for _ in range(4):  # after these every row holds its largest few
        on.sweep_top(there, into, alpha=ALPHA)
        there, into = into, there
    start = on.read(there)
    ours, changes = milliseconds_of(lambda: on.sweep_top(there, into, alpha=ALPHA))
    here: Any = sweeps_of(matrix, seeds, labels=classes)
    out = np.empty_like(state)
    cpu, expected = milliseconds_of(lambda: here.sweep_top(start, out, alpha=ALPHA), 1)
    require_same(f"{n} x {kept} of {classes}", (on.read(into), changes), (out, expected))
    touched = len(matrix.indices) * 8 * (1 + kept) + 16 * n * kept
    cells = [f"{kind}, {n:,} x {kept} of {classes}", f"{ours:.2f}", f"{touched / ours / 1e9:.2f}"]
    return [*cells, f"{cpu:.0f}", f"{cpu / ours:.0f} x"]


def race_steps(matrix: SparseRows, classes: int) -> list[str]:
    """One step of conjugate gradients."""
    n, width = len(matrix), -(-classes // 16) * 16
    right = np.random.default_rng(0).random((n, width), np.float32)
    answers, times = [], []
    for gpu in (0, None):
        on: Any = sweeps_of(matrix, None, labels=width, gpu=gpu)
        x, residual, direction = on.values(np.zeros_like(right)), on.values(right.copy()), on.values(right.copy())
        product = on.room(np.empty_like(right))
        step = np.full(width, 1e-3, np.float32)

        def go(on: Any = on, arrays: Any = (x, residual, direction, product), step: Any = step) -> Any:
            x, residual, direction, product = arrays
            dots = on.cg_product(direction, product, ALPHA)
            told = on.cg_step(x, residual, direction, product, step)
            on.cg_turn(residual, step, direction)
            return (dots, *told)

        spent, told = milliseconds_of(go, 3)
        times.append(spent)
        answers.append((*told, on.read(x)))
    require_same("conjugate gradients", *answers)
    return [f"conjugate gradients, {n:,} x {classes}", f"{times[0]:.2f}", f"{times[1]:.0f}"]


def race_whole(n: int, classes: int) -> list[str]:
    """`propagate_labels` from the graph to the answer."""
    matrix = random_graph(n, K, 0.7)
    graph = pycurate.KnnGraph(matrix.indptr, matrix.indices, matrix.values)
    labels = np.where(np.arange(n) % 100 == 0, np.arange(n) // 1000 % classes, -1)
    how: dict[str, Any] = {"solver": "chebyshev", "alpha": 0.99, "sweeps": 60, "tol": 0.0, "classes": classes}
    spent, answers = [], []
    for device in ("cuda", "cpu"):
        start = time.perf_counter()
        found = pycurate.propagate_labels(graph, labels, device=device, memory_bytes=64 << 30, **how)
        spent.append(time.perf_counter() - start)
        answers.append((found.labels, found.confidence, found.residuals))
    require_same("propagate_labels", *answers)
    return [f"{n:,} x {classes}, 60 sweeps", f"{spent[0]:.2f}", f"{spent[1]:.2f}"]


def race_passes(n: int, k: int, dtype: torch.dtype, peak: float) -> list[list[str]]:
    random = torch.Generator("cuda").manual_seed(0)
    there = torch.empty(n, k, dtype=dtype, device="cuda")
    for part in there.split(1 << 18):
        part.copy_(torch.softmax(3 * torch.randn(part.shape, generator=random, device="cuda"), 1))
    p = there.cpu().numpy()
    labels, bounds = there.argmax(1).cpu().numpy(), np.full(k, 0.3)
    labels[::5] = np.random.default_rng(0).integers(0, k, len(labels[::5]))
    passes: list[tuple[str, Callable[..., Any]]] = [
        ("summaries", lambda x, device=None: summarise_rows(x, labels, bounds, device=device)),
        ("entropies", lambda x, device=None: (entropies(x, device=device),)),
        ("labels' own", lambda x, device=None: (self_probabilities(x, labels, device=device),)),
    ]
    rows = []
    for name, call in passes:
        ours, found = milliseconds_of(lambda call=call: call(there), 3)
        sent, _ = milliseconds_of(lambda call=call: call(p, "cuda"), 1)
        cpu, expected = milliseconds_of(lambda call=call: call(p), 2)
        require_same(f"{name} {n} x {k}", found, expected)
        peer, _ = milliseconds_of(lambda name=name: pass_of_torch(name, there, labels, bounds), 3)
        limit = 1e3 * (there.nbytes if name != "labels' own" else 32 * n) / peak
        cells = [f"{name}, {n:,} x {k} {str(dtype).removeprefix('torch.')}", f"{ours:.1f}", f"{limit:.1f}"]
        rows.append([*cells, f"{peer:.1f}", f"{cpu:.1f}", f"{sent:.0f}" if name != "labels' own" else ""])
    for filter_by in ("confident_learning", "prune_by_noise_rate"):
        seconds = []
        for given in (there, p):
            start = time.perf_counter()
            mask = pycurate.find_label_issues(labels, given, filter_by=filter_by)
            seconds.append((time.perf_counter() - start, mask))
        require_same(filter_by, [seconds[0][1]], [seconds[1][1]])
        rows.append([f"find_label_issues, {filter_by}", f"{1e3 * seconds[0][0]:.0f}", "", ""])
        rows[-1] += [f"{1e3 * seconds[1][0]:.0f}", ""]
    return rows


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    peak = copy_bandwidth()
    dense, top, steps = [], [], []
    for n, stay, classes_of in (
        (1_000_000, 0.0, (10, 100)),
        (1_000_000, 0.7, (10, 100, 1000)),
        (5_000_000, 0.7, (10, 100)),
    ):
        matrix, kind = random_graph(n, K, stay), "clusters" if stay else "anywhere"
        for classes in classes_of:
            dense.append(race_dense(matrix, kind, classes, peak))
            print("#", dense[-1], flush=True)
        for classes in (10, 1000):
            top.append(race_top(matrix, kind, classes, 4))
            print("#", top[-1], flush=True)
        if n == 1_000_000 and stay:
            steps.append(race_steps(matrix, 100))
    whole = [race_whole(1_000_000, 100)]
    passes = [
        row
        for given in ((1_000_000, 1000, torch.float32), (4_000_000, 10, torch.float32))
        for row in race_passes(*given, peak)
    ]
    text = f"""{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {len(os.sched_getaffinity(0))} processors,
`{" ".join(["python", *sys.argv])}`. Its own copy moves {peak / 1e12:.2f} TB/s. Milliseconds, where not said otherwise.

{table(SWEEP, dense)}

{table(["Sweep of the largest few", "ours", "TB/s", "CPU", ""], top)}

{table(["Step", "ours", "CPU"], steps)}

{table(["propagate_labels", "GPU (s)", "CPU (s)"], whole)}

{table(["Pass", "tensor on the GPU", "its bytes at the copy's rate", "PyTorch", "CPU", "NumPy to the GPU"], passes)}
"""
    print(text)
    if asked.out:
        asked.out.write_text(text)


if __name__ == "__main__":
    main()
