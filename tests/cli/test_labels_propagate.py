"""``pycurate labels propagate`` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pycurate import Subset, knn_graph, propagate_labels
from pycurate.cli import app as commands
from pycurate.errors import InputError
from pycurate.io.pool import open_pool
from pycurate.kernels import device as devices
from pycurate.kernels.device import CudaSupport

ROWS, CLASSES = 300, 3


def invoke(*arguments: Any) -> str:
    """Standard output of a command called in this process."""
    result = CliRunner().invoke(commands.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def rows() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, 16)) + 3
    return (centres[np.arange(ROWS) % CLASSES] + 0.3 * random.normal(size=(ROWS, 16))).astype(np.float16)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any, rows: np.ndarray[Any, Any]) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    pool = pool_factory.datacomp(folder / "pool", shards=2, rows=ROWS // 2, embeddings={"a": rows})
    invoke("index", pool, "--embedding", "a", "--out", folder / "idx", "--quiet")
    return Path(folder / "idx")


@pytest.fixture(scope="module")
def uids(index: Path) -> list[str]:
    pool = open_pool(index.parent / "pool")
    return [
        uid for shard in pool.shards for block in shard.blocks(("uid",)) for uid in block.columns["uid"].to_pylist()
    ]


def seeds(path: Path, uids: list[str], labels: list[Any]) -> Path:
    """Every tenth row has a label."""
    pq.write_table(pa.table({"uid": uids[::10], "label": [labels[row % CLASSES] for row in range(0, ROWS, 10)]}), path)
    return path


def test_names_spread_over_the_rows_of_an_index(index: Path, uids: list[str], tmp_path: Path) -> None:
    file = seeds(tmp_path / "seeds.parquet", uids, ["cat", "dog", "ant"])
    out = tmp_path / "out"
    printed = invoke("labels", "propagate", index, "--labels", file, "--out", out, "--weight", "3", "-k", "8")
    assert "30 given, 3 classes; 300 rows have one now" in printed
    table = pq.read_table(out / "labels.parquet")
    assert table.schema.names == ["uid", "label", "confidence", "margin"]
    assert table["uid"].to_pylist() == uids
    truth = [["cat", "dog", "ant"][row % CLASSES] for row in range(ROWS)]
    assert np.mean([a == b for a, b in zip(table["label"].to_pylist(), truth, strict=True)]) > 0.95
    stamp = next((out / "graph").glob("indices.*")).name
    facts = json.loads(
        invoke("labels", "propagate", index, "-l", file, "-o", out, "-k", "8", "--min-confidence", "0.5", "--json")
    )
    assert next((out / "graph").glob("indices.*")).name == stamp  # made once
    assert facts["labelled"] == ROWS
    sure = np.array(pq.read_table(out / "labels.parquet")["confidence"].to_pylist()) >= 0.5
    assert facts["kept"] == sure.sum() == len(Subset.load(out / "subset.npy"))
    assert json.loads((out / "labels.json").read_text()) == facts
    invoke("labels", "propagate", index, "-l", file, "-o", out, "--preset", "iscen")
    assert not (out / "subset.npy").exists()


def test_numbers_with_gaps_on_a_graph_without_uids(rows: np.ndarray[Any, Any], tmp_path: Path) -> None:
    graph = knn_graph(rows, 6, out=tmp_path / "graph")
    labels = np.full(ROWS, -1)
    labels[::10] = np.array([7, 100, 3])[np.arange(0, ROWS, 10) % CLASSES]
    np.save(tmp_path / "labels.npy", labels)
    invoke(
        "labels", "propagate", tmp_path / "graph", "-l", tmp_path / "labels.npy", "-o", tmp_path / "out", "--top", "2"
    )
    table = pq.read_table(tmp_path / "out" / "labels.parquet")
    assert table["row"].to_pylist() == list(range(ROWS))
    compact = np.where(labels < 0, -1, np.searchsorted([3, 7, 100], labels))
    found = propagate_labels(graph, compact, top=2)
    assert table["label"].to_pylist() == np.array([3, 7, 100])[found.labels].tolist()
    np.testing.assert_array_equal(np.array(table["confidence"]), found.confidence)
    np.testing.assert_array_equal(np.array(table["margin"]), found.margin)


def test_rows_without_a_label_are_null_and_uids_may_be_given(
    rows: np.ndarray[Any, Any], index: Path, uids: list[str], tmp_path: Path
) -> None:
    knn_graph(rows, 4, out=tmp_path / "graph")
    labels = np.full(ROWS, -1)
    labels[:2] = [0, 1]
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "uids.npy", np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], "u8,u8"))
    arguments = ["labels", "propagate", tmp_path / "graph", "-l", tmp_path / "labels.npy", "-o", tmp_path / "out"]
    printed = " ".join(invoke(*arguments, "--uids", tmp_path / "uids.npy", "--method", "vote").split())
    table = pq.read_table(tmp_path / "out" / "labels.parquet")
    assert table["uid"].to_pylist() == uids
    missing = [label is None for label in table["label"].to_pylist()]
    assert sum(missing) > 200
    assert f"{sum(missing):,} rows got no label" in printed
    assert np.array(table["confidence"])[missing].max() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{idx}", "-l", "{few}"], "few.npy: expected 300 labels, one for each row, got 2"),
        (["{idx}", "-l", "{none}"], "labels: .*none.npy gives no row of .* a label"),
        (["{tmp}", "-l", "{few}"], "source: expected the folder of a graph or of an index"),
        (["{idx}", "-l", "{few}", "--uids", "{few}"], "uids: .* is an index and has its own"),
        (["{graph}", "-l", "{few}"], "labels: expected one for each of the 300 rows of .*, got 2"),
        (["{graph}", "-l", "{few}", "-k", "3"], "k: .* is a graph already"),
        (["{graph}", "-l", "{few}", "--uids", "{few}"], r"uids: expected \(300,\) of .*, got \(2,\) of int64"),
        (["{graph}", "-l", "{good}", "--min-confidence", "0.5"], "min_confidence: a subset is one of uids"),
        (
            ["{graph}", "-l", "{good}", "--weight", "cube"],
            "--weight: expected a power such as 3, binary or exp, got 'cube'",
        ),
        (["{graph}", "-l", "{good}", "--alpha", "1"], "alpha: expected a number from 0 to below 1"),
    ],
)
def test_bad_input_says_what_was_expected(
    arguments: list[str], sentence: str, index: Path, rows: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    knn_graph(rows, 4, out=tmp_path / "graph")
    np.save(tmp_path / "few.npy", np.array([0, 1]))
    np.save(tmp_path / "none.npy", np.full(ROWS, -1))
    np.save(tmp_path / "good.npy", np.arange(ROWS) % CLASSES)
    places = {name: tmp_path / f"{name}.npy" for name in ("few", "none", "good")}
    given = [a.format(idx=index, graph=tmp_path / "graph", tmp=tmp_path, **places) for a in arguments]
    with pytest.raises(InputError, match=sentence):
        invoke("labels", "propagate", *given, "-o", tmp_path / "out")


def test_a_gpu_that_is_not_there(index: Path, uids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = seeds(tmp_path / "s.parquet", uids, list(range(CLASSES)))
    arguments = ("labels", "propagate", index, "--labels", given, "--out", tmp_path / "out", "--quiet")
    monkeypatch.setattr(devices, "cuda_support", lambda: CudaSupport(True, 0, ()))
    with pytest.raises(InputError, match="device: a GPU was asked for, but no CUDA driver was found"):
        invoke(*arguments, "--device", "cuda")
    assert not (tmp_path / "out").exists()
    assert "labels" in invoke(*arguments, "--device", "auto")
