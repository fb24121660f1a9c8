from __future__ import annotations

import numpy as np
import pytest
from label_noise import planted
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.labels.noise_transition import estimate_noise_transition


def clusters(n: int, prior: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.choice(len(prior), n, p=prior)
    centres = 4 * np.eye(len(prior), 24)
    return (centres[labels] + 0.3 * random.normal(size=(n, 24))).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_matrix_is_recovered(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes = 6
    transition = 0.65 * np.eye(classes) + 0.35 * random.dirichlet(np.full(classes, 0.7), classes)
    prior = random.dirichlet(np.full(classes, 5.0))
    x, true = clusters(20_000, prior, seed)
    given = np.array([random.choice(classes, p=transition[label]) for label in true])
    found = estimate_noise_transition(x, given)
    assert found.converged
    assert found.triples == 20_000
    assert np.abs(found.transition - transition).mean() < 0.01
    assert np.abs(found.transition - transition).max() < 0.06
    assert np.abs(found.prior - prior).max() < 0.02
    np.testing.assert_allclose(found.transition.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(found.joint.sum(), 1, rtol=1e-12)
    assert found.noise_rate == pytest.approx(np.mean(given != true), abs=0.01)
    correct = [np.mean(true[given == c] == c) for c in range(classes)]
    np.testing.assert_allclose(found.label_correct, correct, atol=0.03)


def test_two_hundred_classes_can_be_estimated_and_more_cannot() -> None:
    classes = 200
    random = np.random.default_rng(0)
    true = np.repeat(np.arange(classes), 30)
    centres = random.normal(size=(classes, 64))
    x = (centres[true] + 0.2 * random.normal(size=(len(true), 64))).astype(np.float32)
    found = estimate_noise_transition(x, planted(true, 0.2, classes, 0), max_iterations=30)
    assert found.noise_rate == pytest.approx(0.2, abs=0.02)
    with pytest.raises(InputError, match="for at most 200 classes, got 201; use confident learning instead"):
        estimate_noise_transition(x, true, n_classes=201)


@pytest.mark.usefixtures("isa")
def test_the_bits_do_not_depend_on_threads_and_copies_are_one_draw() -> None:
    x, true = clusters(500, np.full(4, 0.25), 0)
    given = planted(true, 0.3, 4, 0)
    first = estimate_noise_transition(x, given, threads=1)
    again = estimate_noise_transition(x, given, threads=3)
    np.testing.assert_array_equal(first.transition, again.transition)
    copied = estimate_noise_transition(np.concatenate([x, x[:50]]), np.concatenate([given, given[:50]]))
    np.testing.assert_array_equal(first.transition, copied.transition)
    assert copied.triples == 500


def test_bad_input_is_named() -> None:
    x, true = clusters(50, np.full(4, 0.25), 0)
    with pytest.raises(InputError, match="every class needs a row to estimate how it is labelled, but class 4 of 5"):
        estimate_noise_transition(x, true, n_classes=5)
    few = np.full(50, -1)
    few[:2] = [0, 1]
    with pytest.raises(InputError, match="no row with a label has two neighbours with one"):
        estimate_noise_transition(x, few)
    with pytest.raises(InputError, match="max_iterations"):
        estimate_noise_transition(x, true, max_iterations=0)
