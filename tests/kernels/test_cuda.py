"""What only a GPU can get wrong: many tiles, tensors that lie there, full buffers; and what is said without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import device as devices
from pycurate.kernels import torch_twin
from pycurate.kernels.arrays import matrix_of
from pycurate.kernels.device import CudaDevice, CudaSupport, cuda_support, device_of
from pycurate.kernels.join import join_of
from pycurate.kernels.spanning_forest import spanning_forest_above
from pycurate.reference import fused_similarity as reference

needs_gpu = pytest.mark.skipif(cuda_support().missing is not None, reason=f"no GPU: {cuda_support().missing}")


def rows(n: int, d: int, dtype: Any = np.float16, seed: int = 0) -> NDArray[Any]:
    """Rows of which a tenth are noisy copies of others, some rows zero or not finite."""
    random = np.random.default_rng([seed, n, d])
    x = random.standard_normal((n, d), dtype=np.float32)
    copies = random.permutation(n)[: n // 10]
    x[copies] = x[random.integers(0, n, len(copies))] + 0.2 * x[copies]
    x[n // 3], x[n // 2, 0] = 0, np.nan
    return x.astype(dtype)


def assert_equal_answers(ours: Any, theirs: Any) -> None:
    if isinstance(ours, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
        return
    for name in ours.__slots__:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)


@needs_gpu
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize(("n", "d"), [(5000, 200), (9001, 64)])
def test_many_tiles_equal_the_cpu(n: int, d: int, metric: Any) -> None:
    x, y = rows(n, d), rows(3001, d, seed=1)
    threshold = {"cosine": 0.9, "inner_product": 0.9 * d, "l2": -0.1 * d}[metric]
    asked: dict[str, Any] = {"metric": metric}
    for question, arguments in (
        (pycurate.pairs_above, (x, threshold)),
        (pycurate.pairs_above, (x, threshold, y)),
        (pycurate.components_above, (x, threshold)),
        (pycurate.count_above, (x, threshold, y)),
        (pycurate.most_similar_earlier, (x, np.random.default_rng(1).permutation(n), threshold)),
        (spanning_forest_above, (x, threshold)),
        (pycurate.nearest, (x, 32)),
        (pycurate.nearest, (x, 100, y)),
        (pycurate.nearest, (y, 1, x)),
    ):
        ours, theirs = question(*arguments, device="cuda", **asked), question(*arguments, **asked)
        assert_equal_answers(ours, theirs)


@needs_gpu
def test_more_pairs_than_a_buffer_holds_are_all_found() -> None:
    random = np.random.default_rng(2)
    x = (random.standard_normal(64) + 0.05 * random.standard_normal((3300, 64))).astype(np.float16)
    assert_equal_answers(pycurate.pairs_above(x, 0.9, device="cuda"), pycurate.pairs_above(x, 0.9))
    assert len(pycurate.pairs_above(x, 0.9, device="cuda").rows) > 1 << 22
    with pytest.raises(InputError, match="max_pairs"):
        pycurate.pairs_above(x, 0.9, max_pairs=1_000_000, device="cuda")
    assert_equal_answers(spanning_forest_above(x, 0.9, device="cuda"), spanning_forest_above(x, 0.9))


@needs_gpu
def test_neighbours_in_a_clump_of_near_copies() -> None:
    random = np.random.default_rng(3)
    x = (random.standard_normal(96) + 0.01 * random.standard_normal((2000, 96))).astype(np.float32)
    assert_equal_answers(pycurate.nearest(x, 64, device="cuda"), pycurate.nearest(x, 64))


@needs_gpu
def test_many_copies() -> None:
    x = np.tile(rows(3, 48, np.float32), (20_000, 1))
    assert_equal_answers(pycurate.pairs_above(x, 0.5, device="cuda"), pycurate.pairs_above(x, 0.5))


@needs_gpu
@pytest.mark.parametrize("element", ["float32", "float16", "bfloat16", "int8"])
def test_tensors_on_the_gpu(element: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rows(900, 50, np.float32)).nan_to_num()
    x = (20 * x).clamp(-127, 127).to(torch.int8) if element == "int8" else x.to(getattr(torch, element))
    there = x.to("cuda")
    assert_equal_answers(pycurate.pairs_above(there, 0.9), pycurate.pairs_above(x, 0.9))
    assert_equal_answers(pycurate.pairs_above(there[::3], 0.8, there[:, :]), pycurate.pairs_above(x[::3], 0.8, x))
    odd, same = there[:, 1:], x[:, 1:]  # rows that begin anywhere
    assert_equal_answers(pycurate.nearest(odd, 5), pycurate.nearest(same, 5))
    with pytest.raises(ValueError, match="lies on cuda:0"):
        pycurate.pairs_above(there, 0.9, device="cpu")
    with pytest.raises(ValueError, match="y: expected it on the device of x"):
        pycurate.pairs_above(there, 0.9, x)
    with pytest.raises(ValueError, match="adjacent elements"):
        pycurate.pairs_above(there.T, 0.9)


@needs_gpu
def test_what_a_stream_has_not_finished_is_waited_for() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rows(3000, 64, np.float32)).nan_to_num().cuda()
    expected = pycurate.count_above(x, 0.9)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        slow = torch.randn(6000, 6000, device="cuda")
        for _ in range(20):
            slow = slow @ slow / 6000
        late = x + 0 * slow[0, 0].nan_to_num()
        np.testing.assert_array_equal(pycurate.count_above(late, 0.9), expected)


@needs_gpu
def test_neighbours_beyond_what_a_gpu_keeps() -> None:
    with pytest.raises(ValueError, match="k: expected 1 to 128 on a GPU, got 129"):
        pycurate.nearest(rows(300, 8), 129, device="cuda")


@needs_gpu
def test_an_error_in_progress_ends_a_join() -> None:
    def stop(done: float) -> None:
        assert 0 <= done <= 1
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        pycurate.nearest(rows(50_000, 64), 8, device="cuda", progress=stop)


@needs_gpu
def test_log_sum_exp_is_the_same_each_time_and_near_the_cpu() -> None:
    x, y = rows(2000, 300), rows(5000, 300, seed=1)
    ours, again = (pycurate.log_sum_exp(x, y, 100, device="cuda") for _ in range(2))
    theirs = pycurate.log_sum_exp(x, y, 100)
    for name in ("rows", "cols"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(again, name))
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6)


def with_support(monkeypatch: pytest.MonkeyPatch, support: CudaSupport) -> None:
    monkeypatch.setattr(devices, "cuda_support", lambda: support)


OLD = CudaDevice("old", (7, 5), 1 << 30, False)
NEW = CudaDevice("new", (9, 0), 1 << 30, True)


@pytest.mark.parametrize(
    ("support", "sentence"),
    [
        (CudaSupport(False, 0, ()), "built without CUDA kernels"),
        (CudaSupport(True, 0, ()), "no CUDA driver was found"),
        (CudaSupport(True, 13000, ()), "finds no GPU"),
        (CudaSupport(True, 13000, (OLD,)), "old (7.5)"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, support: CudaSupport, sentence: str) -> None:
    with_support(monkeypatch, support)
    assert sentence in str(support.missing)
    with pytest.raises(ValueError, match=r"device: a GPU was asked for, but .*; pass device='cpu'"):
        pycurate.pairs_above(rows(9, 4), 0.5, device="cuda")
    assert device_of("auto", rows(9, 4)) is None
    assert device_of("cpu", rows(9, 4)) is None


def test_the_device_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with_support(monkeypatch, CudaSupport(True, 13000, (OLD, NEW)))
    x = rows(9, 4)
    assert device_of(None, x) is None
    assert device_of("auto", x, None) == 1
    assert device_of("cuda", x) == 1
    assert device_of("cuda:1", x) == 1
    for wrong in ("cuda:0", "cuda:7"):
        with pytest.raises(ValueError, match=f"device: expected one of cuda:1, got {wrong}"):
            device_of(wrong, x)
    for wrong in ("gpu", "cuda:", "cuda:x", ""):
        with pytest.raises(ValueError, match="device: expected 'cpu'"):
            device_of(wrong, x)


def test_pytorch_takes_the_place_of_missing_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is still said, but a GPU that PyTorch sees can be asked for; not where a kernel runs on one."""
    for support in (CudaSupport(False, 0, (), (OLD, OLD)), CudaSupport(True, 13000, (OLD, OLD), (OLD, OLD))):
        seen = support._replace(torch=tuple(device._replace(supported=True) for device in support.torch))
        with_support(monkeypatch, seen)
        assert seen.fallback
        assert seen.missing
        assert device_of("auto", rows(9, 4)) == 0
        assert device_of("cuda:1", rows(9, 4)) == 1
        assert device_of(None, rows(9, 4)) is None
        assert devices.cuda_kernels() is torch_twin
        with pytest.raises(ValueError, match="device: expected one of cuda:0, cuda:1, got cuda:2"):
            device_of("cuda:2", rows(9, 4))
    assert not CudaSupport(True, 13000, (OLD, NEW), (NEW,)).fallback


