"""PyTorch in place of compiled kernels; here it multiplies on the CPU. The definition's tests run by it, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import device as devices
from pycurate.kernels import host_matrix, torch_blocks, torch_twin
from pycurate.kernels.arrays import matrix_of
from pycurate.kernels.device import CudaDevice, CudaSupport, device_of
from pycurate.kernels.join import join_of
from pycurate.kernels.rowwise import Heads, row_statistics, rowwise_scores
from pycurate.reference import fused_similarity as reference

OLD = CudaDevice("old", (7, 5), 1 << 30, False)
NEW = CudaDevice("new", (9, 0), 1 << 30, True)


def rows(n: int, d: int, seed: int = 0) -> NDArray[np.float16]:
    """Some of them noisy copies, one zero, one not finite."""
    random = np.random.default_rng([seed, n, d])
    x = random.standard_normal((n, d), dtype=np.float32)
    copies = random.permutation(n)[: n // 10]
    x[copies] = x[random.integers(0, n, len(copies))] + 0.2 * x[copies]
    x[n // 3], x[n // 2, 0] = 0, np.nan
    return x.astype(np.float16)


def assert_equal_answers(ours: Any, theirs: Any) -> None:
    names = getattr(ours, "__slots__", None)
    for a, b in [(ours, theirs)] if names is None else [(getattr(ours, n), getattr(theirs, n)) for n in names]:
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)


def test_pytorch_takes_the_place_of_missing_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is still said, but a GPU that PyTorch sees can be asked for; not where a kernel runs on one."""
    for support in (CudaSupport(False, 0, (), (OLD, OLD)), CudaSupport(True, 13000, (OLD, OLD), (OLD, OLD))):
        seen = support._replace(torch=tuple(device._replace(supported=True) for device in support.torch))
        monkeypatch.setattr(devices, "cuda_support", lambda seen=seen: seen)
        assert seen.fallback
        assert seen.missing
        assert device_of("auto", rows(9, 4)) == (0,)
        assert device_of("cuda:1", rows(9, 4)) == (1,)
        assert device_of("cuda:0,1", rows(9, 4)) == (0, 1)
        assert device_of(None, rows(9, 4)) is None
        assert devices.cuda_kernels() is torch_twin
        with pytest.raises(ValueError, match="device: expected one of cuda:0, cuda:1, got cuda:2"):
            device_of("cuda:2", rows(9, 4))
    assert not CudaSupport(True, 13000, (OLD, NEW), (NEW,)).fallback


