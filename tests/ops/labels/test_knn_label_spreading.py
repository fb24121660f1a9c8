"""`KnnLabelSpreading` beside scikit-learn's LabelSpreading, and where scikit-learn uses it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from pycurate import KnnLabelSpreading
from pycurate.errors import InputError

X, Y = load_digits(return_X_y=True)


def some(count: int, seed: int) -> NDArray[np.int64]:
    known = np.random.default_rng(seed).permutation(len(X))[:count]
    labels = np.full(len(X), -1)
    labels[known] = Y[known]
    return labels


@pytest.mark.parametrize(("count", "accuracy"), [(50, 0.896), (100, 0.939), (200, 0.966)])
def test_digits_given_the_graph_of_scikit_learn(count: int, accuracy: float) -> None:
    right = []
    for seed in range(10):
        labels = some(count, seed)
        peer = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.2, max_iter=30, tol=1e-3).fit(X, labels)
        graph = peer._get_kernel(peer.X_)
        ours = KnnLabelSpreading(metric="precomputed", alpha=0.2, max_iter=30, tol=1e-3).fit(graph, labels)
        np.testing.assert_allclose(ours.label_distributions_, peer.label_distributions_, atol=1e-6)
        reached = peer.label_distributions_.any(axis=1)  # scikit-learn gives the others the first class
        np.testing.assert_array_equal(ours.transduction_, np.where(reached, peer.transduction_, -1))
        np.testing.assert_array_equal(ours.classes_, peer.classes_)
        assert ours.n_iter_ == peer.n_iter_
        right.append(float((ours.transduction_ == Y).mean()))
    assert np.mean(right) == pytest.approx(accuracy, abs=0.001)


@pytest.mark.parametrize("alpha", [0.9, 0.99])
@pytest.mark.filterwarnings("ignore:max_iter:UserWarning")
def test_sweeps_that_do_not_converge_are_the_same_and_warned_of(alpha: float) -> None:
    labels = some(60, 3)
    peer = LabelSpreading(kernel="knn", n_neighbors=10, alpha=alpha, max_iter=25).fit(X, labels)
    model = KnnLabelSpreading(metric="precomputed", alpha=alpha, max_iter=25)
    with pytest.warns(UserWarning, match="max_iter=25 sweeps ended with a change not below tol=0.001"):
        model.fit(peer._get_kernel(peer.X_), labels)
    np.testing.assert_allclose(model.label_distributions_, peer.label_distributions_, atol=1e-6)
    assert model.n_iter_ == peer.n_iter_ == 25


def test_rows_give_what_scikit_learn_gives_but_for_ties_of_distances() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 20)).astype(np.float32)  # no two distances are equal
    x[250:] += 2
    labels = np.full(500, -1)
    labels[[3, 300]] = [0, 1]
    labels[random.permutation(500)[:30]] = 1
    peer = LabelSpreading(kernel="knn", n_neighbors=7).fit(x, labels)
    ours = KnnLabelSpreading().fit(x, labels)
    np.testing.assert_allclose(ours.label_distributions_, peer.label_distributions_, atol=1e-6)
    fresh = random.normal(size=(50, 20)).astype(np.float32)
    np.testing.assert_allclose(ours.predict_proba(fresh), peer.predict_proba(fresh), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(fresh), peer.predict(fresh))
    assert ours.score(fresh, peer.predict(fresh)) == 1


def test_names_and_rows_that_no_label_reaches() -> None:
    x = np.concatenate([np.eye(4)[[0, 0, 0]], np.eye(4)[[1, 1, 1]] * 9, np.eye(4)[[2, 2, 2]] * 90]).astype(np.float32)
    labels = np.array(["cat", -1, -1, "dog", -1, -1, -1, -1, -1], object)
    model = KnnLabelSpreading(3).fit(x, labels)
    assert model.classes_.tolist() == ["cat", "dog"]
    assert model.transduction_.tolist() == ["cat"] * 3 + ["dog"] * 3 + [-1] * 3
    np.testing.assert_array_equal(model.label_distributions_[6:], 0)
    assert model.predict(x[[1, 4, 7]]).tolist() == ["cat", "dog", -1]
    assert model.predict(x[[1, 4]]).tolist() == ["cat", "dog"]


def test_scikit_learn_takes_it_for_one_of_its_own() -> None:
    model = KnnLabelSpreading(5, metric="cosine", weight=3.0, symmetrize=True, alpha=0.9, solver="chebyshev")
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert repr(copy).startswith("KnnLabelSpreading(n_neighbors=5, alpha=0.9, metric='cosine', weight=3.0")
    assert is_classifier(model)
    scores = cross_val_score(make_pipeline(StandardScaler(), KnnLabelSpreading(metric="l2")), X[:600], Y[:600], cv=3)
    assert scores.mean() > 0.85
    assert copy.set_params(alpha=0.5).alpha == 0.5
    with pytest.raises(ValueError, match="gamma: expected one of n_neighbors, alpha"):
        copy.set_params(gamma=1)


@pytest.mark.filterwarnings("ignore:max_iter:UserWarning")
def test_settings_that_reach_farther() -> None:
    labels = some(50, 1)
    wide = KnnLabelSpreading(10, metric="cosine", weight=3.0, symmetrize=True, alpha=0.9, solver="chebyshev")
    assert (wide.fit(X, labels).transduction_ == Y).mean() > (
        KnnLabelSpreading(10).fit(X, labels).transduction_ == Y
    ).mean() - 0.05
    gradients = wide.set_params(solver="cg", balance="seeds", max_iter=200).fit(X, labels)
    assert (gradients.transduction_ == Y).mean() > 0.8


def test_it_does_not_load_scikit_learn() -> None:
    code = (
        "import sys, numpy as np, pycurate\n"
        "x = np.random.default_rng(0).normal(size=(50, 4)).astype('f4')\n"
        "pycurate.KnnLabelSpreading().fit(x, np.r_[0, 1, np.full(48, -1)]).predict(x)\n"
        "assert not {'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("settings", "x", "y", "sentence"),
    [
        ({}, X[:5], [0, 1], r"y: expected \(5,\) labels, one a row of X, got shape \(2,\)"),
        ({}, X[:5], [-1] * 5, "y: no row has a label"),
        ({}, X[0], [0], r"X: expected \(n, d\) numbers, got shape \(64,\)"),
        ({"n_neighbors": 1}, X[:5], [0] * 5, "n_neighbors: expected at least 2"),
        ({"metric": "rbf"}, X[:5], [0] * 5, "metric: expected l2, cosine, inner_product or precomputed, got 'rbf'"),
        ({"metric": "precomputed"}, X[:5], [0] * 5, "graph: expected a KnnGraph"),
        ({"balance": "mass"}, X[:5], [0] * 5, "balance: expected 'none' or 'seeds', got 'mass'"),
        ({"alpha": 1}, X[:5], [0] * 5, "alpha: expected a number from 0 to below 1"),
    ],
)
def test_bad_input_says_what_was_expected(settings: dict[str, Any], x: Any, y: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        KnnLabelSpreading(**settings).fit(x, y)


def test_a_model_that_is_not_fitted_and_other_columns() -> None:
    with pytest.raises(InputError, match="not fitted yet"):
        KnnLabelSpreading().predict(X)
    with pytest.raises(InputError, match="X: expected 64 columns as in the fit, got 3"):
        KnnLabelSpreading().fit(X, Y).predict(X[:, :3])


def test_a_precomputed_graph_and_neighbours_of_other_rows() -> None:
    labels = some(100, 0)
    peer = LabelSpreading(kernel="knn", n_neighbors=10).fit(X[:1500], labels[:1500])
    model = KnnLabelSpreading(10, metric="precomputed").fit(peer._get_kernel(peer.X_), labels[:1500])
    new = peer.nn_fit.kneighbors_graph(X[1500:], mode="connectivity")
    np.testing.assert_allclose(model.predict_proba(new), peer.predict_proba(X[1500:]), atol=1e-6)
    near = peer.nn_fit.kneighbors(X[1500:], return_distance=False)
    np.testing.assert_array_equal(model.predict((near, np.ones(near.shape))), peer.predict(X[1500:]))
    with pytest.raises(InputError, match="X: expected row numbers of the fit, 0 to 1499"):
        model.predict((near + 1000, np.ones(near.shape)))
