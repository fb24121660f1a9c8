"""Facts about this installation."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import pycurate
from pycurate.engine import default_memory_bytes
from pycurate.kernels import active_isa, detected_isa, thread_count


def info() -> dict[str, str]:
    """Versions, instruction sets, threads, the default memory cap, and which optional packages are here."""
    facts = {
        "pycurate": pycurate.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction set": f"{active_isa().name} (this CPU has {detected_isa().name})",
        "threads": str(thread_count(0)),
        "default memory": f"{default_memory_bytes() / (1 << 30):.1f} GiB",
    }
    for package in ("numpy", "pyarrow", "duckdb", "numba", "torch", "fasttext", "gcld3", "nltk", "py3langid"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts
