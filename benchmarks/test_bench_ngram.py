"""MinHash of captions, their shingling included, on one thread; against rensa, which takes words from Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pycurate

ROWS, PERMUTATIONS = 50_000, 128


@cache
def captions() -> pa.Array:
    """2 to 20 words a caption, 11 in the mean, out of 20,000 of 3 to 10 letters."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(["".join(random.choice(letters, random.integers(3, 11))) for _ in range(20_000)])
    return pa.array([" ".join(random.choice(words, random.integers(2, 21))) for _ in range(ROWS)])


def ours(captions: pa.Array) -> Any:
    return pycurate.minhash_signatures(captions, n=2, permutations=PERMUTATIONS, threads=1).signatures


def shingled(captions: pa.Array) -> list[list[str]]:
    """Bigrams of lower-cased words: what a user of rensa writes."""
    found = []
    for caption in captions.to_pylist():
        words = caption.lower().split()
        found.append([" ".join(words[i : i + 2]) for i in range(max(1, len(words) - 1))])
    return found


def rensa(captions: pa.Array) -> Any:
    module = pytest.importorskip("rensa")
    signatures = []
    for shingles in shingled(captions):
        signature = module.RMinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update(shingles)
        signatures.append(signature.digest())
    return signatures


def rensa_matrix(captions: pa.Array) -> Any:
    """rensa's call for many documents at once, where the installed version has it."""
    module = pytest.importorskip("rensa")
    if not hasattr(module.RMinHash, "digest_matrix_from_token_sets"):
        pytest.skip("this version of rensa has no call for many documents")
    return module.RMinHash.digest_matrix_from_token_sets(shingled(captions), PERMUTATIONS, 1)


@pytest.mark.benchmark(group="MinHash of captions")
def test_bench_minhash(benchmark, isa) -> None:
    signatures = benchmark(ours, captions())
    assert signatures.shape == (ROWS, PERMUTATIONS)
    benchmark.extra_info["documents/s"] = round(ROWS / benchmark.stats["min"])


@pytest.mark.benchmark(group="MinHash of captions")
@pytest.mark.parametrize("peer", [rensa, rensa_matrix])
def test_bench_peer(benchmark, peer: Callable[[pa.Array], Any]) -> None:
    benchmark.pedantic(peer, (captions(),), rounds=3)
    benchmark.extra_info["documents/s"] = round(ROWS / benchmark.stats["min"])


@pytest.mark.benchmark(group="pairs of similar captions")
def test_bench_pairs(benchmark) -> None:
    found = benchmark.pedantic(pycurate.minhash_pairs, (captions(),), {"threads": 1}, rounds=3)
    benchmark.extra_info["pairs"] = len(found.rows)


@pytest.mark.gate
def test_gate_minhash() -> None:
    """Seconds of the processor, all threads counted, in turn, so that all see the same disturbance."""
    texts = captions()
    ways = {"pycurate": ours, "rensa": rensa, "rensa of many": rensa_matrix}
    if not hasattr(pytest.importorskip("rensa").RMinHash, "digest_matrix_from_token_sets"):
        del ways["rensa of many"]
    seconds = dict[str, list[float]]((way, []) for way in ways)
    for _ in range(5):
        for way, signatures in ways.items():
            start = time.process_time()
            signatures(texts)
            seconds[way].append(time.process_time() - start)
    against = {
        way: float(np.median(np.array(times) / np.array(seconds["pycurate"])))
        for way, times in seconds.items()
        if way != "pycurate"
    }
    speed = ROWS / float(np.median(seconds["pycurate"]))
    print(f"\nMinHash of {PERMUTATIONS} values: {speed / 1e6:.2f}M captions/s of a core, shingling included; ", end="")
    print(", ".join(f"{ratio:.1f} x {way}" for way, ratio in against.items()))
    assert min(against.values()) >= 5
