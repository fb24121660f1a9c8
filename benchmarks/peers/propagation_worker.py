"""A process that propagates over a graph folder, for measurement: argv is a JSON object of paths and settings.

Prints the processor seconds of each sweep and of the whole as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

import pycurate


def main() -> None:
    given = json.loads(sys.argv[1])
    started, ends = time.process_time(), []
    labels = np.load(given["labels"])
    found = pycurate.propagate_labels(
        pycurate.KnnGraph.open(given["graph"]),
        labels,
        out=given["out"],
        memory_bytes=given["memory_bytes"],
        threads=given["threads"],
        progress=lambda number, change: ends.append(time.process_time()),
        **given["settings"],
    )
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # noqa: SIM115
    report = {
        "seconds": time.process_time() - started,
        "before_first": ends[0] - started,
        "sweep": float(np.median(np.diff(ends))) if len(ends) > 1 else None,
        "sweeps": found.sweeps,
        "residual": found.residual,
        "accuracy": float((found.labels == np.load(given["truth"])).mean()),
        "unreached": found.unreached,
        "resident_bytes": int(peak.split()[1]) << 10,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
