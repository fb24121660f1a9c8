"""``--device`` of every command that compares rows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pycurate import build_pack
from pycurate.api.index import index_pool
from pycurate.cli import app as commands
from pycurate.errors import InputError
from pycurate.kernels import device as devices
from pycurate.kernels.device import CudaSupport

RECIPE = """
name: distinct
steps:
  - semantic_dedup: {embedding: e, eps: 0.05}
"""
COMMANDS = {
    "run": "run {at}/recipe.yaml {at}/pool -o {out}",
    "dedup": "dedup {at}/pool -e e -o {out} --mode clustered --clusters 4",
    "append": "dedup {at}/more.npy -o {out} --append {at}/first",
    "index": "index {at}/pool -e e -o {out} --prefix 4 --kind flat",
    "search": "search {at}/index --vector {at}/vectors.npy",
    "decontaminate": "decontaminate {at}/pool --against {at}/pack -o {out}",
    "noise": "labels noise {at}/pool -e e --label label -o {out}.parquet",
    "pseudo": "labels pseudo {at}/pool -e e --classes {at}/vectors.npy -o {out}.parquet",
    "coreset": "labels coreset {at}/pool -o {out} --rows 20",
}


def invoke(command: str, *more: str) -> str:
    result = CliRunner().invoke(commands.app, [*command.split(), *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    """A folder with what the commands read."""
    at = tmp_path_factory.mktemp("device")
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 8)).astype(np.float16)
    pool_factory.datacomp(at / "pool", 2, 60, embeddings={"e": x}, label=random.integers(0, 3, 120))
    (at / "recipe.yaml").write_text(RECIPE)
    np.save(at / "vectors.npy", x[:20])
    np.save(at / "first.npy", x[:80])
    np.save(at / "more.npy", x[40:])
    invoke(f"dedup {at}/first.npy -o {at}/first")
    index_pool(at / "pool", "e", at / "index", kind="flat")
    pool_factory.datacomp(at / "eval", 1, 20, embeddings={"e": x[:20]}, seed=1)
    build_pack(at / "eval", at / "pack")
    return at


@pytest.mark.parametrize("name", COMMANDS)
def test_a_gpu_is_used(gpu_calls: list[str], place: Path, tmp_path: Path, name: str) -> None:
    command = COMMANDS[name].format(at=place, out=tmp_path / "out")
    invoke(command, "--device", "cpu")
    assert not gpu_calls
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    invoke(command, "--device", "cuda")
    assert gpu_calls


@pytest.mark.parametrize("name", COMMANDS)
def test_one_that_is_not_there_is_an_error_before_anything_is_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command = COMMANDS[name].format(at=place, out=tmp_path / "out")
    monkeypatch.setattr(devices, "cuda_support", lambda: CudaSupport(True, 0, ()))
    with pytest.raises(InputError, match=r"^device: a GPU was asked for, but no CUDA driver was found; pass") as caught:
        invoke(command, "--device", "cuda:1")
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match=r"^device: expected 'cpu', 'cuda', .*, got 'gpu'"):
        invoke(command, "--device", "gpu")
    assert not list(tmp_path.iterdir())


def test_as_a_shell_meets_it(place: Path, tmp_path: Path) -> None:
    command = COMMANDS["coreset"].format(at=place, out=tmp_path / "out").split()
    found = subprocess.run(
        [sys.executable, "-m", "pycurate", *command, "--device", "gpu"], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert found.stderr.startswith("error: device: expected 'cpu', 'cuda'")
    assert found.stderr.count("\n") == 1
