"""Near-duplicates by clusters: exact probing equals brute force, other probing what its rule lets meet; nothing else
changes an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.clustered import clustered_join
from pycurate.api.similarity import similarity_join
from pycurate.errors import InputError, WorkspaceError
from pycurate.index.kmeans import kmeans
from pycurate.index.sampling import sample_rows
from pycurate.kernels import fused_similarity as in_memory
from pycurate.kernels.block_similarity import BlockPair
from pycurate.kernels.spanning_forest import heaviest_forest, spanning_forest_above
from pycurate.pipeline.block_join.blocks import BlockPlan
from pycurate.pipeline.cluster_join import ClusteredJoin, batches, centroids, join, segments, visits
from pycurate.reference.rowwise import narrow

Rows = NDArray[Any]
Cut = Callable[..., None]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Cut blocks, segments and tasks of so many rows, whatever the cap, and let so many pairs into memory."""

    def cut(block_rows: int, segment_bytes: int = 1 << 28, task_rows: int = 1 << 18, most_pairs: int = 1 << 20) -> None:
        monkeypatch.setattr(join, "plan_blocks", lambda *_, **__: BlockPlan(block_rows, most_pairs))
        monkeypatch.setattr(segments, "MOST_SEGMENT_BYTES", segment_bytes)
        monkeypatch.setattr(batches, "_TASK_ROWS", task_rows)

    return cut


