from __future__ import annotations

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.kernels import votes as kernels
from pycurate.kernels.fused_similarity import nearest
from pycurate.ops.labels.outliers import feature_outlier_scores, prediction_outlier_scores


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_feature_scores_follow_their_formula(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "BLOCK_EDGES", 64)
    x = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    x[9] = np.nan
    found = feature_outlier_scores(x, 5, t=2, metric=metric)  # type: ignore[arg-type]
    near = nearest(x, 5, metric=metric).similarities.astype(np.float64)  # type: ignore[arg-type]
    mean = (1 - near if metric == "cosine" else np.sqrt(-near)).mean(axis=1)
    np.testing.assert_allclose(found, np.exp(-2 * mean / np.nanmedian(mean)), rtol=1e-5)
    assert np.isnan(found[9])
    assert np.nanmedian(found) == pytest.approx(np.exp(-2), rel=0.05)


def test_a_far_clump_of_copies_is_an_outlier() -> None:
    random = np.random.default_rng(0)
    x = (np.array([1, 0, 0, 0]) + 0.1 * random.normal(size=(100, 4))).astype(np.float32)
    x[40:60] = [-1, 3, 0, 0]
    found = feature_outlier_scores(x, 5)
    assert found[40:60].max() < np.delete(found, range(40, 60)).min()
    assert len(np.unique(found[40:60])) == 1
    assert feature_outlier_scores(np.ones((5, 3), np.float32)).shape == (5,)


def test_prediction_scores_follow_their_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    from pycurate.ops.labels import outliers

    monkeypatch.setattr(outliers, "BLOCK_ELEMENTS", 20)
    p = np.random.default_rng(0).dirichlet(np.full(7, 0.3), 30)
    p[0] = np.eye(7)[2]
    p[1] = 1 / 7
    entropy = -np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0), axis=1) / np.log(7)
    np.testing.assert_allclose(prediction_outlier_scores(p), 1 - entropy, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prediction_outlier_scores(p, "least_confidence"), p.max(axis=1), rtol=1e-6)
    largest = np.sort(p, axis=1)[:, -3:]
    gen = 1 - np.sum(largest**0.2 * (1 - largest) ** 0.2, axis=1) / (3 * 0.25**0.2)
    found = prediction_outlier_scores(p.astype(np.float32), "gen", most_classes=3, gamma=0.2)
    np.testing.assert_allclose(found, gen, rtol=1e-3, atol=1e-2)
    for method in ("entropy", "least_confidence", "gen"):
        scores = prediction_outlier_scores(p, method)  # type: ignore[arg-type]
        assert scores.argmax() == 0
        assert scores.argmin() == 1
        assert scores.min() >= 0
        assert scores.max() <= 1


def test_bad_input_is_named() -> None:
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(InputError, match="t: expected a number above 0, got 0"):
        feature_outlier_scores(x, t=0)
    with pytest.raises(InputError, match="which is no distance"):
        feature_outlier_scores(x, metric="inner_product")
    with pytest.raises(InputError, match=r"pred_probs: expected \(n, K\) floats"):
        prediction_outlier_scores(np.zeros((3, 2), np.int64))
    with pytest.raises(InputError, match="gamma: expected between 0 and 1"):
        prediction_outlier_scores(x, "gen", gamma=1)
    assert np.isnan(prediction_outlier_scores(np.array([[np.nan, 1], [2, -1], [0.5, 0.5]]))).tolist() == [
        True,
        True,
        False,
    ]


def test_scores_equal_cleanlabs() -> None:
    outlier = pytest.importorskip("cleanlab.outlier")
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 12)).astype(np.float32)
    theirs = outlier.OutOfDistribution({"k": 10}).fit_score(features=x, verbose=False)
    np.testing.assert_allclose(feature_outlier_scores(x), theirs, atol=1e-6)
    p = random.dirichlet(np.full(7, 0.5), 50)
    for method in ("entropy", "least_confidence"):
        judge = outlier.OutOfDistribution({"method": method, "adjust_pred_probs": False})
        ours = prediction_outlier_scores(p, method)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours, judge.score(pred_probs=p), atol=1e-6)
