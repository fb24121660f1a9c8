"""The rules of the house that no compiler, linter or type checker holds."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE_SUFFIXES = {".py", ".pyi", ".cpp", ".h", ".cu", ".cuh"}
FOLDERS = ["pycurate", "csrc", "tests", "benchmarks", "docs", ".ci"]
INSTRUCTION_SET_FLAG = re.compile(r"-m(?:avx|fma|f16c|sse|bmi|amx|arch|tune|cpu)")
INSTRUCTION_SET_ATTRIBUTE = re.compile(
    r"__attribute__\s*\(\(\s*target|gnu::target|#\s*pragma\s+GCC\s+(?:target|optimize)"
)


def _texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository that people write, by its path from the root."""
    here = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in sorted(here + below):
        if "__pycache__" in path.parts:
            continue
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


TEXTS = dict(_texts())
CODE = {path: text for path, text in TEXTS.items() if path.suffix in CODE_SUFFIXES}
PACKAGE = {path: ast.parse(text) for path, text in CODE.items() if path.parts[0] == "pycurate" and path.suffix == ".py"}


def _missing(what: str) -> None:
    """Skip for a user who lacks something optional; fail where the check must not be lost."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must not skip this")
    pytest.skip(what)


def _lines_matching(pattern: re.Pattern[str], texts: dict[Path, str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_walk_finds_the_house() -> None:
    assert {Path("pyproject.toml"), Path("pycurate/types.py"), Path("csrc/common/isa.cpp"), Path(".ci/run")} <= set(
        TEXTS
    )


def _avx_objects() -> dict[str, Path]:
    """Source (from the root) to object of every AVX file in the newest build for this interpreter."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}-*"
    builds = [path.parent for path in (ROOT / "build").rglob(f"{tag}/compile_commands.json")]
    if not builds:
        _missing("no build folder of this Python version: made by `make build`")
    build = max(builds, key=lambda path: (path / "build.ninja").stat().st_mtime)
    commands = json.loads((build / "compile_commands.json").read_text())
    return {
        Path(command["file"]).relative_to(ROOT).as_posix(): build / command["output"]
        for command in commands
        if re.search(r"_avx\w*\.cpp$", command["file"])
    }


def test_avx_objects_export_no_weak_symbol() -> None:
    # The linker keeps one copy of a weak function, whichever it meets first: one compiled for AVX-512 could then run on
    # a CPU without it.
    if shutil.which("nm") is None:
        _missing("nm is not installed")
    objects = _avx_objects()
    sources = {path.as_posix() for path in CODE if re.search(r"_avx\w*\.cpp$", path.name)}
    assert set(objects) == sources, "the build is older than the sources: run `make build`"
    weak = []
    for source, compiled in objects.items():
        listing = subprocess.run(
            ["nm", "--demangle", "--defined-only", compiled], capture_output=True, text=True, check=True
        ).stdout
        for line in listing.splitlines():
            _, letter, name = line.split(maxsplit=2)
            # DW.ref.* is the compiler's pointer to the exception personality: data, no code.
            if letter in "WVu" and not name.startswith("DW.ref."):
                weak.append(f"{source}: {letter} {name}")
    assert not weak, "\n".join(weak)


def test_instruction_set_flags_stand_in_one_place() -> None:
    build = {
        path: text
        for path, text in TEXTS.items()
        if path.name in {"CMakeLists.txt", "Makefile", "pyproject.toml", "run"}
    }
    assert len(build) >= 5
    lines = _lines_matching(INSTRUCTION_SET_FLAG, build)
    assert [line for line in lines if not re.match(r"csrc/CMakeLists\.txt:\d+: set\(ISA_FLAGS_", line)] == []
    assert len(lines) == 5
    assert not any("native" in line for line in lines)
    sources = {path: text for path, text in CODE.items() if path.parts[0] == "csrc"}
    assert _lines_matching(INSTRUCTION_SET_ATTRIBUTE, sources) == []


def test_imports_go_down_the_layers() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        _missing("import-linter is not installed")
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_only_kernels_imports_the_compiled_module() -> None:
    # import-linter does not see compiled modules.
    users = {
        path.parts[1]
        for path, tree in PACKAGE.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and _is_core(node.module, *(alias.name for alias in node.names)))
        or (isinstance(node, ast.Import) and any(_is_core(alias.name) for alias in node.names))
    }
    assert users == {"kernels"}


def _is_core(module: str | None, *names: str) -> bool:
    return (module or "").startswith("pycurate._core") or (module == "pycurate" and "_core" in names)


def test_every_module_has_the_future_import() -> None:
    def has_it(tree: ast.Module) -> bool:
        return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)

    assert [str(path) for path, tree in PACKAGE.items() if not has_it(tree)] == []


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in PACKAGE.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert undocumented == []


def test_a_file_is_read_in_one_sitting() -> None:
    assert [f"{path}: {text.count(chr(10))} lines" for path, text in CODE.items() if text.count("\n") > 500] == []
    long_functions = [
        f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path, text in CODE.items()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 80
    ]
    assert long_functions == []


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|raise NotImplemented" + r"Error")
    assert _lines_matching(marks, CODE) == []


def test_no_path_of_a_machine() -> None:
    assert _lines_matching(re.compile(r"(?<![\w.~-])/(?:work|root|tmp|home|Users)/"), TEXTS) == []
