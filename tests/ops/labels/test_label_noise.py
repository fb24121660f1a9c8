from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_noise import auc, f1, planted, published_simifeat
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels import votes as kernels
from pycurate.ops.labels import simifeat
from pycurate.ops.labels.label_noise import LabelNoise, Method, knn_label_noise
from pycurate.types import UID_DTYPE


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    return x.astype(np.float32), labels.astype(np.int64)


def figures(x: NDArray[np.float32], labels: NDArray[np.int64], rate: float, method: Method) -> tuple[float, float]:
    """F1 and AUC, the mean over 5 draws of the noise."""
    classes = int(labels.max()) + 1
    both = []
    for seed in range(5):
        given = planted(labels, rate, classes, seed)
        found = knn_label_noise(x, given, method=method)
        both.append((f1(found.is_issue, given != labels), auc(-found.quality, given != labels)))
    mean = np.mean(both, axis=0)
    return float(mean[0]), float(mean[1])


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_simifeat_finds_noise_in_digits(rate: float) -> None:
    f1_simifeat, area = figures(*digits(), rate, "simifeat")
    assert f1_simifeat >= 0.97
    assert area >= 0.995
    assert figures(*digits(), rate, "simifeat-rank")[0] >= 0.94


@pytest.mark.parametrize(("rate", "bar"), [(0.2, 0.90), (0.4, 0.94)])
def test_simifeat_finds_more_than_a_plain_vote_in_ucm_images(shared_data: Path, rate: float, bar: float) -> None:
    x = np.load(shared_data / "ucm_captions" / "feat_mobilenet1024_fp16.npy").astype(np.float32)
    labels = np.arange(2100) // 100
    found, area = figures(x, labels, rate, "simifeat")
    assert found > figures(x, labels, rate, "vote")[0] + 0.02
    assert found >= bar
    assert area >= 0.985


def test_simifeat_decides_as_the_published_code() -> None:
    x, labels = digits()
    given = planted(labels, 0.3, 10, 0)
    ours = knn_label_noise(x, given).is_issue
    theirs = published_simifeat(x, given, 10)
    again = published_simifeat(x, given, 10, seed=1)
    # Other random parts: as near to it as it is to itself.
    assert np.mean(ours != theirs) <= np.mean(again != theirs) + 0.005


@pytest.mark.parametrize("method", ["vote", "simifeat", "simifeat-rank"])
def test_results_do_not_depend_on_threads_blocks_or_order(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = digits()
    x, given = x[:600], planted(labels, 0.3, 10, 0)[:600]
    x[100:110] = x[3]
    uids = np.zeros(600, UID_DTYPE)
    uids["f1"] = np.random.default_rng(0).permutation(600)
    first = knn_label_noise(x, given, method=method, threads=1, uids=uids)
    monkeypatch.setattr(kernels, "BLOCK_EDGES", 1000)
    again = knn_label_noise(x, given, method=method, threads=3, uids=uids)
    order = np.random.default_rng(1).permutation(600)
    moved = knn_label_noise(x[order], given[order], method=method, uids=uids[order])
    for name in ("is_issue", "quality", "suggested", "confidence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(moved, name), getattr(first, name)[order])


@pytest.mark.parametrize("method", ["vote", "simifeat"])
def test_rows_without_label_or_neighbours_are_no_issue(method: Method) -> None:
    x, labels = digits()
    x, labels = x[:300].copy(), labels[:300].copy()
    labels[:10] = -1
    x[5:20] = 0
    x[20] = np.nan
    found = knn_label_noise(x, labels, method=method)
    assert not found.is_issue[:21].any()
    assert found.unjudged.tolist() == list(range(10, 21))
    assert np.isnan(found.quality[:21]).all()
    assert (found.suggested[:5] >= 0).all()
    assert (found.suggested[5:21] == -1).all()
    assert found.n_classes == 10


def test_ranked_issues_start_with_the_lowest_quality() -> None:
    x, labels = digits()
    found = knn_label_noise(x, planted(labels, 0.2, 10, 0))
    assert set(found.ranked) == set(np.flatnonzero(found.is_issue))
    assert (np.diff(found.quality[found.ranked]) >= 0).all()
    assert isinstance(found, LabelNoise)


def test_tables_carry_uids_or_rows() -> None:
    x, labels = digits()
    found = knn_label_noise(x[:40], labels[:40], method="vote")
    uids = np.zeros(40, UID_DTYPE)
    uids["f1"] = np.arange(40)
    table = found.to_arrow(uids)
    assert table["uid"][7].as_py() == f"{7:032x}"
    assert table["is_issue"].to_pylist() == found.is_issue.tolist()
    assert found.to_arrow()["row"].to_pylist() == list(range(40))
    with pytest.raises(InputError, match=r"uids: expected \(40,\) uids"):
        found.to_arrow(uids[:3])


def test_parts_have_the_size_that_was_asked_for_and_lists_are_long_enough() -> None:
    members = simifeat.round_members(20_000, 21, 0.9, 5)
    shares = [np.mean(members >> np.uint64(r) & np.uint64(1)) for r in range(21)]
    np.testing.assert_allclose(shares, 0.9, atol=0.01)
    assert not (members >> np.uint64(21)).any()
    assert len(np.unique(members)) > 1000
    assert (simifeat.round_members(10, 64, 1.0, 0) == np.uint64(2**64 - 1)).all()
    assert simifeat.list_width(10, 1.0) == 9
    width = simifeat.list_width(10)
    drawn = np.random.default_rng(0).random((200_000, width)) < 0.9
    assert np.mean(drawn.sum(axis=1) < 9) < 1e-4
    assert width < 25


def test_more_neighbours_than_rows_are_all_rows() -> None:
    x, labels = digits()
    found = knn_label_noise(x[:8], labels[:8], 50, method="vote")
    assert len(found.is_issue) == 8


def test_bad_input_is_named() -> None:
    x, labels = digits()
    with pytest.raises(InputError, match="rounds: expected at most 64, got 65"):
        knn_label_noise(x, labels, rounds=65)
    with pytest.raises(InputError, match="fraction: expected above 0 and at most 1, got 0"):
        knn_label_noise(x, labels, fraction=0)
    with pytest.raises(InputError, match="k: expected a whole number of at least 2, got 1"):
        knn_label_noise(x, labels, 1)
    with pytest.raises(ValueError, match="method: expected 'simifeat'"):
        knn_label_noise(x, labels, method="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="metric: votes are weighed by similarity"):
        knn_label_noise(x, labels, metric="l2")
    with pytest.raises(InputError, match="every class needs a row"):
        knn_label_noise(x, labels, method="simifeat-rank", n_classes=12)
