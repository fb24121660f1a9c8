"""Whole-process figures: wall seconds, CPU seconds of the process tree and peak memory less clean file pages."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pycurate.engine.memory import resident_bytes


@dataclass(frozen=True, slots=True)
class Figures:
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(command: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None) -> Figures:
    """Run ``command`` to its end, with ``environment`` beside this one's; raises where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.02)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{command} ended with exit code {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figures(wall, cpu, peak)
