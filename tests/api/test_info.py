"""What an installation says of itself."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import pycurate
from pycurate.api import info as module
from pycurate.cli.app import app
from pycurate.kernels.device import CudaDevice, CudaSupport, cuda_support

H100 = CudaDevice("NVIDIA H100", (9, 0), 80 << 30, True)
V100 = CudaDevice("Tesla V100", (7, 0), 16 << 30, False)


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        (CudaSupport(False, 0, ()), {"CUDA kernels": "not built", "GPU": "built without CUDA kernels"}),
        (CudaSupport(True, 0, ()), {"CUDA kernels": "built; no driver", "GPU": "no CUDA driver was found"}),
        (
            CudaSupport(True, 13010, (V100, H100)),
            {
                "CUDA kernels": "built; driver for CUDA 13.1",
                "cuda:0": "Tesla V100, 7.0, 16 GiB, not supported",
                "cuda:1": "NVIDIA H100, 9.0, 80 GiB, CUDA kernels",
            },
        ),
        (
            CudaSupport(True, 12080, (V100,), (V100._replace(supported=True),)),
            {
                "CUDA kernels": "built; driver for CUDA 12.8",
                "GPU": "PyTorch in place of kernels: no GPU of compute capability 8.0 or newer was found",
                "cuda:0": "Tesla V100, 7.0, 16 GiB, PyTorch",
            },
        ),
    ],
)
def test_info_says_what_runs_on_gpus(
    monkeypatch: pytest.MonkeyPatch, support: CudaSupport, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(module, "cuda_support", lambda: support)
    facts = module.info()
    of_gpus = {name for name in facts if name.startswith("cuda:") or name in ("CUDA kernels", "GPU")}
    assert of_gpus == set(expected)
    for name, words in expected.items():
        assert words in facts[name]


def test_info_of_this_machine() -> None:
    facts = json.loads(CliRunner().invoke(app, ["info", "--json"]).stdout)
    assert facts["pycurate"] == pycurate.__version__
    assert facts["CUDA kernels"].startswith("built" if cuda_support().built else "not built")
