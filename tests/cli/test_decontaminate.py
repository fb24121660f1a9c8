"""``pycurate pack`` and ``pycurate decontaminate`` as a person meets them."""

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
    result = CliRunner().invoke(commands.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_pack_is_built_and_a_pool_compared(pool_factory: Any, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float16)
    pool_factory.datacomp(tmp_path / "pool", 2, 30, embeddings={"l14_img": image}, sha256=None)
    pool_factory.plain(tmp_path / "eval", shards=1, rows=10, parquet=False)
    np.save(tmp_path / "eval" / "features_0.npy", image[20:30])
    pack = tmp_path / "pack"
    printed = invoke(
        "pack",
        tmp_path / "eval",
        "--out",
        pack,
        "-e",
        "l14_img=features",
        "--model",
        "l14_img=ViT-L-14",
        "--name",
        "test",
    )
    assert "pack        test" in printed
    assert "embedding   l14_img: 16 of float16, of ViT-L-14" in printed
    command = ("decontaminate", tmp_path / "pool", "--against", pack, "--out", tmp_path / "out")
    printed = invoke(*command, "--similarity", "l14_img=0.99", "--model", "l14_img=ViT-L-14")
    assert "removed   10 of 60 rows (16.667%); 50 remain" in printed
    found = json.loads(invoke(*command, "--similarity", "0.99", "--ngram", "0", "--no-captions", "--json"))
    assert (found["removed"], found["kept"]) == (10, 50)
    assert found["rules"] == [{"pack": "test", "rule": "l14_img", "threshold": 0.99, "rows": 10, "items": 10}]
    assert len(np.load(tmp_path / "out" / "subset.npy")) == 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--similarity", "high"), "--similarity: expected COSINE or NAME=COSINE, got 'high'"),
        (("--similarity", "0.9", "--similarity", "x=0.8"), "'0.9' is for all embeddings; give it alone"),
        (("--model", "x"), "--model: expected NAME=TEXT, got 'x'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        invoke("decontaminate", tmp_path, "--against", tmp_path, "--out", tmp_path / "out", *options)
