"""Races the CUDA kernels on the GPU of this machine and writes a table: ``python benchmarks/gpu/run.py --out FILE``.

Needs a GPU, PyTorch with CUDA and pycurate built with its CUDA kernels. Times are medians of wall-clock seconds, the
device synchronised, after a warm-up of the same call; every race checks that both found the same pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from moved import race_aligned, race_assignment, race_moved, race_moved_nearest, race_out_of_core, together
from peers import cuvs_nearest, full_float32, nearest_float16, triangular_float16
from rows import clip_like, flat, noisy_copies

from pycurate.kernels.device import cuda_kernels
from pycurate.kernels.fused_similarity import components_above, nearest, pairs_above
from pycurate.kernels.join import join_of

THRESHOLD = 0.95
BLOCKS = (16_384, 32_768)


def seconds_of(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    result = call()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def int8_peak() -> float:
    """Operations a second of the best library product of bytes on this device."""
    x = torch.randint(-127, 128, (16_384, 8_192), dtype=torch.int8, device="cuda")
    seconds, _ = seconds_of(lambda: torch._int_mm(x, x.T), 5)
    return 2 * len(x) ** 2 * x.shape[1] / seconds


def operand_of(x: Any) -> Any:
    """Prepared as a call of ours prepares it."""
    return join_of(x, None, "cosine", "exact", "skip", None, None, "cuda").operands(limit=THRESHOLD)[0]


def race_pairs(x: Any, name: str, repeats: int, dense: bool, peak: float) -> list[str]:
    n, d = x.shape
    module = cuda_kernels()
    whole, found = seconds_of(lambda: pairs_above(x, THRESHOLD, device="cuda"), repeats)
    operand = operand_of(x)

    def join() -> Any:
        return module.pairs_above(operand, None, THRESHOLD, 100_000_000, 0, None)

    join_seconds, _ = seconds_of(join, repeats)
    work = module.last_work()
    module.screen_whole_rows(True)
    every, _ = seconds_of(join, repeats)
    module.screen_whole_rows(False)
    rate = n * n * d / every
    blocks = BLOCKS if n < 1_000_000 else BLOCKS[-1:]  # each takes six seconds there
    by_block = [seconds_of(lambda b=block: triangular_float16(x, THRESHOLD, b), 1) for block in blocks]
    half, count = min(by_block, key=lambda timed: timed[0])
    copies = len(x) - len(torch.unique(x.view(torch.int16), dim=0)) if n <= 100_000 else 0
    if not copies and count != len(found.rows):
        raise SystemExit(f"{name}: we found {len(found.rows)} pairs, PyTorch {count}")
    cells = [f"{name}, {n:,} x {d}", f"{len(found.rows):,}", f"{whole:.3f}", f"{join_seconds:.3f}", f"{every:.3f}"]
    cells += [
        f"{rate / 1e12:.0f}",
        f"{rate / peak:.0%}",
        f"{half:.3f}",
        f"{half / every:.1f} x",
        f"{half / join_seconds:.1f} x",
    ]
    cells += [f"{half / whole:.1f} x"]
    if dense:
        seconds, again = seconds_of(lambda: full_float32(x, THRESHOLD, 4_096), 1)
        if not copies and again != len(found.rows):
            print(f"# {name}: the float32 peer found {again} pairs, we {len(found.rows)} (its rounding)", flush=True)
        cells += [f"{seconds:.2f}", f"{seconds / whole:.0f} x"]
    else:
        cells += ["", ""]
    print("#", name, n, d, {key: value for key, value in work.items() if value}, flush=True)
    return cells


def race_nearest(x: Any, name: str, k: int, repeats: int) -> list[str]:
    n, d = x.shape
    ours, _ = seconds_of(lambda: nearest(x, k, device="cuda"), repeats)
    work = cuda_kernels().last_work()
    half, _ = seconds_of(lambda: nearest_float16(x, k, 8_192), 1)
    cuvs = cuvs_nearest(x[:1000], k)
    cuvs_cell = "not installed" if cuvs is None else f"{seconds_of(lambda: cuvs_nearest(x, k), 1)[0]:.2f}"
    print("#", name, n, d, {key: value for key, value in work.items() if value}, flush=True)
    return [f"{name}, {n:,} x {d}, k {k}", f"{ours:.3f}", f"{half:.3f}", f"{half / ours:.1f} x", cuvs_cell]


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PAIRS = [
    "Self-join at 0.95",
    "pairs",
    "call (s)",
    "join alone (s)",
    "join, whole rows (s)",
    "Tops/s of it",
    "of the peak",
    "float16 triangle (s)",
    "whole rows",
    "screened",
    "call",
    "float32 (s)",
    "call",
]
NEAREST = ["Nearest rows", "ours (s)", "float16 + topk (s)", "", "cuVS (s)"]
MOVED = [
    "Rows in the CPU's memory",
    "moved (GB/s)",
    "call (s)",
    "in a quarter of the memory (s)",
    f"`{together()}` (s)",
    "PyTorch from pinned memory (s)",
    "",
]
FROM_FILE = [
    "From a file, pairs at 0.95",
    "pairs",
    "opened, GPU (s)",
    "pairs, GPU (s)",
    f"opened, {len(os.sched_getaffinity(0))} processors (s)",
    "pairs, processors (s)",
]
ALIGNED = ["Aligned rows on the GPU", "ms", "GB/s", "of a copy's"]


def parts_of(sizes: list[int], dimensions: list[int], repeats: int) -> Iterator[str]:
    """The page, part by part as they are measured."""
    peak = int8_peak()
    yield f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, `{' '.join(['python', *sys.argv])}`."
    yield f"int8 products of the library (`torch._int_mm`): {peak / 1e12:.0f} Tops/s."
    pairs, neighbours = [], []
    for n in sizes:
        for d in dimensions:
            for name, make in (("flat", flat), ("CLIP-like", clip_like)):
                x = make(n, d, THRESHOLD)
                pairs.append(race_pairs(x, name, repeats, n <= 100_000, peak))
                if n <= 300_000 and d == 512:
                    neighbours.append(race_nearest(x, name, 32, 1))
                del x
                torch.cuda.empty_cache()
    yield table(PAIRS, pairs)
    yield table(NEAREST, neighbours)
    clump = noisy_copies(20_000, 512)
    seconds, labels = seconds_of(lambda: components_above(clump, THRESHOLD, device="cuda"), repeats)
    groups = len(set(labels.tolist()))
    yield f"A clump of 20,000 noisy copies x 512, components at 0.95: {seconds:.3f} s, {groups:,} groups."
    most = max(sizes)
    yield table(ALIGNED, race_aligned(most, 768, seconds_of, repeats))
    moved = [race_moved(most, 768, THRESHOLD, seconds_of, repeats)]
    moved += [race_moved_nearest(min(most, 300_000), 512, 32, seconds_of), race_assignment(most, 512, seconds_of)]
    yield table(MOVED, moved)
    yield table(FROM_FILE, race_out_of_core(most, 512, THRESHOLD))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path)
    options.add_argument("--rows", default="100000,300000,1000000")
    options.add_argument("--dimensions", default="512,768")
    options.add_argument("--repeats", type=int, default=3)
    asked = options.parse_args()
    sizes, dimensions = ([int(part) for part in text.split(",")] for text in (asked.rows, asked.dimensions))
    page: list[str] = []
    for part in parts_of(sizes, dimensions, asked.repeats):
        print(part, end="\n\n", flush=True)
        page.append(part)
        if asked.out:
            asked.out.write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
