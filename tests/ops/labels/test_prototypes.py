from __future__ import annotations

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.index import rows as index_rows
from pycurate.ops.labels.prototypes import KEPT, OUTLIER, RELABELLED, UNJUDGED, prototype_labels


@pytest.mark.parametrize("with_model", [False, True])
def test_labels_follow_the_published_rule(with_model: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rows, "BLOCK_BYTES", 8 * 4 * 13)
    random = np.random.default_rng(0)
    prototypes = random.normal(size=(5, 8)).astype(np.float32)
    x = (prototypes[random.integers(0, 5, 200)] + 0.9 * random.normal(size=(200, 8))).astype(np.float32)
    x[3] = 0
    labels = random.integers(-1, 5, 200)
    model = random.dirichlet(np.full(5, 0.3), 200) if with_model else None
    found = prototype_labels(x, labels, prototypes, pred_probs=model, temperature=0.2, threshold=0.7)

    with np.errstate(invalid="ignore"):
        unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    s = unit @ (prototypes.astype(np.float64) / np.linalg.norm(prototypes.astype(np.float64), axis=1)[:, None]).T
    q = np.exp(s / 0.2)
    q /= q.sum(axis=1, keepdims=True)
    if model is not None:
        q = (q + model) / 2
    for row in set(range(200)) - {3}:
        best = int(q[row].argmax())
        if q[row, best] > 0.7:
            expected = best, KEPT if best == labels[row] else RELABELLED
        elif labels[row] >= 0 and q[row, labels[row]] > 1 / 5:
            expected = int(labels[row]), KEPT
        else:
            expected = -1, OUTLIER
        assert (found.labels[row], found.verdict[row]) == expected
        assert found.confidence[row] == pytest.approx(q[row, best], rel=1e-4)
    assert found.verdict[3] == UNJUDGED
    assert found.unjudged.tolist() == [3]
    assert sum(found.counts.values()) == 200
    assert min(found.counts.values()) > 0


def test_bad_input_is_named() -> None:
    x = np.eye(4, dtype=np.float32)
    labels = np.arange(4)
    with pytest.raises(InputError, match="mix: expected from 0 to 1, got 2"):
        prototype_labels(x, labels, x, mix=2)
    with pytest.raises(InputError, match="temperature: expected a number above 0"):
        prototype_labels(x, labels, x, temperature=0)
    with pytest.raises(InputError, match=r"prototypes: expected \(K, 4\)"):
        prototype_labels(x, labels, x[:, :2].copy())
    with pytest.raises(InputError, match="prototypes: class 1 is zero or not finite"):
        prototype_labels(x, labels % 2, np.stack([x[0], 0 * x[1]]))
    with pytest.raises(InputError, match=r"pred_probs: expected \(4, 4\) floats"):
        prototype_labels(x, labels, x, pred_probs=np.ones((4, 3)))
    with pytest.raises(InputError, match="labels: expected from 0 to 1"):
        prototype_labels(x, labels, x[:2])
