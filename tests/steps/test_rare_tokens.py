from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pycurate import Recipe, open_pool, plan, run
from pycurate.api.run import run_memory
from pycurate.api.settings import settle
from pycurate.errors import RecipeError
from pycurate.ops.text.grams import caption_grams, frequent_cut
from pycurate.ops.text.row_keys import normalise_caption
from pycurate.pipeline.scan import column_sets
from pycurate.pipeline.workspace import Workspace
from pycurate.steps import RareTokens, Threshold


def zipf_captions(rows: int) -> list[str | None]:
    generator = np.random.default_rng(1)
    captions: list[str | None] = []
    for length in generator.integers(0, 8, rows):
        words = generator.zipf(1.4, length) % 300
        captions.append(" ".join(f"{'Wort' if word % 3 else 'wort'}{word // 2}" for word in words))
    captions[5] = None
    return captions


def grams_of(caption: str) -> list[str]:
    words = caption.split()
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def plainly(captions: list[str | None], vocabulary: int) -> tuple[list[bool | None], list[int]]:
    """Whether each caption passes (None: no caption), and the count of its rarest gram outside the vocabulary."""
    counts = Counter(gram for caption in captions if caption is not None for gram in grams_of(caption))
    # The last hash of one gram alone is its own: unigrams come before bigrams.
    hashes = {gram: int(caption_grams(pa.array([gram]))[0][-1]) for gram in counts}
    frequent = set(sorted(counts, key=lambda gram: (-counts[gram], hashes[gram]))[:vocabulary])
    passes: list[bool | None] = []
    rarest = []
    for caption in captions:
        outside = [counts[gram] for gram in grams_of(caption or "") if gram not in frequent]
        passes.append(None if caption is None else not outside)
        rarest.append(min(outside, default=0))
    return passes, rarest


@pytest.mark.parametrize("memory_bytes", [64 << 20, 4_000])  # one range of keys, and dozens
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("vocabulary", [1, 40, 400, 10**8])
def test_captions_with_a_gram_outside_the_vocabulary_are_dropped(
    curate: Any, block: Any, vocabulary: int, normalise: bool, memory_bytes: int
) -> None:
    captions = zipf_captions(600)
    compared = [None if caption is None else normalise_caption(caption) for caption in captions]
    passes, rarest = plainly(compared if normalise else captions, vocabulary)
    shards = [block(shard, caption=captions[i * 200 : (i + 1) * 200]) for i, shard in enumerate("abc")]
    step = RareTokens(vocabulary=vocabulary, normalise=normalise)
    made = curate([step], *shards, block_rows=70, memory_bytes=memory_bytes)
    assert np.concatenate([made.keep[shard] for shard in "abc"]).tolist() == [bool(p) for p in passes]
    reasons = np.concatenate([made.reason[shard] for shard in "abc"])
    values = np.concatenate([made.value[shard] for shard in "abc"])
    for passed, count, reason, value in zip(passes, rarest, reasons, values, strict=True):
        assert reason == {None: "rare_tokens.unjudged", True: None, False: "rare_tokens"}[passed]
        assert np.isnan(value) if passed is not False else value == count
    assert (False in passes) == (vocabulary < 10**8)


def test_equally_frequent_grams_rank_by_hash_over_all_shards(curate: Any, block: Any) -> None:
    words = [f"w{i}" for i in range(50)]
    hashes = caption_grams(pa.array(words))[0]
    first = {words[i] for i in np.argsort(hashes)[:20]}
    shards = [block("a", caption=words[:31]), block("b", caption=words[31:])]
    made = curate([RareTokens(vocabulary=20)], *shards, block_rows=4, memory_bytes=1_000)
    kept = {words[row + 31 * (shard == "b")] for shard, row in made.kept_rows()}
    assert kept == first


def test_counts_are_of_the_pool_whatever_was_dropped_before(curate: Any, block: Any) -> None:
    rows = block(caption=["a", "a", "b"], s=[0.0, 1.0, 1.0])
    made = curate([Threshold(score="s", minimum=0.5), RareTokens(vocabulary=1)], rows)
    assert made.keep["a"].tolist() == [False, True, False]


