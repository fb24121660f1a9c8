"""A self-join of a memory-mapped matrix as a whole process, for its memory: PATH THRESHOLD FACTS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import pycurate
from pycurate import _core

if __name__ == "__main__":
    source, threshold, target = sys.argv[1:]
    pairs = pycurate.pairs_above(np.load(source, mmap_mode="r"), float(threshold))
    facts = {"pairs": len(pairs.rows), "work": dict(_core.fused_similarity.last_work())}
    Path(target).write_text(json.dumps(facts), encoding="utf-8")
