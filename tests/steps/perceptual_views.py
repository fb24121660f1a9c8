"""A pool of hashes alone, as a fit sees it: for measurements that must hold nothing of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pycurate.ops.dedup.perceptual import PerceptualHashes, hash_texts
from pycurate.types import UID_DTYPE

SHARD_ROWS = 50_000


@dataclass
class HashView:
    """Rows of random hashes, a third of them copies of another one or within 3 bits; columns are memory-mapped."""

    scratch: Path
    total: int
    memory_bytes: int
    shards: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        self.shards = [f"{begin:09d}" for begin in range(0, self.total, SHARD_ROWS)]
        random = np.random.default_rng(0)
        for shard in self.shards:
            codes = random.integers(0, 2**64, (self.rows(shard), 1), dtype=np.uint64)
            near = np.flatnonzero(random.random(len(codes)) < 1 / 3)
            codes[near] = codes[random.integers(0, len(codes), len(near))]
            for _ in range(3):
                flips = np.uint64(1) << random.integers(0, 64, len(near), dtype=np.uint64)
                codes[near, 0] ^= np.where(random.random(len(near)) < 0.5, flips, np.uint64(0))
            np.save(self._path(shard), hash_texts(PerceptualHashes(codes, np.zeros(len(codes), np.uint8))))

    def _path(self, shard: str) -> Path:
        return self.scratch / f"hashes-{shard}.npy"

    def rows(self, shard: str) -> int:
        return min(SHARD_ROWS, self.total - int(shard))

    def column(self, shard: str, name: str) -> Any:
        if name.endswith(".flags"):
            return np.zeros(self.rows(shard), np.uint8)
        return np.load(self._path(shard), mmap_mode="r")

    def uids(self, shard: str) -> Any:
        uids = np.zeros(self.rows(shard), UID_DTYPE)
        uids["f1"] = np.arange(int(shard), int(shard) + len(uids))
        return uids

    def survivors(self, shard: str) -> Any:
        return np.ones(self.rows(shard), np.bool_)

    def map(self, function: Callable[[str], Any]) -> Iterator[Any]:
        return map(function, self.shards)


def anonymous_bytes() -> int:
    """Memory that no file can take back."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10
