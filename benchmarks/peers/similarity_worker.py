"""One contender of a similarity race in a process of its own: pickled requests on stdin, pickled replies on stdout.

A process each, because what decides the speed of a BLAS (its threads, the core type it takes the processor for) is read
once from the environment; kept alive, so that contenders can be timed in turn.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

THREADS = int(os.environ["OMP_NUM_THREADS"])
arrays: dict[str, Any] = {}


def load(paths: dict[str, str]) -> None:
    """Replace the arrays: mapped, so that contenders share the memory; copy-on-write, for torch wants them writable."""
    arrays.clear()
    for name, path in paths.items():
        arrays[name] = np.load(path, mmap_mode="c").view(np.ndarray)


def call(function: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """One timed call: seconds of the processor and of the clock up to the end of its preparation, and after."""
    module, _, name = function.rpartition(".")
    contender = getattr(importlib.import_module(module), name)
    if module == "similarity_ours":
        parameters = {**parameters, "threads": THREADS}
    laps = [(time.process_time(), time.perf_counter())]

    def prepared() -> None:
        laps.append((time.process_time(), time.perf_counter()))

    answer = contender(share=parameters.pop("share", 1.0), prepared=prepared, **arrays, **parameters)
    prepared()
    first, last = np.array(laps[0]), np.array(laps[-1])
    middle = np.array(laps[1]) if len(laps) > 2 else first
    blocks = getattr(answer, "blocks", None)
    share = blocks.work_share if blocks else 1.0
    fields = ("rows", "cols", "copy_of", "indices", "similarities", "certificate")
    if any(hasattr(answer, name) for name in fields):
        answer = {name: np.asarray(getattr(answer, name)) for name in fields if hasattr(answer, name)}
        answer["queries"] = blocks.taken if blocks else None
    preparation, rest = middle - first, (last - middle) / share
    reply = {
        "answer": answer,
        "share": share,
        "cpu": float((preparation + rest)[0]),
        "wall": float((preparation + rest)[1]),
        "preparation": float(preparation[0]),
    }
    if module == "similarity_ours":
        reply["work"] = importlib.import_module(module).work()
    return reply


def measured(function: str) -> Any:
    """What a function of no arguments says."""
    module, _, name = function.rpartition(".")
    return getattr(importlib.import_module(module), name)()


def describe() -> dict[str, str]:
    """Versions of the libraries loaded so far, and the processor each OpenBLAS takes this one for."""
    facts = {
        name: importlib.metadata.version(package)
        for name, package in (("faiss", "faiss-cpu"), ("torch", "torch"), ("usearch", "usearch"), ("numpy", "numpy"))
        if name in sys.modules
    }
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "openblas" in line}
    owner = "faiss" if "faiss" in sys.modules else "numpy"  # each brings its own
    for path in sorted(path for path in mapped if Path(path).parent.name.startswith(owner)):
        library = ctypes.CDLL(path)
        for symbol in ("openblas_get_corename", "scipy_openblas_get_corename64_"):
            if hasattr(library, symbol):
                core_name = getattr(library, symbol)
                core_name.restype = ctypes.c_char_p
                facts["OpenBLAS"] = core_name().decode()
    if "faiss" in sys.modules:
        facts["faiss options"] = sys.modules["faiss"].get_compile_options().strip()
    if "torch" in sys.modules:
        facts["torch capability"] = sys.modules["torch"].backends.cpu.get_cpu_capability()
    return facts


def limit_threads() -> None:
    """Of libraries that do not heed OMP_NUM_THREADS at every call."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(THREADS)


def serve() -> None:
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the replies
    requested = {
        "load": load,
        "call": call,
        "measure": measured,
        "describe": describe,
        "import": lambda names: [importlib.import_module(name) for name in names] and limit_threads(),
    }
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = (True, requested[name](*arguments))
        except Exception as error:
            reply = (False, f"{type(error).__name__}: {error}")
        pickle.dump(reply, replies)
        replies.flush()


if __name__ == "__main__":
    serve()
