"""What a clustered join misses is owned up to: sampled rows against brute force, and probing raised until it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.api.clustered import clustered_join
from pycurate.errors import RecallError
from pycurate.kernels import fused_similarity as in_memory
from pycurate.pipeline.cluster_join import ClusteredJoin, join

Rows = NDArray[np.float32]


def across_borders(n: int, d: int, seed: int = 0) -> Rows:
    """Rows without clusters, so that every border runs through the midst of them, and a near-copy of each."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    noise = random.standard_normal((n, d))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = x + 0.45 * noise
    both: Rows = np.concatenate([x, copies])[random.permutation(2 * n)].astype(np.float32)
    return both


def true_recall(found: ClusteredJoin, x: Rows, threshold: float) -> tuple[int, int, int]:
    """Rows with a near-duplicate, those that lost all, and missed pairs counted from both ends."""
    truth, pairs = in_memory.pairs_above(x, threshold), found.pairs_above(threshold)
    positive = np.union1d(truth.rows, truth.cols)
    kept = np.union1d(pairs.rows, pairs.cols)
    return len(positive), len(positive) - len(kept), 2 * (len(truth.rows) - len(pairs.rows))


@pytest.mark.parametrize("probes", [0, 1, 2, 8])
def test_a_sample_of_all_rows_tells_the_recall_itself(probes: int, tmp_path: Path) -> None:
    x = across_borders(1500, 24)
    found = clustered_join(x, tmp_path, clusters=60, probes=probes)
    certificate = found.certificate(0.9, target=0.9999, most_similarities=10**12)
    positives, lost, missed = true_recall(found, x, 0.9)
    assert certificate.rows == certificate.population == 3000
    assert (certificate.positives, certificate.lost, certificate.missed_pairs) == (positives, lost, missed)
    assert certificate.recall == certificate.lower_bound == 1 - lost / positives
    assert (lost > 0) == (certificate.verdict == "fails") or probes == 8
    assert probes > 1 or certificate.verdict == "fails", "few probes lose rows across borders, and say so"


def test_a_smaller_sample_bounds_it(tmp_path: Path) -> None:
    x = across_borders(6000, 16)
    found = clustered_join(x, tmp_path, clusters=200, probes=1)
    positives, lost, missed = true_recall(found, x, 0.9)
    certificate = found.certificate(0.9)
    assert certificate.rows == 1000 < certificate.population
    assert certificate.lower_bound < 1 - lost / positives < certificate.upper_bound
    assert certificate.missed_share_bound > 0.8 * missed / (2 * len(in_memory.pairs_above(x, 0.9).rows))
    assert certificate == clustered_join(x, tmp_path / "again", clusters=200, probes=1).certificate(0.9)
    other = clustered_join(x, tmp_path, clusters=200, probes=1, seed=1).certificate(0.9)
    assert other.positives != certificate.positives


def test_no_positives_are_no_recall(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((5000, 64)).astype(np.float32)
    found = clustered_join(x, tmp_path, probes=1)
    undecided = found.certificate(0.95, most_similarities=2000 * 5000)
    assert (undecided.rows, undecided.positives, undecided.verdict) == (2000, 0, "undecided")
    assert "not certifiable with 0 positives, 408 are needed" in undecided.sentence()
    assert undecided.lower_bound == 0
    # All rows sampled: no row has a near-duplicate that could be lost.
    assert found.certificate(0.95).verdict == "holds"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "MOST_SIMILARITIES", 2000 * 5000)
        asked = clustered_join(x, tmp_path, probes=1, min_recall=0.99)
        with pytest.raises(RecallError, match=r"min_recall: expected a recall of at least .*, got .* not certifiable"):
            asked.components_above(0.95)


def test_probing_is_raised_until_the_recall_holds(tmp_path: Path) -> None:
    x = across_borders(6000, 16)
    low = clustered_join(x, tmp_path, clusters=200, probes=1)
    assert low.certificate(0.9).verdict == "fails"
    found = clustered_join(x, tmp_path, clusters=200, probes=1, min_recall=0.99)
    certificate = found.certificate(0.9)
    assert certificate.verdict == "holds"
    assert certificate.lower_bound >= 0.99
    probes = found.work(0.9).probes
    assert probes is not None
    assert probes > 1
    assert certificate.method == f"200 clusters, {probes} probes"
    positives, lost, _ = true_recall(found, x, 0.9)
    assert 1 - lost / positives >= 0.99
    expected = clustered_join(x, tmp_path / "given", clusters=200, probes=probes).pairs_above(0.9)
    np.testing.assert_array_equal(found.pairs_above(0.9).rows, expected.rows)


def test_a_recall_out_of_reach_fails_saying_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "DEEPEST", 2)
    x = across_borders(6000, 16)
    found = clustered_join(x, tmp_path, clusters=200, probes=1, min_recall=0.999)
    order: NDArray[Any] = np.arange(len(x))
    with pytest.raises(RecallError, match=r"got 200 clusters, 2 probes: at least .* pass probes='exact', fewer"):
        found.most_similar_earlier(order, 0.9)
    exact = clustered_join(x, tmp_path, clusters=200, probes="exact", min_recall=0.999)
    assert exact.certificate(0.9).verdict == "proven"


def test_noisy_copies_are_counted_without_holding_their_pairs(tmp_path: Path) -> None:
    """8,000 copies that k-means cuts apart by chance: each has nearly all others as near-duplicates."""
    random = np.random.default_rng(0)
    x = (random.standard_normal(32) + 0.25 * random.standard_normal((8000, 32))).astype(np.float32)
    found = clustered_join(x, tmp_path, clusters=80, probes=2)
    certificate = found.certificate(0.9)
    assert certificate.verdict == "holds"
    assert certificate.lost == 0
    assert certificate.positives == certificate.rows == 1000
    assert certificate.pairs > 1_000_000
    assert certificate.missed_pairs > 0.5 * certificate.pairs, "no row is lost, most of its pairs are"
    assert certificate.missed_share_bound > certificate.missed_pairs / certificate.pairs


def test_a_target_is_a_share(tmp_path: Path) -> None:
    found = clustered_join(across_borders(50, 4), tmp_path)
    with pytest.raises(ValueError, match="target: expected a share from 0 to 1, got 2"):
        found.certificate(0.9, target=2)