def test_pytorch_without_a_gpu_changes_nothing() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("PyTorch sees a GPU")
    assert torch_twin.torch_devices() == []


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_the_twin_in_pytorch_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, clumps, and both sides of a cross-join that other modules ask for."""
    monkeypatch.setattr(torch_twin, "_SCORED_BYTES", 100_000)  # pairs are scored in many parts
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
        assert off < torch_twin.slack_of(d)
    assert torch_twin.slack_of(768) < 1e-4  # and is small enough to tell pairs apart
    assert torch_twin.slack_of(1 << 24) == np.inf


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_tensors_and_progress_of_the_twin_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    for kind in (torch.float16, torch.bfloat16, torch.float32, torch.int8):
        x = torch.arange(60).reshape(12, 5).to(kind)
        lent = torch_twin.Matrix.lend(torch.utils.dlpack.to_dlpack(x), "x")
        assert lent.element == str(kind).removeprefix("torch.")
        assert lent.shape == (12, 5)
        np.testing.assert_array_equal(lent.take(np.arange(12)), matrix_of("x", x, None)[0])
    monkeypatch.setattr(torch_twin, "_PROGRESS_SECONDS", 0)
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
        with torch_twin.whole_float32(torch.device("cpu")):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = rows(200, 64)
            assert_equal_answers(pycurate.pairs_above(x, 0.5, device="cuda"), pycurate.pairs_above(x, 0.5))
    finally:
        matmul.fp32_precision = before


def test_the_module_imports_without_a_driver() -> None:
    if not cuda_support().built:
        pytest.skip("built without CUDA kernels")
    assert devices.cuda_kernels().most_neighbors == 128
