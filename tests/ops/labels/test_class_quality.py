from __future__ import annotations

from typing import Any

import cleanlab.count
import cleanlab.dataset
import numpy as np
import pytest

import pycurate
from pycurate.errors import InputError
from pycurate.ops.labels import noise_matrices
from pycurate.ops.labels.class_quality import class_quality, largest_confusions


@pytest.mark.parametrize("seed", range(5))
def test_class_quality_equals_cleanlab(noisy_labels: Any, seed: int) -> None:
    labels, p = noisy_labels(300, 6, seed)
    joint = pycurate.compute_confident_joint(labels, p)
    expected = cleanlab.dataset.rank_classes_by_label_quality(confident_joint=joint, num_examples=len(labels))
    expected = expected.sort_values("Class Index")
    found = class_quality(joint)
    np.testing.assert_allclose(found.quality, expected["Label Quality Score"], rtol=1e-12)
    np.testing.assert_allclose(found.noise, expected["Label Noise"], atol=1e-12)
    np.testing.assert_allclose(found.missing, expected["Inverse Label Noise"], atol=1e-12)
    np.testing.assert_array_equal(found.given, np.bincount(labels, minlength=6))


def test_confusions_come_largest_first() -> None:
    joint = np.array([[5, 2, 0], [3, 5, 2], [0, 0, 0]])
    assert [tuple(c) for c in largest_confusions(joint, 2)] == [(1, 0, 3), (0, 1, 2)]
    found = class_quality(joint)
    assert np.isnan(found.quality[2])
    assert found.missing[2] == 1
    with pytest.raises(InputError, match="joint: expected shape"):
        class_quality(joint[:2])


def test_noise_matrices_by_cross_validation_equal_cleanlab() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 300)
    x = random.normal(size=(300, 4)) + 2 * np.eye(3, 4)[true]
    labels = np.where(random.random(300) < 0.2, random.integers(0, 3, 300), true)
    classifier = linear_model.LogisticRegression()
    expected = cleanlab.count.estimate_noise_matrices(x, labels, classifier, seed=1)
    for ours, theirs in zip(pycurate.estimate_noise_matrices(x, labels, classifier, seed=1), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    p = noise_matrices.estimate_cv_predicted_probabilities(x, labels, seed=1)
    theirs = cleanlab.count.estimate_cv_predicted_probabilities(x, labels, classifier, seed=1)
    np.testing.assert_allclose(p, theirs, rtol=1e-10)
    with pytest.raises(InputError, match="expected at least cv_n_folds = 5 rows of each class, got 1 of class 3"):
        noise_matrices.estimate_cv_predicted_probabilities(x, np.where(np.arange(300) == 9, 3, labels))
