from __future__ import annotations

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.ops.labels import soft_labels as module
from pycurate.ops.labels.neighbor_votes import neighbor_votes
from pycurate.ops.labels.soft_labels import soft_labels
from pycurate.types import UID_DTYPE


def test_the_most_probable_classes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 30)
    p = np.random.default_rng(0).dirichlet(np.full(9, 0.5), 40)
    p[3] = [0.3, 0.3, 0.4, 0, 0, 0, 0, 0, 0]
    p[4, 2] = np.nan
    p[5] = 0
    p[6, 1] = -1
    found = soft_labels(p, 4)
    for row in set(range(40)) - {3, 4, 5, 6}:
        order = np.argsort(-p[row], kind="stable")[:4]
        np.testing.assert_array_equal(found.labels[row], order)
        np.testing.assert_allclose(found.probabilities[row], p[row, order], rtol=1e-6)
        assert found.rest[row] == pytest.approx(1 - p[row, order].sum(), abs=1e-6)
    assert found.labels[3].tolist() == [2, 0, 1, -1]
    assert found.unjudged.tolist() == [4, 5, 6]
    assert (found.rest[[4, 5, 6]] == 1).all()
    dense = found.dense(np.array([0, 3]))
    np.testing.assert_allclose(dense.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(dense[1], [0.3, 0.3, 0.4, 0, 0, 0, 0, 0, 0], atol=1e-6)
    assert found.dense(fill_rest=False).shape == (40, 9)
    assert (soft_labels(p[:1], 20).labels.shape) == (1, 9)


def test_logits_and_temperatures() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    p = np.exp(logits.astype(np.float64) / 0.5)
    p /= p.sum(axis=1, keepdims=True)
    found = soft_labels(logits, 6, kind="logits", temperature=0.5)
    np.testing.assert_allclose(found.dense(), p, rtol=1e-5)
    q = p**2 / (p**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soft_labels(p, 6, temperature=0.5).dense(), q, rtol=1e-5)


def test_votes_are_soft_labels_and_tables_carry_uids() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    votes = neighbor_votes(x, np.arange(30) % 3, 8, top=3)
    found = soft_labels(votes, 2)
    np.testing.assert_array_equal(found.labels, votes.labels[:, :2])
    uids = np.zeros(30, UID_DTYPE)
    uids["f1"] = np.arange(30)
    table = found.to_arrow(uids)
    assert table["uid"][5].as_py() == f"{5:032x}"
    assert table["labels"][0].as_py() == [c for c in found.labels[0].tolist() if c >= 0]
    assert found.to_arrow().column_names == ["row", "labels", "probabilities"]
    with pytest.raises(InputError, match="top: expected at most the 3 labels"):
        soft_labels(votes, 4)
    with pytest.raises(InputError, match="votes keep some labels only"):
        soft_labels(votes, 2, temperature=2)


def test_bad_input_is_named() -> None:
    p = np.full((2, 2), 0.5)
    with pytest.raises(InputError, match=r"scores: expected \(n, K\) floats"):
        soft_labels(np.zeros((2, 2), np.int64))
    with pytest.raises(InputError, match="temperature: expected a number above 0"):
        soft_labels(p, temperature=0)
    with pytest.raises(InputError, match="top: expected"):
        soft_labels(p, 0)
    with pytest.raises(ValueError, match="kind: expected 'probabilities' or 'logits'"):
        soft_labels(p, kind="scores")  # type: ignore[arg-type]
