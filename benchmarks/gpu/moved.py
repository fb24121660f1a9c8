"""Rows that come from the CPU's memory, more of them than a GPU holds, several tasks at a time; and aligned rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import nearest_centroids_float32, triangular_float16
from rows import clip_like, flat

from pycurate import clustered_join, similarity_join
from pycurate.index import assign
from pycurate.kernels.device import cuda_kernels
from pycurate.kernels.fused_similarity import nearest, pairs_above
from pycurate.kernels.rowwise import pair_similarity, row_statistics

Timer = Callable[[Callable[[], Any], int], tuple[float, Any]]
CLUSTERS = 4096


@contextmanager
def no_more_than(free_bytes: int) -> Iterator[None]:
    """Leaves so much of the device's memory free."""
    torch.cuda.empty_cache()
    held = torch.empty(max(0, cuda_kernels().free_bytes(0) - free_bytes), dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()


def together() -> str:
    """All GPUs; the one that there is, with two tasks at a time."""
    count = torch.cuda.device_count()
    return "cuda:" + ",".join(map(str, range(count) if count > 1 else (0, 0)))


def race_moved(n: int, d: int, threshold: float, seconds_of: Timer, repeats: int) -> list[str]:
    pinned = flat(n, d, threshold).cpu().pin_memory()
    x = pinned.numpy().copy()  # as users have it, not pinned
    torch.cuda.empty_cache()
    copied, _ = seconds_of(lambda: cuda_kernels().Matrix.upload(x, "float16", 0), repeats)
    call, found = seconds_of(lambda: pairs_above(x, threshold, device="cuda"), repeats)
    needed = n * (3 * d + 200)
    with no_more_than(needed // 4 + (600 << 20)):
        capped, again = seconds_of(lambda: pairs_above(x, threshold, device="cuda"), repeats)
    both, third = seconds_of(lambda: pairs_above(x, threshold, device=together()), repeats)
    for other in (again, third):
        if not (np.array_equal(found.rows, other.rows) and np.array_equal(found.similarities, other.similarities)):
            raise SystemExit("pairs differ between ways to move rows")
    peer, count = seconds_of(lambda: triangular_float16(pinned.cuda(non_blocking=True), threshold, 32_768), 1)
    if count != len(found.rows):
        raise SystemExit(f"we found {len(found.rows)} pairs, PyTorch {count}")
    cells = [f"flat, {n:,} x {d}", f"{x.nbytes / copied / 1e9:.0f}", f"{call:.2f}", f"{capped:.2f}", f"{both:.2f}"]
    return [*cells, f"{peer:.2f}", f"{peer / call:.1f} x"]


def race_moved_nearest(n: int, d: int, k: int, seconds_of: Timer) -> list[str]:
    x = flat(n, d, 0.95).cpu().numpy()
    torch.cuda.empty_cache()
    call, found = seconds_of(lambda: nearest(x, k, device="cuda"), 1)
    both, again = seconds_of(lambda: nearest(x, k, device=together()), 1)
    if not np.array_equal(found.indices, again.indices):
        raise SystemExit("nearest rows differ between one GPU and several tasks")
    return [f"k {k}, flat, {n:,} x {d}", "", f"{call:.2f}", "", f"{both:.2f}", "", ""]


def race_assignment(n: int, d: int, seconds_of: Timer) -> list[str]:
    pinned = flat(n, d, 0.95).cpu().pin_memory()
    x, centroids = pinned.numpy().copy(), pinned[:: n // CLUSTERS][:CLUSTERS].float().numpy().copy()
    torch.cuda.empty_cache()
    call, found = seconds_of(lambda: assign(x, centroids, device="cuda"), 1)
    there = torch.from_numpy(centroids).cuda()
    peer, theirs = seconds_of(lambda: nearest_centroids_float32(pinned, there, 65_536), 1)
    agree = float((torch.from_numpy(found.clusters).cuda() == theirs).float().mean())
    if agree < 0.9999:
        raise SystemExit(f"only {agree:.4%} of the nearest centroids agree with PyTorch's")
    cells = [f"nearest of {CLUSTERS:,} centroids, {n:,} x {d}", "", f"{call:.2f}", "", "", f"{peer:.2f}"]
    return [*cells, f"{peer / call:.1f} x"]


def race_out_of_core(n: int, d: int, threshold: float) -> list[list[str]]:
    """Whole joins from a file, on the GPU and on all processors: opened, and asked for the pairs."""
    x = clip_like(n, d, threshold).cpu().numpy()
    torch.cuda.empty_cache()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, x)
        for name, join in (("similarity_join", similarity_join), ("clustered_join", clustered_join)):
            seconds, answers = [], []
            for device in ("cuda", "cpu"):
                start = time.perf_counter()
                opened = join(path, Path(folder) / f"{name}-{device}", memory_bytes=32 << 30, device=device)
                seconds.append(time.perf_counter() - start)
                start = time.perf_counter()
                answers.append(opened.pairs_above(threshold))
                seconds.append(time.perf_counter() - start)
            ours, theirs = answers
            if not (np.array_equal(ours.rows, theirs.rows) and np.array_equal(ours.cols, theirs.cols)):
                raise SystemExit(f"{name}: pairs differ between the devices")
            rows.append([f"{name}, CLIP-like, {n:,} x {d}", f"{len(ours.rows):,}", *(f"{s:.2f}" for s in seconds)])
    return rows


def race_aligned(n: int, d: int, seconds_of: Timer, repeats: int) -> list[list[str]]:
    """GB/s of rows read beside what a copy on the device moves."""
    x, y = flat(n, d, 0.95), flat(n, d, 0.95, seed=1)
    room = torch.empty_like(x)
    copy, _ = seconds_of(lambda: room.copy_(x), repeats)
    peak = 2 * x.nbytes / copy
    rows = []
    for name, call, size in (
        ("pair_similarity", lambda: pair_similarity(x, y), 2 * x.nbytes),
        ("row_statistics", lambda: row_statistics(x), x.nbytes),
        ("torch.cosine_similarity", lambda: torch.cosine_similarity(x.float(), y.float()).cpu(), 2 * x.nbytes),
    ):
        seconds, _ = seconds_of(call, repeats)
        rate = size / seconds
        rows.append([f"{name}, {n:,} x {d}", f"{seconds * 1e3:.1f}", f"{rate / 1e9:.0f}", f"{rate / peak:.0%}"])
    return rows
