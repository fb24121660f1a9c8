"""``pycurate bench``: pytest over the ``benchmarks`` folder of a source checkout."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pycurate
from pycurate.errors import InputError, MissingDependencyError


def run_benchmarks(group: str | None, gate: bool) -> int:
    """Run one group or all; with ``gate`` only the speed bars. Returns pytest's exit code."""
    folder = Path(pycurate.__file__).resolve().parent.parent / "benchmarks"
    if not folder.is_dir():
        raise InputError(
            "bench: the benchmarks come with the source checkout; clone it, run 'pip install -e .[bench,test]' in it "
            "and this command there"
        )
    for package in ("pytest", "pytest_benchmark"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"bench: needs {package}; install with 'pip install -e .[bench,test]'")
    files = sorted(folder.glob("test_bench_*.py"))
    groups = {path.stem.removeprefix("test_bench_"): path for path in files}
    if group is not None and group not in groups:
        raise InputError(f"bench: expected one of {', '.join(groups)}, got {group!r}")
    chosen = [str(groups[group])] if group else [str(path) for path in files]
    import pytest

    selection = (
        ["-m", "gate", "--benchmark-disable", "-s"]
        if gate
        else ["-m", "not gate", "--benchmark-columns=min,median,rounds"]
    )
    config = ["-c", str(folder.parent / "pyproject.toml"), "--rootdir", str(folder.parent)]
    return int(pytest.main([*config, *selection, *chosen]))
