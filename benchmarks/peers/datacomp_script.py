"""The public DataComp script's algorithm for score presets, plainly: pandas, one process a file, Python integers.

Every worker reads whole columns, uids are parsed by ``int(..., 16)`` in a list, the threshold is ``-np.sort(-v)[n]``
over all scores in memory, and the result is sorted as a structured array.
"""

from __future__ import annotations

import multiprocessing
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

UID = np.dtype("u8,u8")


def _scores(path: Path, key: str) -> pd.DataFrame:
    return pd.read_parquet(path, columns=[key])


def _kept(path: Path, key: str, threshold: float) -> np.ndarray:
    frame = pd.read_parquet(path, columns=["uid", key])
    uids = frame[frame[key] >= threshold]["uid"].values
    return np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], UID)


def clip_score_subset(pool: Path, out: Path, key: str, fraction: float, workers: int) -> int:
    """Keep the top ``fraction`` by the score column ``key``; returns the rows kept."""
    paths = sorted(pool.glob("*.parquet"))
    with multiprocessing.Pool(workers) as processes:
        frame = pd.concat(list(processes.imap_unordered(partial(_scores, key=key), paths)))
    n = int(len(frame) * fraction)
    threshold = -np.sort(-frame[key].values)[n]
    with multiprocessing.Pool(workers) as processes:
        parts = list(processes.imap_unordered(partial(_kept, key=key, threshold=threshold), paths))
    subset = np.concatenate(parts)
    subset.sort()
    np.save(out, subset)
    return len(subset)


if __name__ == "__main__":
    source, target, column, share, count = sys.argv[1:]
    print(clip_score_subset(Path(source), Path(target), column, float(share), int(count)))
