"""The command line as a person or a script meets it: exit codes, sentences on standard error, JSON on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pycurate.cli import app as commands
from pycurate.cli.options import parse_memory, parse_parameters
from pycurate.errors import InputError, PycurateError


def call(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "pycurate", *map(str, arguments)], capture_output=True, text=True)


def invoke(*arguments: Any) -> str:
    """Standard output of a command called in this process."""
    result = CliRunner().invoke(commands.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    return Path(pool_factory.datacomp(tmp_path_factory.mktemp("cli") / "pool", shards=2, rows=100, images=True))


@pytest.fixture(scope="module")
def finished(pool: Path) -> Path:
    out = pool.parent / "out"
    invoke("run", "datacomp-clip-l14-30", pool, "--out", out)
    return out


def test_run_prints_what_was_kept_and_where_it_is(pool: Path, tmp_path: Path) -> None:
    printed = invoke("run", "datacomp-clip-l14-30", pool, "--out", tmp_path / "o")
    assert "61 of 200 rows kept" in printed
    assert "subset.npy" in "".join(printed.split())
    again = invoke("run", "datacomp-clip-l14-30", pool, "--out", tmp_path / "o")
    assert "already finished" in " ".join(again.split())


def test_json_is_json_and_nothing_else(pool: Path, finished: Path, tmp_path: Path) -> None:
    assert json.loads(invoke("run", "datacomp-none", pool, "-o", tmp_path / "o", "--json"))["counts"]["kept"] == 200
    assert json.loads(invoke("doctor", pool, "--json"))["ok"] is True
    assert json.loads(invoke("plan", "datacomp-none", pool, "--json"))["rows"] == 200
    assert "datacomp-basic" in json.loads(invoke("recipes", "--json"))
    subset = finished / "subset.npy"
    assert json.loads(invoke("subset", "info", subset, "--json"))["rows"] == 61
    assert json.loads(invoke("info", "--json"))["pycurate"]
    found = json.loads(invoke("reshard", pool, "--subset", subset, "--out", tmp_path / "t", "--json"))
    assert found["samples"] == 61
    found = json.loads(invoke("export", pool, "--subset", subset, "--out", tmp_path / "e", "--json"))
    assert found["rows"] == 61
    found = json.loads(invoke("export", finished, "--scores", "--out", tmp_path / "s", "--json"))
    assert (found["rows"], found["columns"]) == (200, ["clip_l14_similarity_score"])


def test_recipes_show_is_a_recipe_that_runs(pool: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(invoke("recipes", "show", "datacomp-clip-l14-30"))
    invoke("run", tmp_path / "own.yaml", pool, "--out", tmp_path / "o")
    assert (tmp_path / "o" / "subset.npy").read_bytes() == (finished / "subset.npy").read_bytes()


def test_subset_algebra_by_command(pool: Path, finished: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "o" / "subset.npy", finished / "subset.npy"
    invoke("run", "datacomp-none", pool, "--out", tmp_path / "o")
    for operation, rows in (("and", 61), ("or", 200), ("minus", 139), ("plus", 261)):
        out = tmp_path / f"{operation}.npy"
        assert f"{rows:,} rows" in invoke("subset", operation, whole, part, "--out", out)
        assert len(np.load(out)) == rows
    assert "0 rows" in invoke(
        "subset", "minus", tmp_path / "and.npy", part, "-o", tmp_path / "none.npy", "--all-copies"
    )
    assert "only in" in invoke("subset", "diff", whole, part)


def test_a_report_can_be_written_again(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert "report.html" in invoke("report", finished)
    assert (finished / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("run", "no-such-preset", "POOL", "-o", "o"), 2, "there is no preset and no file 'no-such-preset'"),
        (("run", "bad.yaml", "POOL", "-o", "o"), 2, "unknown key 'minimun'; did you mean 'minimum'?"),
        (("run", "datacomp-basic", "POOL", "-o", "o"), 2, "fasttext_model"),
        (("run", "datacomp-none", "nowhere", "-o", "o"), 3, "nowhere' does not exist"),
        (("run", "datacomp-none", "POOL", "-o", "full"), 4, "is not empty and is not from an earlier pycurate run"),
        (("run", "datacomp-none", "POOL", "-o", "o", "--memory", "lots"), 2, "expected a size such as 600M or 8G"),
        (("run", "datacomp-none", "POOL", "-o", "o", "--memory", "1M"), 4, "is not enough for"),
        (("run", "datacomp-none", "POOL", "-o", "o", "--set", "x"), 2, "--set: expected KEY=VALUE, got 'x'"),
        (("run", "datacomp-none"), 2, "Missing argument"),
        (("export", "POOL", "-o", "o"), 2, "--subset: expected the uid file of the rows to write"),
        (("doctor", "broken"), 1, ""),
        (("report", "full"), 2, "expected the output folder of a finished"),
        (("subset", "info", "bad.yaml"), 2, "bad.yaml"),
    ],
)
def test_exit_codes_and_sentences(
    pool: Path, tmp_path: Path, pool_factory: Any, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "bad.yaml").write_text("name: bad\nsteps:\n  - threshold: {score: a, minimun: 1}\n")
    broken = pool_factory.datacomp(tmp_path / "broken", shards=2, rows=20)
    npz = min(broken.glob("*.npz"))
    npz.write_bytes(npz.read_bytes()[:500])
    result = subprocess.run(
        [sys.executable, "-m", "pycurate", *(str(pool) if a == "POOL" else a for a in arguments)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_how_to_continue(pool: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow_score.py").write_text(
        "import time, numpy as np\ndef slow(rows):\n    time.sleep(1)\n    return np.zeros(len(rows['text']))\n"
    )
    (tmp_path / "slow.yaml").write_text(
        "name: slow\nsteps:\n"
        "  - row_scores: {function: 'slow_score:slow', as: slow, inputs: [text], name: slow, version: 1}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pycurate", "run", "slow.yaml", pool, "-o", "out", "--workers", "1"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(600):
        if (tmp_path / "out" / "workspace" / "workspace.json").exists():
            break
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert "run the same command to continue" in " ".join(complaint.split())
    assert not (tmp_path / "out" / "subset.npy").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("600M", 600 << 20), ("8g", 8 << 30), ("1.5 GiB", 3 << 29), ("1024", 1024), ("2kb", 2048), (None, None)],
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert parse_memory(text) == size


def test_parameters_are_yaml_scalars() -> None:
    assert parse_parameters(["a=0.5", "b=true", "c=x=y.bin"]) == {"a": 0.5, "b": True, "c": "x=y.bin"}
    with pytest.raises(InputError, match="--set: expected KEY=VALUE"):
        parse_parameters(["no value"])


def test_every_error_has_an_exit_code_of_its_own_kind() -> None:
    codes = {kind.__name__: kind.exit_code for kind in PycurateError.__subclasses__()}
    assert codes == {
        "InputError": 2,
        "PoolError": 3,
        "WorkspaceError": 4,
        "MemoryCapError": 4,
        "MissingDependencyError": 2,
        "RecallError": 5,
    }


def test_help_names_every_command() -> None:
    printed = call("--help").stdout
    for command in ("doctor", "plan", "run", "recipes", "subset", "reshard", "report", "demo", "bench", "info"):
        assert command in printed
