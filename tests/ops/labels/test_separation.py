from __future__ import annotations

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.ops.labels.separation import linear_separation, loss_mixture


def test_a_separation_equals_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    x = (random.normal(size=(400, 6)) * [1, 5, 0.1, 1, 1, 1] + 2).astype(np.float32)
    x[:100, 0] += 1.5
    inside, outside = np.arange(60), np.arange(200, 380)
    x[390] = np.nan
    found = linear_separation(x, inside, outside, ridge=1e-3)
    numbers = np.concatenate([inside, outside])
    scaler = StandardScaler().fit(x[numbers].astype(np.float64))
    peer = LogisticRegression(C=1 / (1e-3 * 240), class_weight="balanced", tol=1e-10, max_iter=10_000)
    peer.fit(scaler.transform(x[numbers].astype(np.float64)), np.arange(240) < 60)
    rows = np.delete(np.arange(400), 390)
    expected = peer.predict_proba(scaler.transform(x[rows].astype(np.float64)))[:, 1]
    np.testing.assert_allclose(found.scores[rows], expected, atol=1e-5)
    assert np.isnan(found.scores[390])
    assert found.unjudged.tolist() == [390]
    mask = np.isin(np.arange(400), inside)
    again = linear_separation(x, mask, outside[::-1].copy(), ridge=1e-3)
    np.testing.assert_array_equal(again.scores, found.scores)


def test_rows_that_a_line_separates_have_finite_weights() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 64)).astype(np.float32)
    found = linear_separation(x, np.arange(20), np.arange(20, 40))
    assert (found.scores[:20] > 0.9).all()
    assert (found.scores[20:] < 0.1).all()
    assert np.isfinite(found.weights).all()


def test_a_mixture_equals_scikit_learns() -> None:
    from sklearn.mixture import GaussianMixture

    random = np.random.default_rng(0)
    losses = np.concatenate([random.gamma(2, 0.2, 800), random.normal(3, 0.6, 300)])
    found = loss_mixture(losses)
    scaled = (losses - losses.min()) / np.ptp(losses)
    peer = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled[:, None])
    expected = peer.predict_proba(scaled[:, None])[:, peer.means_.argmax()]
    np.testing.assert_allclose(found.noisy, expected, atol=2e-3)
    np.testing.assert_allclose(found.means, np.sort(peer.means_.ravel()), atol=1e-3)
    assert np.mean(found.is_noisy == (np.arange(1100) >= 800)) > 0.95
    order = random.permutation(1100)
    np.testing.assert_array_equal(loss_mixture(losses[order]).noisy, found.noisy[order])


def test_losses_that_are_equal_or_not_finite() -> None:
    same = loss_mixture(np.full(5, 2.0, np.float32))
    assert not same.is_noisy.any()
    odd = loss_mixture(np.array([0.1, np.nan, 5, np.inf, 0.2, 5.1, 0.1]))
    assert odd.unjudged.tolist() == [1, 3]
    assert np.isnan(odd.noisy[[1, 3]]).all()
    assert odd.is_noisy.tolist() == [False, False, True, False, False, True, False]
    assert loss_mixture(np.empty(0)).noisy.shape == (0,)


def test_bad_input_is_named() -> None:
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(InputError, match="inside: expected row numbers from 0 to 3"):
        linear_separation(x, np.array([4]), np.array([1]))
    with pytest.raises(InputError, match="outside: expected at least one trusted row"):
        linear_separation(x, np.array([0]), np.zeros(4, bool))
    with pytest.raises(InputError, match="outside: row 1 is in inside, too"):
        linear_separation(x, np.array([0, 1]), np.array([1]))
    with pytest.raises(InputError, match="ridge: expected a number above 0"):
        linear_separation(x, np.array([0]), np.array([1]), ridge=0)
    with pytest.raises(InputError, match="x: trusted row 1 is not finite"):
        linear_separation(x + np.array([[0], [np.nan], [0], [0]], np.float32), np.array([0]), np.array([1]))
    with pytest.raises(InputError, match=r"losses: expected \(n,\) floats"):
        loss_mixture(np.arange(5))
    with pytest.raises(InputError, match="threshold: expected from 0 to 1"):
        loss_mixture(np.ones(3), threshold=2)
    with pytest.raises(InputError, match="least_variance"):
        loss_mixture(np.ones(3), least_variance=0)