def test_pytorch_without_a_gpu_changes_nothing() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("PyTorch sees a GPU")
    assert torch_blocks.torch_devices() == []


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_the_twin_in_pytorch_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, clumps, and both sides of a cross-join that other modules ask for."""
    monkeypatch.setattr(host_matrix, "_GATHERED_BYTES", 100_000)  # pairs are scored in many parts
    random = np.random.default_rng(3)
    x, y = rows(700, 48), rows(300, 48, seed=1)
    x[100:400] = x[100] + 0.02 * random.standard_normal((300, 48))
    for question, arguments in (
        (pycurate.pairs_above, (x, 0.9)),
        (pycurate.components_above, (x, 0.9)),
        (pycurate.most_similar_earlier, (x, random.permutation(700), -np.inf)),
        (pycurate.nearest, (x, 20)),
        (pycurate.nearest, (y, 7, x)),
        (pycurate.log_sum_exp, (x, y, 100)),
    ):
        assert_equal_answers(question(*arguments, device="cuda"), question(*arguments))
    with pytest.raises(InputError, match="max_pairs"):
        pycurate.pairs_above(x, 0.9, max_pairs=1000, device="cuda")
    ours, theirs = (
        join_of(x, y, "cosine", "exact", "skip", None, None, device, collapse=False) for device in ("cuda", "cpu")
    )
    ranks = np.split(
        random.permutation(len(ours.left.distinct.rows) + len(ours.right.distinct.rows)), [len(ours.left.distinct.rows)]
    )
    for name, asked in (
        ("spanning_forest_above", (0.3,)),
        ("max_earlier", (*ranks, 0.2)),
        ("top_k", (5, True)),
        ("count_above", (0.3, ranks[0], ranks[1])),
    ):
        found = [getattr(join.kernels, name)(*join.operands(), *asked, 0, None) for join in (ours, theirs)]
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_slack_holds_what_float32_loses() -> None:
    """Of rows whose canonical cosines and products in float32 differ most: long ones, all of one sign."""
    random = np.random.default_rng(4)
    for d in (1, 7, 64, 1000, 20_000):
        x = np.abs(random.standard_normal((6, d), dtype=np.float32)) + np.float32(1)
        units = x * (1 / np.sqrt(np.square(x.astype(np.float64)).sum(1)))[:, None].astype(np.float32)
        one_after_the_other = np.array([[np.cumsum(a * b, dtype=np.float32)[-1] for b in units] for a in units])
        canonical = reference.similarities(x, x, "cosine")
        off = np.abs(one_after_the_other.astype(np.float64) - canonical).max()
        assert off < torch_blocks.slack_of(d)
    assert torch_blocks.slack_of(768) < 1e-4  # and is small enough to tell pairs apart
    assert torch_blocks.slack_of(1 << 24) == np.inf


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_tensors_and_progress_of_the_twin_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    for kind in (torch.float16, torch.bfloat16, torch.float32, torch.int8):
        x = torch.arange(60).reshape(12, 5).to(kind)
        lent = torch_twin.Matrix.lend(torch.utils.dlpack.to_dlpack(x), "x")
        assert lent.element == str(kind).removeprefix("torch.")
        assert lent.shape == (12, 5)
        np.testing.assert_array_equal(lent.take(np.arange(12)), matrix_of("x", x, None)[0])
    monkeypatch.setattr(torch_blocks, "_PROGRESS_SECONDS", 0)
    seen: list[float] = []
    pycurate.count_above(rows(300, 8), 0.9, device="cuda", progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_products_are_whole_float32_whatever_the_process_has_set() -> None:
    torch = pytest.importorskip("torch")
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with torch_blocks.whole_float32(torch.device("cpu")):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = rows(200, 64)
            assert_equal_answers(pycurate.pairs_above(x, 0.5, device="cuda"), pycurate.pairs_above(x, 0.5))
    finally:
        matmul.fp32_precision = before


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_rows_one_by_one_and_joins_out_of_core_ask_it_too(tmp_path: Path) -> None:
    x, y = rows(500, 20), rows(500, 20, seed=1)
    heads = Heads(np.ones((2, 20), np.float32), np.zeros(2, np.float32))
    assert_equal_answers(pycurate.pair_similarity(x, y, device="cuda"), pycurate.pair_similarity(x, y))
    for function, arguments, named in (
        (rowwise_scores, (x, y, "l2"), {"heads_a": heads}),
        (row_statistics, (x,), {"heads": heads}),
    ):
        assert_equal_answers(function(*arguments, device="cuda", **named), function(*arguments, **named))
    torch = pytest.importorskip("torch")
    a, b = torch.from_numpy(x).bfloat16(), torch.from_numpy(y).bfloat16()
    assert_equal_answers(pycurate.pair_similarity(a, b, device="cuda"), pycurate.pair_similarity(a, b))
    ours, theirs = (pycurate.similarity_join(x, tmp_path / device, device=device) for device in ("cuda", "cpu"))
    for question, asked in (("pairs_above", 0.9), ("count_above", 0.5), ("nearest", 9)):
        assert_equal_answers(getattr(ours, question)(asked), getattr(theirs, question)(asked))


@pytest.mark.usefixtures("torch_on_the_cpu", "small_blocks")
def test_several_gpus_that_only_pytorch_sees() -> None:
    x = rows(300, 24)
    for ask in (
        lambda device: pycurate.pairs_above(x, 0.5, device=device),
        lambda device: pycurate.nearest(x, 6, device=device),
        lambda device: pycurate.nearest(x, 6, x[:170], device=device),
        lambda device: pycurate.components_above(x, 0.5, device=device),
    ):
        assert_equal_answers(ask("cuda:0,1"), ask("cpu"))
    assert torch_twin.free_bytes(0) > 1 << 60
