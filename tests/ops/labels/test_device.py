"""Labels from neighbours and classes that a GPU finds: the bits of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.ops.dedup.contamination import near_by_embedding
from pycurate.ops.labels.label_noise import knn_label_noise
from pycurate.ops.labels.neighbor_votes import neighbor_votes
from pycurate.ops.labels.neighbors import neighbor_lists
from pycurate.ops.labels.noise_transition import estimate_noise_transition
from pycurate.ops.labels.outliers import feature_outlier_scores
from pycurate.ops.labels.prototypes import prototype_labels
from pycurate.ops.labels.pseudo_labels import zero_shot_labels
from pycurate.ops.selection.facility import facility_location
from pycurate.types import UID_DTYPE

N = 160


def labelled() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.void]]:
    random = np.random.default_rng(0)
    true = random.integers(0, 3, N)
    x = (np.eye(3, 8)[true] * 3 + random.normal(size=(N, 8))).astype(np.float32)
    x[90:95] = x[4]
    x[7] = 0
    labels = np.where(random.random(N) < 0.3, random.integers(0, 3, N), true)
    uids = np.zeros(N, UID_DTYPE)
    uids["f1"] = random.permutation(N)
    return x, labels, uids


X, LABELS, UIDS = labelled()
CLASSES = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
PROBABILITIES = np.full((N, 4), 0.25, np.float32)
CALLS: dict[str, Callable[[str | None], Any]] = {
    "noise": lambda at: knn_label_noise(X, LABELS, 5, method="simifeat-rank", uids=UIDS, device=at),
    "votes": lambda at: neighbor_votes(X, LABELS, 5, device=at),
    "transition": lambda at: estimate_noise_transition(X, LABELS, device=at).transition,
    "outliers": lambda at: feature_outlier_scores(X, 5, metric="l2", device=at),
    "prototypes": lambda at: prototype_labels(X, LABELS, CLASSES, device=at),
    "mixed prototypes": lambda at: prototype_labels(X, LABELS, CLASSES, pred_probs=PROBABILITIES, device=at),
    "zero-shot": lambda at: zero_shot_labels(X, CLASSES, 9, uids=UIDS, device=at),
    "zero-shot probability": lambda at: zero_shot_labels(X, CLASSES, rank_by="probability", scale=5, device=at),
    "zero-shot spill": lambda at: zero_shot_labels(X, np.repeat(CLASSES, 5, 0), 3, spill=True, device=at),
    "facility location": lambda at: facility_location(X[X.any(1)], 9, neighbors=5, negative="zero", device=at),
    "contamination": lambda at: near_by_embedding(X, X[:40] + 0.1, 0.8, device=at),
}


SUMS_OF_EXPONENTIALS = ("prototypes", "zero-shot probability")  # within 1e-6 on a GPU, and what follows from them


def arrays_of(found: Any) -> list[NDArray[Any]]:
    """Its arrays, of objects and tuples field by field."""
    if isinstance(found, np.ndarray):
        return [found]
    if isinstance(found, tuple):
        return [part for value in found for part in arrays_of(value)]
    names = getattr(found, "__dataclass_fields__", {})
    return [part for name in names for part in arrays_of(getattr(found, name))]


@pytest.mark.parametrize("name", CALLS)
def test_a_device_changes_no_answer(gpu_calls: list[str], name: str) -> None:
    here = arrays_of(CALLS[name]("cpu"))
    assert not gpu_calls
    there = arrays_of(CALLS[name]("cuda"))
    assert gpu_calls
    assert len(here) > 0
    for a, b in zip(there, here, strict=True):
        if name in SUMS_OF_EXPONENTIALS:
            np.testing.assert_allclose(a, b, rtol=1e-4)
        else:
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


def test_more_neighbours_than_a_gpu_looks_for(gpu_calls: list[str]) -> None:
    wide, narrow = neighbor_lists(X, 140, device="cuda"), neighbor_lists(X, 140)
    assert not gpu_calls
    for found, right in zip(wide.read(0, wide.count), narrow.read(0, narrow.count), strict=True):
        np.testing.assert_array_equal(found, right)
