"""Pytest plugin of this repository; loaded by ``-p pycurate.testing``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycurate.kernels import Isa, active_isa, detected_isa, set_active_isa
from pycurate.kernels.device import cuda_support

AVAILABLE_ISAS = [isa for isa in Isa if isa <= detected_isa()]


CUDA = "cuda"


@pytest.fixture(params=[*AVAILABLE_ISAS, CUDA], ids=lambda engine: engine if engine == CUDA else engine.name)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once per instruction set this machine has, and on a GPU: the device to ask for."""
    if request.param != CUDA:
        before = active_isa()
        assert set_active_isa(request.param)
        yield "cpu"
        set_active_isa(before)
        return
    if cuda_support().missing:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    yield CUDA


@pytest.fixture(params=AVAILABLE_ISAS, ids=lambda isa: isa.name)
def isa(request: pytest.FixtureRequest) -> Iterator[Isa]:
    """Run the test once per instruction set this machine has."""
    before = active_isa()
    assert set_active_isa(request.param)
    yield request.param
    set_active_isa(before)
