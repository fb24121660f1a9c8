"""The public DataComp script's algorithms for two presets, plainly: pandas, one process a file, Python integers.

Every worker reads whole columns, rules over captions are Python per row, uids are parsed by ``int(..., 16)``, a
threshold is ``-np.sort(-v)[n]`` over all scores in memory, and the result is sorted as a structured array.
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


def language(text: str) -> str:
    """Stands for the language model, which costs either side the same: the rest of the preset is what is raced."""
    return "en"


def _basic(path: Path) -> np.ndarray:
    frame = pd.read_parquet(path, columns=["uid", "text", "original_width", "original_height"])
    english = frame.text.apply(lambda text: language(text.replace("\n", " "))) == "en"
    words = frame.text.apply(lambda text: len(text.split()))
    chars = frame.text.apply(len)
    number = frame.uid.apply(int, base=16)
    high = (number // 2**64).astype("uint64")
    low = (number % 2**64).astype("uint64")
    uids = np.array(list(zip(high, low, strict=True)), UID)
    shorter = np.minimum(frame.original_width, frame.original_height)
    longer = np.maximum(frame.original_width, frame.original_height)
    return uids[english & (words > 2) & (chars > 5) & (shorter >= 200) & (longer / shorter <= 3.0)]


def basic_subset(pool: Path, out: Path, workers: int) -> int:
    """Keep what the basic filter keeps; returns the rows kept."""
    with multiprocessing.Pool(workers) as processes:
        subset = np.concatenate(list(processes.imap_unordered(_basic, sorted(pool.glob("*.parquet")))))
    subset.sort()
    np.save(out, subset)
    return len(subset)


if __name__ == "__main__":
    source, target, rule, count = sys.argv[1:]
    if rule == "basic":
        print(basic_subset(Path(source), Path(target), int(count)))
    else:
        column, share = rule.split("=")
        print(clip_score_subset(Path(source), Path(target), column, float(share), int(count)))
