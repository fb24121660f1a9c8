"""Pytest plugin of this repository; loaded by ``-p pycurate.testing``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycurate.kernels import Isa, active_isa, detected_isa, device, gpu_grid, set_active_isa, stand_in, torch_blocks
from pycurate.kernels.device import CudaDevice, CudaSupport, cuda_support

AVAILABLE_ISAS = [isa for isa in Isa if isa <= detected_isa()]


CUDA, TORCH, GPUS = "cuda", "torch", "gpus"


@pytest.fixture
def torch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were two GPUs that only PyTorch can use; what it would multiply there, it multiplies on the CPU."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'pycurate[torch]'")
    gpu = CudaDevice("PyTorch on the CPU", (0, 0), 1 << 30, True)
    monkeypatch.setattr(device, "cuda_support", lambda: CudaSupport(False, 0, (), (gpu, gpu)))
    monkeypatch.setattr(torch_blocks, "place_of", lambda number: torch.device("cpu"))
    monkeypatch.setattr(torch_blocks, "MOST_BLOCK_ROWS", 64)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were two GPUs; what is asked of them the CPU's kernels answer."""
    gpu = CudaDevice("a stand-in", (9, 0), 1 << 30, True)
    monkeypatch.setattr(device, "cuda_support", lambda: CudaSupport(True, 13000, (gpu, gpu)))
    monkeypatch.setattr(device, "_module", lambda: stand_in)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go to several GPUs in blocks of so few that there are many."""
    monkeypatch.setattr(gpu_grid, "LEAST_BLOCK_ROWS", 48)


@pytest.fixture(
    params=[*AVAILABLE_ISAS, CUDA, TORCH, GPUS], ids=lambda engine: engine if isinstance(engine, str) else engine.name
)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once per instruction set this machine has, on a GPU, by PyTorch, and in blocks on several GPUs: the
    device to ask for."""
    if request.param == TORCH:
        request.getfixturevalue("torch_on_the_cpu")
        yield CUDA
        return
    if request.param == GPUS:
        request.getfixturevalue("small_blocks")
        if cuda_support().usable:
            yield "cuda:0,0"  # one that takes two tasks at a time
            return
        request.getfixturevalue("two_gpus")
        yield "cuda:0,1"
        return
    yield from _on(request.param)


@pytest.fixture(params=[*AVAILABLE_ISAS, CUDA], ids=lambda engine: engine if isinstance(engine, str) else engine.name)
def processor(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same for what runs on one GPU, and never by PyTorch."""
    yield from _on(request.param)


def _on(param: Isa | str) -> Iterator[str]:
    """An instruction set, or a GPU if there is one."""
    if isinstance(param, str):
        if not cuda_support().usable:
            pytest.skip(f"no GPU: {cuda_support().missing}")
        yield CUDA
        return
    before = active_isa()
    assert set_active_isa(param)
    yield "cpu"
    set_active_isa(before)


@pytest.fixture(params=AVAILABLE_ISAS, ids=lambda isa: isa.name)
def isa(request: pytest.FixtureRequest) -> Iterator[Isa]:
    """Run the test once per instruction set this machine has."""
    before = active_isa()
    assert set_active_isa(request.param)
    yield request.param
    set_active_isa(before)
