"""Confident learning on a GPU: what the CPU finds, of arrays and of tensors that lie there."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import device as devices
from pycurate.kernels.device import CudaSupport, cuda_support
from pycurate.ops.labels import probabilities
from pycurate.ops.labels.confident_learning import (
    compute_confident_joint,
    get_confident_thresholds,
    num_label_issues,
)
from pycurate.ops.labels.label_issues import FilterBy, find_predicted_neq_given
from pycurate.ops.labels.label_quality import ScoreMethod, order_label_issues
from pycurate.ops.labels.probabilities import TopProbabilities


def problem(n: int, k: int, dtype: str = "float32") -> tuple[NDArray[np.int64], NDArray[Any]]:
    random = np.random.default_rng((n, k))
    true = random.integers(0, k, n)
    logits = random.normal(size=(n, k))
    logits[np.arange(n), true] += 3
    p = np.exp(logits)
    labels = np.where(random.random(n) < 0.2, random.integers(0, k, n), true)
    labels[:k] = np.arange(k)
    return labels, (p / p.sum(axis=1, keepdims=True)).astype(dtype)


def tensor_on_gpu(array: NDArray[Any]) -> Any:
    if cuda_support().missing:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'pycurate[torch]'")
    if not torch.cuda.is_available():
        pytest.skip("no GPU: PyTorch sees none")
    return torch.from_numpy(array).cuda()


@pytest.mark.parametrize("filter_by", get_args(FilterBy))
@pytest.mark.parametrize("k", [2, 37])
def test_filters_find_the_same_rows(processor: str, k: int, filter_by: FilterBy) -> None:
    labels, p = problem(900, k)
    expected = pycurate.find_label_issues(labels, p, filter_by=filter_by)
    np.testing.assert_array_equal(
        pycurate.find_label_issues(labels, p, filter_by=filter_by, device=processor), expected
    )


@pytest.mark.parametrize("method", get_args(ScoreMethod))
def test_scores_and_counts_are_the_same(processor: str, method: ScoreMethod) -> None:
    labels, p = problem(900, 20, "float16")
    assert_same(labels, p, p, method, processor)
    issues = order_label_issues(labels > 10, labels, p, rank_by=method)
    ranked = pycurate.find_label_issues(labels, p, return_indices_ranked_by=method)
    on_device = pycurate.find_label_issues(labels, p, return_indices_ranked_by=method, device=processor)
    np.testing.assert_array_equal(on_device, ranked)
    assert len(issues) == (labels > 10).sum()


def assert_same(labels: NDArray[np.int64], p: Any, there: Any, method: ScoreMethod, device: str | None) -> None:
    for function in (get_confident_thresholds, compute_confident_joint, num_label_issues, find_predicted_neq_given):
        np.testing.assert_array_equal(function(labels, there, device=device), function(labels, p))
    np.testing.assert_array_equal(
        pycurate.get_label_quality_scores(labels, there, method=method, device=device),
        pycurate.get_label_quality_scores(labels, p, method=method),
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_and_shards_of_them(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p = problem(900, 33, dtype)
    there = tensor_on_gpu(p)
    for given in (there, [there[:300], there[300:]], lambda: iter([there[:1], there[1:]])):
        for method in get_args(ScoreMethod):
            assert_same(labels, p, given, method, None)
        for filter_by in get_args(FilterBy):
            np.testing.assert_array_equal(
                pycurate.find_label_issues(labels, given, filter_by=filter_by, device="auto"),
                pycurate.find_label_issues(labels, p, filter_by=filter_by),
            )
    monkeypatch.setattr(probabilities, "_GPU_BLOCK_BYTES", 1 << 14)
    assert_same(labels, p, there, "normalized_margin", None)
    with pytest.raises(InputError, match="the array lies on cuda:0, so it cannot be used on the CPU"):
        pycurate.find_label_issues(labels, there, device="cpu")
    bad = there.clone()
    bad[5, int(labels[5])] = float("nan")
    with pytest.raises(InputError, match="row 5 holds NaN or infinity"):
        pycurate.find_label_issues(labels, bad)


def test_the_largest_few_of_each_row(processor: str) -> None:
    labels, p = problem(500, 30)
    order = np.argsort(-p, axis=1)[:, :4]
    rows = np.arange(500)
    top = TopProbabilities(order, np.take_along_axis(p, order, axis=1), p[rows, labels], 30)
    np.testing.assert_array_equal(
        compute_confident_joint(labels, top, device=processor), compute_confident_joint(labels, top)
    )


def test_devices_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p = problem(50, 3)
    monkeypatch.setattr(devices, "cuda_support", lambda: CudaSupport(True, 0, ()))
    for call in (pycurate.find_label_issues, pycurate.get_label_quality_scores, get_confident_thresholds):
        with pytest.raises(InputError, match="device: a GPU was asked for, but no CUDA driver was found"):
            call(labels, p, device="cuda")
    with pytest.raises(InputError, match="device: expected 'cpu', 'cuda'"):
        compute_confident_joint(labels, p, device="gpu")


def test_many_labels_a_row_are_for_the_cpu(torch_on_the_cpu: None) -> None:
    labels, p = [[0], [1], [0, 1]], np.full((3, 2), 0.5)
    for call in (pycurate.find_label_issues, compute_confident_joint, num_label_issues, get_confident_thresholds):
        with pytest.raises(InputError, match="device: with multi_label=True the passes run on the CPU"):
            call(labels, p, multi_label=True, device="cuda")