def test_grams_are_words_and_neighbours_within_a_caption() -> None:
    grams, rows = caption_grams(pa.array(["x y", None, "", " y  x x "]))
    x, y = (int(caption_grams(pa.array([word]))[0][0]) for word in "xy")
    assert grams[:5].tolist() == [x, y, y, x, x]
    assert rows.tolist() == [0, 0, 3, 3, 3, 0, 3, 3]
    assert len(set(grams.tolist())) == 5  # x, y, "x y", "y x", "x x"
    assert grams.dtype == np.uint64
    assert rows.dtype == np.uint32
    empty, none = caption_grams(pa.array([], pa.string()))
    assert (len(empty), len(none)) == (0, 0)


@pytest.mark.parametrize(
    ("sizes", "limit", "cut"),
    [
        ({1: 5, 3: 2, 9: 1}, 8, None),
        ({1: 5, 3: 2, 9: 1}, 7, (1, 4)),
        ({1: 5, 3: 2, 9: 1}, 3, (3, 2)),
        ({1: 5, 3: 2, 9: 1}, 2, (3, 1)),
        ({1: 5, 3: 2, 9: 1}, 1, (9, 1)),
        ({}, 1, None),
    ],
)
def test_the_vocabulary_ends_where_it_is_full(sizes: dict[int, int], limit: int, cut: tuple[int, int] | None) -> None:
    assert frequent_cut(sizes, limit) == cut


def test_a_run_keeps_the_same_rows_however_it_is_cut_and_reuses_the_grams(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=3, rows=300)

    def curated(vocabulary: int, out: str, **options: Any) -> Any:
        recipe = Recipe(name="r", steps=[{"rare_tokens": {"vocabulary": vocabulary}}])
        return run(recipe, pool, tmp_path / out, **options)

    one = curated(10, "one", workers=1, processes=False)
    assert 0 < one.manifest.counts.kept < 900
    other = curated(10, "other", workers=2, processes=True)
    assert other.subset.read_bytes() == one.subset.read_bytes()
    again = curated(20, "one", workers=2, processes=False)
    scan = next(stage for stage in again.manifest.stages if stage.name == "scan")
    assert (scan.reused, scan.rows) == (3, 0)
    assert again.manifest.counts.kept > one.manifest.counts.kept
    assert curated(10**8, "one", processes=False).manifest.counts.kept == 900


def test_a_shard_whose_pairs_are_gone_is_read_again(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=50)
    recipe = Recipe(name="r", steps=[{"rare_tokens": {"vocabulary": 10}}])
    first = run(recipe, pool, tmp_path / "out", processes=False).subset.read_bytes()
    lost = sorted((tmp_path / "out" / "workspace" / "exchange").rglob("*.arrow"))[1]
    lost.unlink()
    (tmp_path / "out" / "workspace" / "finished.json").unlink()
    again = run(recipe, pool, tmp_path / "out", processes=False)
    assert next(stage.reused for stage in again.manifest.stages if stage.name == "scan") == 1
    assert again.subset.read_bytes() == first


def test_the_plan_counts_the_disk_of_grams(tmp_path: Path, pool_factory: Any) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path / "pool", shards=2, rows=50))
    recipe = Recipe(name="r", steps=[{"rare_tokens": {}}])
    planned = plan(recipe, pool, sample_seconds=0.05).disk.score_bytes
    run(recipe, pool, tmp_path / "out", processes=False)
    workspace = Workspace(tmp_path / "out" / "workspace")
    folder = next((workspace.root / "exchange").iterdir()).name
    pairs = sum(len(keys) for shard in pool.shards for keys, _ in workspace.read_pairs(folder, shard.name))
    assert planned == pytest.approx(4 * 100 + 12 * pairs, rel=0.02)


def test_vocabulary_changes_the_fit_and_not_the_grams() -> None:
    few, many = RareTokens(vocabulary=1), RareTokens(vocabulary=2)
    assert few.score_parameters() == many.score_parameters()
    assert few.fit_parameters() != many.fit_parameters()
    with pytest.raises(RecipeError, match="rare_tokens: vocabulary: expected greater than or equal to 1, got 0"):
        RareTokens(vocabulary=0)


def test_blocks_are_shorter_where_words_are_handed_out(tmp_path: Path, pool_factory: Any) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20))

    def block_rows(step: dict[str, Any]) -> int:
        settings = settle(Recipe(name="r", steps=[step]), pool, 200 << 20, 1, False)
        return run_memory(settings, column_sets(settings.recipe.steps)).block_rows

    assert block_rows({"rare_tokens": {}}) < 0.75 * block_rows({"frequency": {"key": "caption", "max_rows": 1}})
