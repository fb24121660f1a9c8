"""``pycurate dedup`` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pycurate.cli import app as commands
from pycurate.errors import InputError


def invoke(*arguments: Any) -> str:
    """Standard output of a command called in this process."""
    result = CliRunner().invoke(commands.app, ["dedup", *(str(a) for a in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 12)).astype(np.float32)
    x[100:] = x[:100] + 0.1 * random.standard_normal((100, 12)).astype(np.float32)
    embeddings = {"a": x.astype(np.float16), "b": x[::-1].astype(np.float16)}
    return Path(pool_factory.datacomp(tmp_path_factory.mktemp("cli") / "pool", 2, 100, embeddings=embeddings))


def test_a_run_another_eps_the_curve_and_groups(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = invoke(pool, "-e", "a", "--out", out, "--eps", "0.05")
    assert "200, exact mode, published removal at cosine >= 0.95" in printed
    facts = json.loads(invoke("run", pool, "--embedding", "a", "-o", out, "--eps", "0.02", "--json"))
    assert facts["threshold"] == 0.98
    assert facts["floor"] == pytest.approx(0.9)
    curve = json.loads(invoke("curve", out, "--json"))
    assert {p["eps"]: p["kept"] for p in curve["points"]}[0.02] == facts["kept"]
    shown = invoke("curve", out, "--eps", "0.03", "--examples", "1")
    assert "least similar pairs at eps 0.03" in shown
    assert (out / "curve.html").exists()
    assert "kept" in invoke("groups", out, "-n", "2")


def test_clustered_mode_presets_and_appended_rows(pool: Path, tmp_path: Path) -> None:
    printed = invoke(
        pool, "-e", "a", "-o", tmp_path / "c", "--mode", "clustered", "--clusters", "5", "--probes", "exact"
    )
    assert "recall" in printed
    printed = invoke(pool, "-e", "a", "-o", tmp_path / "s", "--preset", "semdedup", "--clusters", "5", "--eps", "0.04")
    assert "clustered mode, published removal at cosine > 0.96" in printed
    printed = invoke(pool, "-e", "a", "-o", tmp_path / "l", "--preset", "dedup-clip94", "--threads", "1", "-q")
    assert "component removal at cosine >= 0.94" in printed
    printed = invoke(pool, "-e", "b", "-o", tmp_path / "l2", "--append", tmp_path / "l")
    assert "rows     400" in printed
    with pytest.raises(InputError, match=r"^--removal: not with --append"):
        invoke(pool, "-e", "b", "-o", tmp_path / "l3", "--append", tmp_path / "l", "--removal", "greedy")
    with pytest.raises(InputError, match=r"^--probes: expected a number of clusters or exact"):
        invoke(pool, "-e", "a", "-o", tmp_path / "p", "--probes", "some")


def test_a_plan_writes_nothing(pool: Path, tmp_path: Path) -> None:
    printed = invoke(pool, "-e", "a", "-o", tmp_path / "out", "--plan", "--removal", "component", "--memory", "1G")
    assert "19,900 similarities" in printed
    assert not (tmp_path / "out").exists()


def test_help_names_the_commands() -> None:
    printed = invoke("--help")
    assert all(word in printed for word in ("run", "curve", "groups"))
    assert "--append" in invoke("run", "--help")


def test_a_plan_is_made_without_a_gpu(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--device: not with --plan"):
        invoke(pool, "-e", "a", "-o", tmp_path / "g", "--device", "cuda", "--plan")
    assert not (tmp_path / "g" / "subset.npy").exists()
