"""``pycurate index`` and ``pycurate search`` as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pycurate.cli import app as commands


def invoke(*arguments: Any) -> str:
    """Standard output of a command called in this process."""
    result = CliRunner().invoke(commands.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    return Path(pool_factory.datacomp(tmp_path_factory.mktemp("cli") / "pool", shards=2, rows=150))


@pytest.fixture(scope="module")
def index(pool: Path) -> Path:
    out = pool.parent / "idx"
    printed = invoke("index", pool, "--embedding", "l14_img", "--out", out)
    assert "index    flat, cosine" in printed
    assert "rows     300 of 24 elements of float16" in printed
    return out


def test_a_table_shows_uid_similarity_and_caption(pool: Path, index: Path) -> None:
    table = pq.read_table(min(pool.glob("*.parquet"))).to_pylist()
    printed = invoke("search", index, "--uid", table[3]["uid"], "-k", "4", "--where", "original_width > 300")
    found = json.loads(
        invoke("search", index, "--uid", table[3]["uid"], "-k", "4", "--where", "original_width > 300", "--json")
    )
    [result] = found["results"]
    assert len(result["neighbors"]) == 4
    for row in result["neighbors"]:
        assert row["uid"] in printed
        assert f"{row['similarity']:.4f}" in printed
        assert row["caption"][:10] in printed
    assert found["exact"] is True
    assert "exact: brute force among" in " ".join(printed.split())


def test_vectors_kinds_and_settings_by_option(pool: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 24), np.float32))
    made = invoke(
        "index", pool, "-e", "l14_img", "-o", tmp_path / "i", "--kind", "ivf_flat", "--nlist", "5", "--memory", "4GiB",
        "--column", "caption", "--seed", "3", "--threads", "2", "--quiet", "--json",
    )  # fmt: skip
    facts = json.loads(made)
    assert (facts["kind"], facts["nlist"], facts["columns"], facts["seed"]) == ("ivf_flat", 5, ["text"], 3)
    found = json.loads(invoke("search", tmp_path / "i", "--vector", tmp_path / "v.npy", "--nprobe", "2", "--json"))
    assert [len(result["neighbors"]) for result in found["results"]] == [10, 10]
    assert found["note"].startswith("approximate: ivf_flat, 2 of 5 lists")
    assert "recall@10" in found["note"]


def test_the_recall_of_an_approximate_index_is_printed(pool: Path, tmp_path: Path) -> None:
    assert "recall   @10" in invoke("index", pool, "-e", "l14_img", "-o", tmp_path / "i", "--kind", "hnsw")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("index", "POOL", "-e", "l1", "-o", "o"), 2, "embedding: the pool has no embedding 'l1'"),
        (("index", "POOL", "-e", "l14_img", "-o", "o", "--kind", "tree"), 2, "kind: expected auto, flat, ivf_flat"),
        (("index", "POOL", "-e", "l14_img", "-o", "o", "--memory", "1M"), 4, "1 MiB are allowed; give more memory"),
        (("index", "POOL", "-e", "l14_img", "-o", "o", "--memory", "lots"), 2, "expected a size such as 600M or 8G"),
        (("index", "POOL", "-e", "l14_img", "-o", "POOL"), 4, "is not empty and is not from an earlier build"),
        (("index", "POOL", "-o", "o"), 2, "Missing option '--embedding'"),
        (("search", "nowhere", "--uid", "0" * 32), 2, "nowhere has no index.json; expected one that has"),
        (("search", "INDEX"), 2, "uid, vector: expected one of the two"),
        (("search", "INDEX", "--uid", "0" * 32), 2, "uid: expected one of the 300 rows"),
        (("search", "INDEX", "--vector", "no.npy"), 2, "no.npy cannot be read as .npy"),
        (("search", "INDEX", "--uid", "0" * 32, "--where", "drop table"), 2, "uid: expected one of the 300 rows"),
    ],
)
def test_exit_codes_and_sentences(
    pool: Path, index: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    places = {"POOL": str(pool), "INDEX": str(index)}
    result = subprocess.run(
        [sys.executable, "-m", "pycurate", *(places.get(a, a) for a in arguments)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
