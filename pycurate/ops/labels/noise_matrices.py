"""Priors and noise matrices of labels, from class probabilities or, by cross-validation, from features.

Names, arguments and results are those of cleanlab 2.9 (``cleanlab.count``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, MissingDependencyError
from pycurate.ops.labels.confident_learning import compute_confident_joint
from pycurate.ops.labels.joint import PriorMethod, estimate_latent
from pycurate.ops.labels.probabilities import PredProbs


def estimate_py_and_noise_matrices_from_probabilities(
    labels: Any,
    pred_probs: PredProbs,
    *,
    thresholds: Any = None,
    converge_latent_estimates: bool = True,
    py_method: PriorMethod = "cnt",
    calibrate: bool = True,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(K,) P(true), (K, K) P(given|true), (K, K) P(true|given) and the confident joint they are from.

    Parameters are those of `pycurate.compute_confident_joint` and `pycurate.estimate_latent`.
    """
    joint = compute_confident_joint(labels, pred_probs, thresholds=thresholds, calibrate=calibrate, threads=threads)
    prior, noise, inverse = estimate_latent(
        joint, labels, py_method=py_method, converge_latent_estimates=converge_latent_estimates
    )
    return prior, noise, inverse, joint


def estimate_cv_predicted_probabilities(
    X: Any, labels: Any, clf: Any = None, *, cv_n_folds: int = 5, seed: int | None = None
) -> NDArray[np.float64]:
    """(n, K) probabilities of each row from a classifier that was fitted without its fold.

    Parameters
    ----------
    X
        (n, d) features.
    labels
        (n,) class ids, each of 0 to K - 1 with at least ``cv_n_folds`` rows.
    clf
        A scikit-learn classifier with ``predict_proba``. None: logistic regression.
    cv_n_folds, seed
        Of the stratified, shuffled folds.
    """
    clone, folds, classifier = _scikit_learn(clf, cv_n_folds, seed)
    y = np.asarray(labels)
    counts = np.bincount(y)
    if counts.min(initial=cv_n_folds) < cv_n_folds:
        raise InputError(
            f"labels: expected at least cv_n_folds = {cv_n_folds} rows of each class, got {counts.min()} of class "
            f"{counts.argmin()}; join rare classes or take fewer folds"
        )
    features = np.asarray(X)
    pred_probs = np.zeros((len(y), len(counts)))
    for train, held_out in folds.split(features, y):
        pred_probs[held_out] = clone(classifier).fit(features[train], y[train]).predict_proba(features[held_out])
    return pred_probs


def estimate_py_noise_matrices_and_cv_pred_proba(
    X: Any,
    labels: Any,
    clf: Any = None,
    *,
    cv_n_folds: int = 5,
    thresholds: Any = None,
    converge_latent_estimates: bool = False,
    py_method: PriorMethod = "cnt",
    seed: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """As `estimate_py_and_noise_matrices_from_probabilities`, of `estimate_cv_predicted_probabilities`, and these."""
    pred_probs = estimate_cv_predicted_probabilities(X, labels, clf, cv_n_folds=cv_n_folds, seed=seed)
    found = estimate_py_and_noise_matrices_from_probabilities(
        labels, pred_probs, thresholds=thresholds, converge_latent_estimates=converge_latent_estimates,
        py_method=py_method,
    )  # fmt: skip
    return (*found, pred_probs)


def estimate_noise_matrices(
    X: Any,
    labels: Any,
    clf: Any = None,
    *,
    cv_n_folds: int = 5,
    thresholds: Any = None,
    converge_latent_estimates: bool = True,
    seed: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(K, K) P(given|true) and P(true|given) of features and labels, by cross-validation.

    Parameters are those of `estimate_py_noise_matrices_and_cv_pred_proba`.
    """
    found = estimate_py_noise_matrices_and_cv_pred_proba(
        X, labels, clf, cv_n_folds=cv_n_folds, thresholds=thresholds,
        converge_latent_estimates=converge_latent_estimates, seed=seed,
    )  # fmt: skip
    return found[1], found[2]


def _scikit_learn(clf: Any, cv_n_folds: int, seed: int | None) -> tuple[Any, Any, Any]:
    try:
        from sklearn.base import clone
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold
    except ImportError as error:
        raise MissingDependencyError(
            "cross-validation needs scikit-learn; install it: pip install scikit-learn"
        ) from error
    folds = StratifiedKFold(n_splits=cv_n_folds, shuffle=True, random_state=seed)
    return clone, folds, LogisticRegression() if clf is None else clf
