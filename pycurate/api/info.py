"""Facts about this installation."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import pycurate
from pycurate.engine import default_memory_bytes
from pycurate.kernels import active_isa, detected_isa, thread_count
from pycurate.kernels.device import CudaDevice, CudaSupport, cuda_support


def info() -> dict[str, str]:
    """Versions, instruction sets, threads, the default memory cap, GPUs, and which optional packages are here."""
    facts = {
        "pycurate": pycurate.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction set": f"{active_isa().name} (this CPU has {detected_isa().name})",
        "threads": str(thread_count(0)),
        "default memory": f"{default_memory_bytes() / (1 << 30):.1f} GiB",
        **_gpu_facts(cuda_support()),
    }
    for package in ("numpy", "pyarrow", "duckdb", "numba", "torch", "fasttext", "gcld3", "nltk", "py3langid"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _gpu_facts(support: CudaSupport) -> dict[str, str]:
    """Whether the CUDA kernels were built, the driver, and each GPU with what runs on it."""
    driver = (
        f"driver for CUDA {support.driver // 1000}.{support.driver % 1000 // 10}" if support.driver else "no driver"
    )
    facts = {"CUDA kernels": f"built; {driver}" if support.built else "not built"}
    if support.missing:
        facts["GPU"] = f"PyTorch in place of kernels: {support.missing}" if support.fallback else support.missing
    for number, device in enumerate(support.torch if support.fallback else support.devices):
        facts[f"cuda:{number}"] = _in_words(device, "PyTorch" if support.fallback else "CUDA kernels")
    return facts


def _in_words(device: CudaDevice, runs: str) -> str:
    capability = ".".join(map(str, device.capability))
    memory = f"{device.bytes / (1 << 30):.0f} GiB"
    return f"{device.name}, {capability}, {memory}, {runs if device.supported else 'not supported'}"
