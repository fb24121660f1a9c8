"""cleanlab as the peer that confident learning must equal."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def ties_in_row_order() -> Callable[[], AbstractContextManager[None]]:
    """See `_ties_in_row_order`."""
    return _ties_in_row_order


@pytest.fixture(scope="session")
def noisy_labels() -> Callable[..., tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """See `_noisy_labels`."""
    return _noisy_labels


@contextlib.contextmanager
def _ties_in_row_order() -> Iterator[None]:
    """Within it, ``numpy.argsort`` is stable.

    cleanlab calls it without a kind, and which of several equal rows it then flags depends on the processor that NumPy
    sorts for. A stable sort is one of the orders that it may give, and ours.
    """
    argsort = np.argsort

    def stable(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, **rest: Any) -> Any:
        return argsort(a, axis=axis, kind="stable", order=order, **rest)

    with mock.patch.object(np, "argsort", stable), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _noisy_labels(
    n: int, k: int, seed: int, *, noise: float = 0.3, sharp: float = 3.0, digits: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels, some wrong, and probabilities that know better, with or without ties; not all classes need occur."""
    random = np.random.default_rng(seed)
    true = random.integers(0, k, n)
    logits = random.normal(size=(n, k))
    logits[np.arange(n), true] += sharp * random.random(n)
    pred_probs = np.exp(logits)
    if digits is not None:
        pred_probs = pred_probs.round(digits) + 10.0**-digits
    pred_probs /= pred_probs.sum(axis=1, keepdims=True)
    labels = np.where(random.random(n) < noise, random.integers(0, k, n), true)
    return labels, pred_probs
