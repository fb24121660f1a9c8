"""What only a GPU can get wrong: many tiles, tensors that lie there, full buffers; and what is said without one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.kernels import device as devices
from pycurate.kernels.device import CudaDevice, CudaSupport, cuda_support, device_of
from pycurate.kernels.rowwise import pair_similarity
from pycurate.kernels.spanning_forest import spanning_forest_above

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


class OnGpu:
    """What numba and others give: a tensor's memory by the CUDA array interface alone."""

    def __init__(self, tensor: Any, stream: int | None = None) -> None:
        self._tensor = tensor
        self.shape = tuple(tensor.shape)
        self.__cuda_array_interface__ = {**tensor.__cuda_array_interface__, "version": 3, "stream": stream}

    def __getitem__(self, part: Any) -> OnGpu:
        return OnGpu(self._tensor[part])


@needs_gpu
def test_arrays_with_the_cuda_array_interface() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rows(900, 50, np.float16)).nan_to_num()
    there = x.to("cuda")
    for stream in (None, 1, 2, torch.cuda.Stream().cuda_stream):
        assert_equal_answers(pycurate.pairs_above(OnGpu(there, stream), 0.9), pycurate.pairs_above(x, 0.9))
    assert_equal_answers(pycurate.nearest(OnGpu(there[::3, 1:]), 5), pycurate.nearest(x[::3, 1:], 5))
    assert_equal_answers(pair_similarity(OnGpu(there), OnGpu(there)), pair_similarity(x, x))
    with pytest.raises(ValueError, match="adjacent elements"):
        pycurate.pairs_above(OnGpu(there.T), 0.9)
    with pytest.raises(ValueError, match=r"expected a 2-D array \(n, d\), got 1-D"):
        pycurate.pairs_above(OnGpu(there[0]), 0.9)
    with pytest.raises(TypeError, match="expected float16, bfloat16, float32 or int8"):
        pycurate.pairs_above(OnGpu(there.double()), 0.9)
    with pytest.raises(ValueError, match="lies on cuda:0"):
        pycurate.pairs_above(OnGpu(there), 0.9, device="cpu")


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
    assert device_of("auto", x, None) == (1,)
    assert device_of("cuda", x) == (1,)
    assert device_of("cuda:1", x) == (1,)
    for wrong in ("cuda:0", "cuda:7", "cuda:1,2"):
        with pytest.raises(ValueError, match=f"device: expected one of cuda:1, got {wrong}"):
            device_of(wrong, x)
    for wrong in ("gpu", "cuda:", "cuda:x", "cuda:0,", "cuda:1,x", ""):
        with pytest.raises(ValueError, match="device: expected 'cpu'"):
            device_of(wrong, x)


def test_the_module_is_built_where_nvcc_is_and_imports_without_a_driver() -> None:
    if shutil.which("nvcc") is None and not cuda_support().built:
        pytest.skip("no nvcc: built without CUDA kernels")
    assert cuda_support().built
    assert devices.cuda_kernels().most_neighbors == 128


@needs_gpu
def test_joins_larger_than_a_block_equal_the_cpu(tmp_path: Path) -> None:
    x = rows(30_000, 96)
    cap = 200 << 20
    ours = pycurate.similarity_join(x, tmp_path / "gpu", memory_bytes=cap, device="cuda")
    theirs = pycurate.similarity_join(x, tmp_path / "cpu", memory_bytes=cap)
    for question, arguments in (("pairs_above", (0.9,)), ("count_above", (0.8,)), ("nearest", (9,))):
        assert_equal_answers(getattr(ours, question)(*arguments), getattr(theirs, question)(*arguments))


def test_a_join_out_of_core_says_what_a_gpu_would_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_support(monkeypatch, CudaSupport(True, 0, ()))
    for join in (pycurate.similarity_join, pycurate.dedup):
        with pytest.raises(ValueError, match="no CUDA driver was found"):
            join(rows(50, 8), tmp_path / join.__name__, device="cuda")
    with pytest.raises(ValueError, match="no CUDA driver was found"):
        pair_similarity(rows(9, 8), rows(9, 8), device="cuda")
