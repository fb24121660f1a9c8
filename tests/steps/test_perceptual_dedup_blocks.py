"""``perceptual_dedup`` where hashes meet by blocks: the function over the whole pool, in the memory of the cap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.ops.dedup.perceptual import PerceptualHashes, hash_texts, perceptual_duplicates
from pycurate.pipeline.step import Needs
from pycurate.steps import PerceptualDedup, Threshold

ROWS = 400


def hashes_of(rows: int, bits: int, seed: int) -> PerceptualHashes:
    """Clumps, chains and many copies; every 17th row has none."""
    random = np.random.default_rng([rows, bits, seed])
    codes = random.integers(0, 2**64, (rows, bits // 64), dtype=np.uint64)
    for row in range(rows // 4, rows):
        codes[row] = codes[random.integers(row)]
        for bit in random.integers(0, bits, random.integers(0, 6)):
            codes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    flags = (np.arange(rows) % 17 == 16).astype(np.uint8)
    codes[flags != 0] = 0
    return PerceptualHashes(codes, flags)


def give_hashes(monkeypatch: pytest.MonkeyPatch, hashes: PerceptualHashes) -> None:
    """Rows have the hash of the number that their column ``place`` says, without a picture."""

    def score(self: PerceptualDedup, block: Any) -> dict[str, NDArray[Any]]:
        places = block.columns["place"].to_numpy()
        part = PerceptualHashes(hashes.codes[places], hashes.flags[places])
        return {self.hash_column: hash_texts(part), self.flags_column: part.flags}

    monkeypatch.setattr(PerceptualDedup, "score", score)
    monkeypatch.setattr(PerceptualDedup, "score_needs", lambda self: Needs(columns=("place",)))


@pytest.mark.parametrize("memory_bytes", [64 << 20, 40_000])
@pytest.mark.parametrize("bits", [64, 256])
@pytest.mark.parametrize("removal", ["component", "greedy", "published"])
def test_the_step_is_the_function_over_the_pool(
    curate: Any, block: Any, monkeypatch: pytest.MonkeyPatch, removal: Any, bits: Any, memory_bytes: int
) -> None:
    hashes, random = hashes_of(ROWS, bits, 0), np.random.default_rng(1)
    give_hashes(monkeypatch, hashes)
    if memory_bytes < 1 << 20:
        monkeypatch.setattr(PerceptualDedup, "_block_size", lambda self, memory_bytes: (13, 2))
    uids, scores = random.permutation(ROWS), random.integers(0, 5, ROWS).astype(float)
    shards = [
        block(shard, uids=uids[part], place=np.arange(ROWS)[part], s=scores[part])
        for shard, part in (("a", slice(0, 120)), ("b", slice(120, 121)), ("c", slice(121, ROWS)))
    ]
    for radius in (0, 5, 9):
        step = PerceptualDedup(radius=radius, bits=bits, removal=removal, keep={"highest": "s"})
        made = curate([step], *shards, memory_bytes=memory_bytes)
        judged = np.flatnonzero(hashes.flags == 0)
        rank = np.empty(len(judged), np.int64)
        rank[np.lexsort((uids[judged], -scores[judged]))] = np.arange(len(judged))
        expected = perceptual_duplicates(hashes.codes[judged], radius, rank, removal)
        partners = np.full(ROWS, None, object)
        removed = np.flatnonzero(~expected.kept)
        partners[judged[removed]] = uids[judged[expected.duplicate_of[removed]]]
        assert np.concatenate([made.partner[shard] for shard in "abc"]).tolist() == partners.tolist()
        values = np.concatenate([made.value[shard] for shard in "abc"])[judged]
        np.testing.assert_array_equal(values, expected.similarity.astype(np.float64))
        assert made.artefacts[0]["compared"] == len(judged)


def test_rows_dropped_before_and_pools_without_a_hash(curate: Any, block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = PerceptualHashes(np.array([[5], [5], [4], [0]], np.uint64), np.array([0, 0, 0, 1], np.uint8))
    give_hashes(monkeypatch, hashes)
    rows = block(place=[0, 1, 2, 3], s=[0.0, 1.0, 1.0, 1.0])
    first = Threshold(score="s", minimum=0.5)
    assert curate([first, PerceptualDedup(radius=1)], rows).partner["a"].tolist() == [None, None, 1, None]
    assert curate([PerceptualDedup(radius=1)], rows).partner["a"].tolist() == [None, 0, 0, None]
    none = block(place=[3, 3], s=[0.0, 1.0])
    made = curate([PerceptualDedup()], none)
    assert made.artefacts[0]["compared"] == 0
    assert made.reason["a"].tolist() == ["perceptual_dedup.unjudged"] * 2


PEAK = """
import sys, tempfile, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from perceptual_views import HashView, anonymous_bytes
from pycurate.steps import PerceptualDedup
removal, rows, cap = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
step = PerceptualDedup(radius=3, removal=removal, name="p")
step.fit(HashView(Path(tempfile.mkdtemp()), 5000, cap))  # what libraries take
view, peak, running = HashView(Path(tempfile.mkdtemp()), rows, cap), [0], [True]
before = anonymous_bytes()
def watch():
    while running[0]:
        peak[0] = max(peak[0], anonymous_bytes())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
made = step.fit(view)
running[0] = False
watcher.join()
print((made["similarity"] >= 0).sum(), peak[0] - before)
"""


@pytest.mark.parametrize("removal", ["component", "greedy", "published"])
def test_the_fit_stays_under_the_cap(removal: str) -> None:
    """600,000 rows, for which 196 bytes each were held before; what is memory-mapped is the system's to write."""
    cap, rows = 24 << 20, 600_000
    command = [sys.executable, "-c", PEAK, str(Path(__file__).parent), removal, str(rows), str(cap)]
    removed, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert rows // 5 < removed < rows // 2
    assert peak < cap
