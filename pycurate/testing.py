"""Pytest plugin of this repository; loaded by ``-p pycurate.testing``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycurate.kernels import Isa, active_isa, detected_isa, set_active_isa

AVAILABLE_ISAS = [isa for isa in Isa if isa <= detected_isa()]


@pytest.fixture(params=AVAILABLE_ISAS, ids=lambda isa: isa.name)
def isa(request: pytest.FixtureRequest) -> Iterator[Isa]:
    """Run the test once per instruction set this machine has."""
    before = active_isa()
    assert set_active_isa(request.param)
    yield request.param
    set_active_isa(before)
