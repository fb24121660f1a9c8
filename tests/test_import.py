"""`import pycurate` is cheap: NumPy and nothing heavier."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pycurate

# What this snippet's imports add to a running interpreter, as top-level names, without the standard library.
ADDED_BY = """
import json, sys
before = set(sys.modules)
{statement}
added = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(added - set(sys.stdlib_module_names))))
"""
# The clock runs inside the new interpreter, so its own start is not counted.
SECONDS = "import time; start = time.perf_counter(); import pycurate; print(time.perf_counter() - start)"


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavier_than_numpy() -> None:
    assert set(json.loads(_run(ADDED_BY.format(statement="import pycurate")))) <= {"pycurate", "numpy"}


def test_a_kernel_needs_numpy_only() -> None:
    added = json.loads(_run(ADDED_BY.format(statement="import pycurate; pycurate.pair_similarity")))
    assert {"pycurate", "numpy"} == set(added)


def test_import_takes_less_than_300_ms() -> None:
    assert min(float(_run(SECONDS)) for _ in range(5)) < 0.3


def test_every_exported_name_loads_and_is_documented() -> None:
    for name in pycurate.__all__:
        value = getattr(pycurate, name)
        assert name == "__version__" or value.__doc__, name
    assert dir(pycurate) == sorted(pycurate.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'pycurate' has no attribute 'no_such_name'$"):
        pycurate.no_such_name  # noqa: B018
