"""DataComp-layout pools of any size for benchmarks: parquet rows all differ, embeddings repeat shard by shard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARD_ROWS = 100_000
DIMENSIONS = {"b32_img": 512, "b32_txt": 512, "l14_img": 768, "l14_txt": 768}
WORDS = np.array(["a", "the", "red", "blue", "old", "new", "photo", "dog", "cat", "house", "tree", "sea", "and", "in"])


def make_pool(path: Path, rows: int) -> Path:
    """Write ``rows`` rows in shards of 100,000 (2.56 GB of npz a million rows, stored once and hard-linked)."""
    done = path / "_complete"
    if done.exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    first: Path | None = None
    for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
        random = np.random.default_rng(shard)
        count = min(SHARD_ROWS, rows - start)
        stem = path / random.bytes(16).hex()
        pq.write_table(_table(random, count), stem.with_suffix(".parquet"))
        npz = stem.with_suffix(".npz")
        if first is None or count != SHARD_ROWS:
            arrays = {name: random.standard_normal((count, d), np.float32) for name, d in DIMENSIONS.items()}
            np.savez(npz, **{name: values.astype(np.float16) for name, values in arrays.items()})
            first = npz
        else:
            os.link(first, npz)
    done.touch()
    return path


def _table(random: np.random.Generator, rows: int) -> pa.Table:
    raw = random.bytes(16 * rows)
    width, height = random.integers(50, 2_000, (2, rows))
    words = WORDS[random.integers(0, len(WORDS), (rows, 9))]
    return pa.table(
        {
            "uid": [raw[i : i + 16].hex() for i in range(0, 16 * rows, 16)],
            "url": [f"https://example.org/{i:09d}/picture.jpg" for i in random.integers(0, 10**9, rows)],
            "text": [" ".join(row) for row in words],
            "original_width": width,
            "original_height": height,
            "clip_b32_similarity_score": random.normal(0.25, 0.06, rows).astype(np.float32),
            "clip_l14_similarity_score": random.normal(0.2, 0.06, rows).astype(np.float32),
            "sha256": [f"{i:064x}" for i in random.integers(0, 2**62, rows)],
        }
    )