def unit(x: NDArray[Any]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return rows


def make_rows(n: int = 300, d: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Near-copies by twos and threes in a cone, clumps of equal bits, rows that cannot be judged."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d), dtype=np.float32) + 0.7
    third = n // 3
    x[third : 2 * third] = x[:third] + 0.3 * random.standard_normal((third, d), dtype=np.float32)
    x[2 * third :] = x[: n - 2 * third] + 0.3 * random.standard_normal((n - 2 * third, d), dtype=np.float32)
    x[[7, 40, 41, 100, n - 1]] = x[3]
    x[[60, 20, 130]] = x[11]
    x[[5, 90]] = np.nan
    x[[17, 77]] = 0
    return x


def clip_like(n: int, d: int, seed: int = 0, duplicates: float = 0.2, noise: float = 0.3) -> NDArray[np.float32]:
    """A falling spectrum, a common offset, clusters of unequal size, and near-duplicates of some of the rows."""
    random = np.random.default_rng(seed)
    spread = np.arange(1, d + 1) ** -0.5
    centres = random.standard_normal((30, d)) * spread
    member = random.choice(30, n, p=(p := 1 / np.arange(1, 31)) / p.sum())
    x = unit(random.standard_normal(d) + centres[member] + random.standard_normal((n, d)) * spread)
    count = int(n * duplicates) // 2
    rows = random.permutation(n)[: 2 * count].reshape(2, count)
    x[rows[1]] = unit(x[rows[0]] + noise * random.uniform(0, 1, (count, 1)) * unit(random.standard_normal((count, d))))
    return x


def assert_same(found: Any, expected: Any) -> None:
    fields = getattr(type(expected), "__dataclass_fields__", None)
    for actual, right in (
        [(found, expected)] if fields is None else [(getattr(found, f), getattr(expected, f)) for f in fields]
    ):
        if right is None:
            assert actual is None
            continue
        assert actual.dtype == right.dtype
        np.testing.assert_array_equal(actual, right)


def assert_equals_brute_force(found: ClusteredJoin, x: Rows, threshold: float, **given: Any) -> None:
    order = np.random.default_rng(1).permutation(len(x))
    assert_same(found.pairs_above(threshold), in_memory.pairs_above(x, threshold, **given))
    assert_same(found.components_above(threshold), in_memory.components_above(x, threshold, **given))
    assert_same(found.spanning_forest_above(threshold), spanning_forest_above(x, threshold, **given))
    expected = in_memory.most_similar_earlier(x, order, threshold, **given)
    assert_same(found.most_similar_earlier(order, threshold), expected)


# -- exact probing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clusters", [1, 2, 17, None, 1000])
@pytest.mark.parametrize("threshold", [-1.5, 0.0, 0.8, 0.97, 1.0, 1.5])
def test_exact_probing_equals_brute_force(threshold: float, clusters: int | None, tmp_path: Path) -> None:
    x = make_rows()
    found = clustered_join(x, tmp_path, clusters=clusters, probes="exact")
    assert_equals_brute_force(found, x, threshold)
    assert found.certificate(threshold).verdict == "proven"
    assert found.certificate(threshold).lower_bound == 1


@pytest.mark.parametrize("element", ["float16", "bfloat16", "int8"])
def test_every_element_type(element: str, tmp_path: Path) -> None:
    x, given = make_rows(), {}
    if element == "int8":
        x = np.rint(np.nan_to_num(x) * 30).astype(np.int8)
    elif element == "bfloat16":
        x, given = narrow(x, "bfloat16"), {"dtype": "bfloat16"}
    else:
        x = x.astype(np.float16)
    assert_equals_brute_force(clustered_join(x, tmp_path, probes="exact", **given), x, 0.9, **given)


@pytest.mark.parametrize("threshold", [0.7, 0.9, 0.98])
def test_exact_probing_on_flat_and_on_clip_like_rows(threshold: float, tmp_path: Path) -> None:
    flat = unit(np.random.default_rng(0).standard_normal((3000, 12)))
    assert_equals_brute_force(clustered_join(flat, tmp_path / "flat", probes="exact"), flat, threshold)
    x = clip_like(3000, 48)
    found = clustered_join(x, tmp_path / "clip", probes="exact")
    assert_equals_brute_force(found, x, threshold)
    if threshold == 0.98:
        assert found.work(threshold).share < 0.4, "high thresholds need few visits"


@pytest.mark.parametrize("name", ["laion_sample_10k", "ucm_captions"])
def test_exact_probing_on_real_captions(name: str, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / name / "minilm_emb_fp16.npy"
    x = np.load(path)
    found = clustered_join(path, tmp_path, probes="exact")
    assert_equals_brute_force(found, x, 0.95)
    if name == "laion_sample_10k":
        assert [pairs_of_all_rows(found, threshold) for threshold in (0.95, 0.9)] == [53, 62]


def pairs_of_all_rows(found: ClusteredJoin, threshold: float) -> int:
    """Copies counted one by one."""
    pairs, first = found.pairs_above(threshold), np.where(found.copy_of < 0, np.arange(found.n), found.copy_of)
    sizes = np.bincount(first, minlength=found.n)
    return int((sizes[pairs.rows] * sizes[pairs.cols]).sum() + (sizes * (sizes - 1) // 2).sum())


def test_default_probing_of_real_captions_is_certified(shared_data: Path, tmp_path: Path) -> None:
    x = np.load(shared_data / "laion_sample_10k" / "minilm_emb_fp16.npy")
    found = clustered_join(x, tmp_path)
    expected = in_memory.pairs_above(x, 0.9)
    certificate = found.certificate(0.9)
    assert certificate.rows == certificate.population, "so few rows have a near-duplicate that all are sampled"
    assert certificate.positives == len(np.unique(np.concatenate([expected.rows, expected.cols])))
    assert certificate.recall >= 0.97
    pairs = found.pairs_above(0.9)
    assert certificate.missed_pairs == 2 * (len(expected.rows) - len(pairs.rows))


def test_no_border_is_nearer_than_the_rule_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a plane pairs just above the threshold lie square across borders: the rule finds all, a tighter one not."""
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, 2000)
    angle[1000:] = angle[:1000] + np.arccos(0.9) * (1 - 1e-4)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert_equals_brute_force(clustered_join(x, tmp_path / "rule", clusters=9, probes="exact"), x, 0.9)
    reach = centroids.Borders._reach.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(centroids.Borders, "_reach", property(lambda borders: 0.98 * reach(borders)))
    missing = clustered_join(x, tmp_path / "tighter", clusters=9, probes="exact").pairs_above(0.9)
    assert len(missing.rows) < len(in_memory.pairs_above(x, 0.9).rows)


# -- limited probing -------------------------------------------------------------------------------------------------


def met(x: NDArray[np.float32], clusters: int, probes: int, threshold: float, seed: int = 0) -> NDArray[np.bool_]:
    """(n, n) which distinct rows are compared, by the rule as the documentation says it, in float64."""
    drawn = sample_rows(len(x), min(len(x), 64 * clusters), seed)
    found = kmeans(x[drawn], clusters, iterations=10, sample=len(drawn), seed=seed).centroids.astype(np.float64)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    similarities = unit(x).astype(np.float64) @ found.T
    near = np.argsort(-similarities, axis=1, kind="stable")[:, : probes + 1]
    own = near[:, 0]
    between = np.linalg.norm(found[:, None] - found[None], axis=2)
    reaches = np.zeros((len(x), clusters), bool)
    for column in near.T:
        row = np.arange(len(x))
        margin = similarities[row, own] - similarities[row, column]
        reaches[row, column] = margin <= np.sqrt((1 - threshold) / 2) * between[own, column] + 1e-5
    visits = reaches[:, own]
    together: NDArray[np.bool_] = visits | visits.T
    return together


@pytest.mark.parametrize("probes", [0, 1, 3])
@pytest.mark.parametrize("threshold", [0.85, 0.97])
def test_limited_probing_finds_the_pairs_that_its_rule_lets_meet(
    probes: int, threshold: float, cut: Cut, tmp_path: Path
) -> None:
    cut(37, 4000, 100, 500)
    x = clip_like(900, 16, noise=1.0)
    compared = met(x, 25, probes, threshold)
    truth = in_memory.pairs_above(x, threshold)
    kept = compared[truth.rows, truth.cols]
    found = clustered_join(x, tmp_path, clusters=25, probes=probes)
    pairs = found.pairs_above(threshold)
    np.testing.assert_array_equal(pairs.rows, truth.rows[kept])
    np.testing.assert_array_equal(pairs.cols, truth.cols[kept])
    np.testing.assert_array_equal(pairs.similarities, truth.similarities[kept])
    assert probes == 3 or not kept.all()
    order = np.random.default_rng(2).permutation(len(x))
    rank = np.argsort(order)
    best = np.full(len(x), np.nan, np.float32)
    for a, b, similarity in zip(pairs.rows, pairs.cols, pairs.similarities, strict=True):
        later = a if rank[a] > rank[b] else b
        best[later] = np.fmax(best[later], similarity)
    np.testing.assert_array_equal(found.most_similar_earlier(order, threshold).similarities, best)
    lowest = np.arange(len(x))
    for _ in range(len(x)):
        np.minimum.at(lowest, pairs.cols, lowest[pairs.rows])
        np.minimum.at(lowest, pairs.rows, lowest[pairs.cols])
    np.testing.assert_array_equal(found.components_above(threshold), lowest)
    forest = found.spanning_forest_above(threshold)
    expected = heaviest_forest(len(x), *(np.array(column) for column in (pairs.rows, pairs.cols, pairs.similarities)))
    np.testing.assert_array_equal([forest.rows, forest.cols], expected[:2])
    work = found.work(threshold)
    assert (work.clusters, work.probes) == (25, probes)
    assert work.visits <= probes * len(x)
    assert work.similarities >= compared.sum() // 2 - len(x)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows(n: int, tmp_path: Path) -> None:
    for probes in ("exact", 4):
        x = np.eye(3, dtype=np.float32)[:n] + np.float32(1)
        assert_equals_brute_force(clustered_join(x, tmp_path / f"{probes}", probes=probes), x, 0.5)


def test_no_row_that_can_be_judged(tmp_path: Path) -> None:
    x = np.zeros((9, 3), np.float16)
    found = clustered_join(x, tmp_path)
    assert_equals_brute_force(found, x, 0.5)
    assert found.certificate(0.5).verdict == "proven"


def test_rows_of_one_direction_and_different_lengths(tmp_path: Path) -> None:
    """k-means has one distinct direction to place every centroid on."""
    x = np.arange(1, 101, dtype=np.float32)[:, None] * np.ones(4, np.float32)
    for probes in ("exact", 0):
        assert_equals_brute_force(clustered_join(x, tmp_path / f"{probes}", probes=probes), x, 0.9)


# -- what changes no answer ------------------------------------------------------------------------------------------

QUESTIONS: dict[str, Callable[[ClusteredJoin], Any]] = {
    "pairs_above": lambda found: found.pairs_above(0.85),
    "components_above": lambda found: found.components_above(0.85),
    "spanning_forest_above": lambda found: found.spanning_forest_above(0.8),
    "most_similar_earlier": lambda found: found.most_similar_earlier(np.arange(found.n)[::-1], 0.8),
}


@pytest.mark.parametrize("probes", ["exact", 2])
def test_caps_threads_shards_and_files_change_nothing(probes: Any, cut: Cut, tmp_path: Path) -> None:
    x = make_rows().astype(np.float16)
    expected = [ask(clustered_join(x, tmp_path / "whole", probes=probes)) for ask in QUESTIONS.values()]
    np.save(tmp_path / "a.npy", x[:130])
    sources: list[Any] = [x, [tmp_path / "a.npy", x[130:130], x[130:]], [x[:1], x[1:299], x[299:]], x]
    cuts = [(10, 700, 20, 40), (64, 3000, 50, 90), (1000, 1 << 20, 1 << 20, 1 << 20), (7, 40, 1, 100)]
    for number, (source, limits) in enumerate(zip(sources, cuts, strict=True)):
        cut(*limits)
        found = clustered_join(source, tmp_path / f"{number}", probes=probes, threads=1 + number % 3)
        for ask, right in zip(QUESTIONS.values(), expected, strict=True):
            assert_same(ask(found), right)


def test_only_what_is_said_to_changes_clusters(tmp_path: Path) -> None:
    x = clip_like(600, 16)
    first = clustered_join(x, tmp_path / "a", probes=0)
    pairs = first.pairs_above(0.8)
    for name, other in (("seed", {"seed": 1}), ("clusters", {"clusters": 40}), ("iterations", {"iterations": 0})):
        found = clustered_join(x, tmp_path / name, probes=0, **other)
        assert not np.array_equal(found.pairs_above(0.8).rows, pairs.rows)
    # One folder holds answers of all.
    again = clustered_join(x, tmp_path / "a", probes=0, seed=1)
    assert len(again.pairs_above(0.8).rows) != len(pairs.rows)
    assert_same(clustered_join(x, tmp_path / "a", probes=0).pairs_above(0.8), pairs)
    # Another kind of join, too.
    assert set(pairs.rows) <= set(similarity_join(x, tmp_path / "a").pairs_above(0.8).rows)


def count_calls(monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[str]:
    asked: list[str] = []
    for name in ("pairs_above", "forest_above", "spanning_forest_above", "max_earlier"):
        original = getattr(BlockPair, name)

        def noted(self: BlockPair, *given: Any, _name: str = name, _original: Any = original, **named: Any) -> Any:
            if len(asked) == fail_at:
                raise KeyboardInterrupt
            asked.append(_name)
            return _original(self, *given, **named)

        monkeypatch.setattr(BlockPair, name, noted)
    return asked


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stopped_run_goes_on_where_it_stopped(question: str, cut: Cut, tmp_path: Path) -> None:
    cut(30, 2000, 60, 50)
    x, ask = make_rows(), QUESTIONS[question]
    with pytest.MonkeyPatch.context() as patch:
        asked = count_calls(patch)
        expected = ask(clustered_join(x, tmp_path / "whole", threads=1))
        whole = len(asked)
    assert whole > 30
    for stop in (0, 3, whole // 2, whole - 1):
        folder = tmp_path / f"stopped-{stop}"
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                ask(clustered_join(x, folder, threads=1))
        with pytest.MonkeyPatch.context() as patch:
            asked = count_calls(patch)
            assert_same(ask(clustered_join(x, folder, threads=1)), expected)
            assert len(asked) < whole or stop < 10
            assert stop < whole // 2 or len(asked) < 0.8 * whole
            before = len(asked)
            assert_same(ask(clustered_join(x, folder, threads=1)), expected)
            assert len(asked) == before, "an answer is read back"


def test_a_run_stopped_among_segments_or_visits_goes_on(cut: Cut, tmp_path: Path) -> None:
    cut(30, 2000)
    x = make_rows()
    expected = clustered_join(x, tmp_path / "whole").pairs_above(0.85)
    for module, name in ((segments, "_write_segment"), (visits, "_sorted_parts")):
        original, calls = getattr(module, name), []

        def stopping(*given: Any, _original: Any = original, _calls: list[int] = calls) -> Any:
            _calls.append(1)
            if len(_calls) == 3:
                raise KeyboardInterrupt
            return _original(*given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, stopping)
            with pytest.raises(KeyboardInterrupt):
                clustered_join(x, tmp_path / name).pairs_above(0.85)
            assert_same(clustered_join(x, tmp_path / name).pairs_above(0.85), expected)
            assert len(calls) == 3 + -(-288 // (2000 // 64)) - 2


KILLED = """
import os, signal, sys
from pycurate.api.clustered import clustered_join
from pycurate.api.similarity import similarity_join
from pycurate.kernels.block_similarity import BlockPair
from pycurate.kernels.spanning_forest import heaviest_forest, spanning_forest_above
from pycurate.pipeline.cluster_join import batches, segments
batches._TASK_ROWS = 60
segments.MOST_SEGMENT_BYTES = 2000
asked, original = [], BlockPair.max_earlier
def killing(self, *given, **named):
    asked.append(1)
    if len(asked) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *given, **named)
BlockPair.max_earlier = killing
import numpy as np
clustered_join(sys.argv[1], sys.argv[2], clusters=17, threads=2).most_similar_earlier(np.arange(300), 0.8)
"""


def test_a_run_killed_with_sigkill_goes_on(cut: Cut, tmp_path: Path) -> None:
    x = make_rows()
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x.npy"), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert list((tmp_path / "out").glob("clustered_most_similar_earlier-*/tasks/*.json"))
    cut(1000, 2000, 60)
    expected = clustered_join(x, tmp_path / "whole", clusters=17).most_similar_earlier(np.arange(300), 0.8)
    again = clustered_join(tmp_path / "x.npy", tmp_path / "out", clusters=17)
    assert_same(again.most_similar_earlier(np.arange(300), 0.8), expected)
    np.testing.assert_array_equal(
        expected.similarities >= 0.8, in_memory.most_similar_earlier(x, np.arange(300), 0.8).similarities >= 0.8
    )


@pytest.mark.parametrize("question", QUESTIONS)
def test_damage_is_noticed_and_computed_again(question: str, cut: Cut, tmp_path: Path) -> None:
    cut(30, 6000, 100)
    x, ask = make_rows(), QUESTIONS[question]
    expected = ask(clustered_join(x, tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            ask(clustered_join(x, tmp_path / "out", threads=1))
    damaged = [path for path in tmp_path.glob("out/*/tasks/*") if path.suffix != ".json"]
    assert len(damaged) > 10
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    assert_same(ask(clustered_join(x, tmp_path / "out")), expected)


# -- limits and words ------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_identical_rows_take_seconds(tmp_path: Path) -> None:
    x = np.tile(np.random.default_rng(0).standard_normal((1, 64)).astype(np.float16), (100_000, 1))
    x[50_000:50_100] = np.random.default_rng(1).standard_normal((100, 64))
    begun = time.process_time()
    for probes in ("exact", 4):
        assert_equals_brute_force(clustered_join(x, tmp_path / f"{probes}", probes=probes), x, 0.9)
    assert time.process_time() - begun < 20


NOISY = """
import re, sys
from pathlib import Path
import numpy as np
from pycurate.api.clustered import clustered_join
from pycurate.api.similarity import similarity_join
found = clustered_join(sys.argv[1], sys.argv[2], clusters=int(sys.argv[3]), memory_bytes=int(sys.argv[4]), threads=1)
best = found.most_similar_earlier(np.arange(found.n), 0.9)
assert (best.indices[1:] >= 0).mean() > 0.999
assert (found.components_above(0.9) == 0).mean() > 0.999
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10)
"""


@pytest.mark.parametrize("clusters", [1, 100])
def test_noisy_copies_take_memory_for_their_rows_only(clusters: int, tmp_path: Path) -> None:
    """20,000 rows have 2e8 pairs, 4 GB: far above the cap."""
    random = np.random.default_rng(0)
    x = random.standard_normal(64) + 0.2 * random.standard_normal((20_000, 64))
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    cap = 260 << 20
    command = [sys.executable, "-c", NOISY, str(tmp_path / "x.npy"), str(tmp_path / "out"), str(clusters), str(cap)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < cap


def test_more_pairs_than_allowed_are_an_error(tmp_path: Path) -> None:
    x = make_rows()
    count = len(clustered_join(x, tmp_path / "whole").pairs_above(0.85).rows)
    found = clustered_join(x, tmp_path / "out")
    for most in (count - 1, 3):
        with pytest.raises(
            InputError, match=rf"max_pairs: expected at most {most:,} pairs at or above 0\.85, but at least"
        ):
            found.pairs_above(0.85, max_pairs=most)
    assert len(found.pairs_above(0.85, max_pairs=count).rows) == count
    with pytest.raises(ValueError, match="max_pairs: expected None or at least 0, got -1"):
        found.pairs_above(0.85, max_pairs=-1)


def test_other_rows_and_other_processes_are_refused(tmp_path: Path) -> None:
    x = make_rows()
    found = clustered_join(x, tmp_path, progress=lambda fraction: clustered_join(x, tmp_path))
    with pytest.raises(WorkspaceError, match=f"is in use by process {os.getpid()} on"):
        found.pairs_above(0.85)
    with pytest.raises(WorkspaceError, match="holds answers about other rows than these"):
        clustered_join(x + 1, tmp_path)


def test_progress_rises_to_one(cut: Cut, tmp_path: Path) -> None:
    cut(30, 2000, 60)
    told: list[float] = []
    found = clustered_join(make_rows(), tmp_path, progress=told.append)
    for ask in QUESTIONS.values():
        told.clear()
        ask(found)
        assert told == sorted(told)
        assert told[-1] == pytest.approx(1)
        assert len(told) >= 10
