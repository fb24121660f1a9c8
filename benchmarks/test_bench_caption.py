"""Word counts of captions against what a user has: Python's split and pyarrow's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pycurate.ops.text.caption_measures import caption_words

ROWS = 200_000


@pytest.fixture(scope="module")
def captions() -> pa.Array:
    random = np.random.default_rng(0)
    words = np.array(["a", "photo", "of", "the", "café", "house", "straße", "dog", "river", "old", "bridge", "red"])
    rows = words[random.integers(0, len(words), (ROWS, 9))]
    return pa.array([" ".join(row) for row in rows])


def arrow_words(captions: pa.Array) -> pa.Array:
    return pc.list_value_length(pc.utf8_split_whitespace(captions))


def python_words(captions: pa.Array) -> list[int]:
    return [len(caption.split()) for caption in captions.to_pylist()]


@pytest.mark.benchmark(group="caption words")
def test_bench_caption_words(benchmark, isa, captions) -> None:
    words = benchmark(caption_words, captions)
    assert words.tolist() == python_words(captions)
    benchmark.extra_info["MB/s"] = round(captions.nbytes / benchmark.stats["min"] / 1e6)


@pytest.mark.benchmark(group="caption words")
@pytest.mark.parametrize("peer", [arrow_words, python_words])
def test_bench_peer(benchmark, peer, captions) -> None:
    benchmark(peer, captions)
