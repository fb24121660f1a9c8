from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import pycurate
from pycurate.cli.app import app
from pycurate.errors import InputError
from pycurate.io.label_files import read_labels
from pycurate.io.subset import Subset
from pycurate.io.vote_files import read_votes
from pycurate.kernels import device as devices
from pycurate.kernels.device import CudaSupport
from pycurate.kernels.uid import format_hex


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["labels", *map(str, arguments)], catch_exceptions=False)


def problem(n: int, k: int, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    true = random.integers(0, k, n)
    logits = random.normal(size=(n, k))
    logits[np.arange(n), true] += 4
    p = np.exp(logits)
    labels = np.where(random.random(n) < 0.2, random.integers(0, k, n), true)
    labels[:k] = np.arange(k)
    return labels, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def test_issues_of_plain_files(tmp_path: Path) -> None:
    labels, p = problem(500, 5)
    labels[7] = -1
    np.save(tmp_path / "y.npy", labels)
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p" / "a.npy", p[:200])
    np.save(tmp_path / "p" / "b.npy", p[200:])
    result = run("issues", tmp_path / "y.npy", tmp_path / "p", "--out", tmp_path / "out", "--json", "--threads", 1)
    told = json.loads(result.stdout)
    known = labels >= 0
    expected = pycurate.find_label_issues(labels[known], p[known])
    assert told["issues"] == expected.sum() > 50
    assert told["labelled"] == 499
    table = pq.read_table(tmp_path / "out" / "label_issues.parquet")
    assert table.column_names == ["row", "label", "suggested_label", "score", "is_issue"]
    assert table["row"].to_pylist() == list(range(500))
    found = np.array(table["is_issue"].to_pylist())
    assert found[known].tolist() == expected.tolist()
    assert not found[7]
    assert table["label"][7].as_py() is None
    assert table["score"][7].as_py() is None
    assert np.array(table["suggested_label"].to_pylist()).tolist() == p.argmax(axis=1).tolist()
    scores = pycurate.get_label_quality_scores(labels[known], p[known])
    assert np.array(table["score"].to_pylist())[known].astype(float).tolist() == scores.tolist()
    joint = np.load(tmp_path / "out" / "joint.npy")
    np.testing.assert_array_equal(joint, pycurate.compute_confident_joint(labels[known], p[known]))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["issues"] == told["issues"]
    assert manifest["filter_by"] == "prune_by_noise_rate"
    np.testing.assert_allclose(manifest["thresholds"], pycurate.get_confident_thresholds(labels[known], p[known]))
    html = (tmp_path / "out" / "report.html").read_text()
    assert f"{told['issues']} of 499 labels are likely wrong" in html
    worst = int(np.flatnonzero(found)[np.argmin(np.array(table["score"].to_pylist())[found].astype(float))])
    assert f"row {worst}<" in html


def test_issues_of_a_pool_with_neighbours(tmp_path: Path, pool_factory: Any) -> None:
    random = np.random.default_rng(0)
    pool_factory.datacomp(tmp_path / "pool", 2, 60, images=True)
    pool = pycurate.open_pool(str(tmp_path / "pool"))
    uids = np.concatenate([block.uids for shard in pool.shards for block in shard.blocks()])
    hexed = [text.decode() for text in format_hex(uids)]
    labels, p = problem(120, 3)
    names = np.array(["cat", "dog", "<b>fish</b>"])[np.argsort(["cat", "dog", "<b>fish</b>"])]
    order = random.permutation(100)
    table = pa.table({"uid": [hexed[i] for i in order], "label": [str(names[labels[i]]) for i in order]})
    pq.write_table(table, tmp_path / "y.parquet")
    np.save(tmp_path / "p.npy", p)
    pycurate.knn_graph(random.normal(size=(120, 8)).astype(np.float32), k=3).save(tmp_path / "graph")
    result = run(
        "issues", tmp_path / "y.parquet", tmp_path / "p.npy", "-o", tmp_path / "out", "--pool", tmp_path / "pool",
        "--graph", tmp_path / "graph", "--filter", "confident_learning", "--rank-by", "normalized_margin",
    )  # fmt: skip
    assert "are likely labelled wrongly" in result.stdout
    found = pq.read_table(tmp_path / "out" / "label_issues.parquet")
    assert found["uid"].to_pylist() == hexed
    matched = read_labels(tmp_path / "y.parquet", uids)
    known = matched.labels >= 0
    expected = pycurate.find_label_issues(matched.labels[known], p[known], filter_by="confident_learning")
    assert np.array(found["is_issue"].to_pylist())[known].tolist() == expected.tolist()
    assert set(found["suggested_label"].to_pylist()) <= set(names)
    kept = Subset.load(tmp_path / "out" / "subset.npy").uids
    mask = np.array(found["is_issue"].to_pylist())
    assert kept.tolist() == sorted(uids[~mask].tolist())
    html = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;b&gt;fish&lt;/b&gt;" in html
    assert "<b>fish" not in html
    assert "neighbours: " in html
    assert "rows without label" in html
    np.save(tmp_path / "y500.npy", np.zeros(500, np.int64))
    np.save(tmp_path / "p500.npy", problem(500, 3)[1])
    with pytest.raises(InputError, match="graph: expected 500 rows, as there are labels, got 120"):
        pycurate.label_issues(tmp_path / "y500.npy", tmp_path / "p500.npy", tmp_path / "none", graph=tmp_path / "graph")


def test_issues_of_the_largest_few_probabilities(tmp_path: Path) -> None:
    labels, p = problem(300, 8)
    order = np.argsort(-p, axis=1)[:, :5]
    (tmp_path / "top").mkdir()
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "p.npy", p)
    np.save(tmp_path / "top" / "classes.npy", order.astype(np.uint16))
    np.save(tmp_path / "top" / "probabilities.npy", np.take_along_axis(p, order, 1))
    np.save(tmp_path / "top" / "self_probability.npy", p[np.arange(300), labels])
    for name, probs in (("a", tmp_path / "p.npy"), ("b", tmp_path / "top")):
        run("issues", tmp_path / "y.npy", probs, "-o", tmp_path / name, "--filter", "confident_learning")
    a, b = (pq.read_table(tmp_path / name / "label_issues.parquet") for name in "ab")
    assert a.equals(b)
    found = run(
        "issues", tmp_path / "y.npy", tmp_path / "top", "-o", tmp_path / "c", "--classes", 9, "--json"
    )  # fmt: skip
    assert json.loads(found.stdout)["classes"] == 9


def test_warnings_are_told_and_wrong_names_refused(tmp_path: Path) -> None:
    labels, p = problem(60, 3)
    p[4] *= 1.01
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "p.npy", p)
    result = run("issues", tmp_path / "y.npy", tmp_path / "p.npy", "-o", tmp_path / "out", "--json")
    assert "such as 1.01 in row 4" in json.loads(result.stdout)["notes"][0]
    assert "such as 1.01 in row 4" in (tmp_path / "out" / "report.html").read_text()
    pq.write_table(pa.table({"label": ["a", "b"] * 30}), tmp_path / "named.parquet")
    with pytest.raises(InputError, match="the file names 2 classes, but pred_probs has 3 columns"):
        pycurate.label_issues(tmp_path / "named.parquet", tmp_path / "p.npy", tmp_path / "out")
    with pytest.raises(InputError, match="filter_by: expected prune_by_noise_rate"):
        pycurate.label_issues(tmp_path / "y.npy", tmp_path / "p.npy", tmp_path / "out", filter_by="none")
    for bad, message in (("missing.npy", "expected an .npy file"), (".", r"expected shape \(rows, classes\)")):
        with pytest.raises(InputError, match=message):
            pycurate.label_issues(tmp_path / "y.npy", tmp_path / bad, tmp_path / "out")


def votes_of(n: int, m: int, k: int) -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    true = random.integers(0, k, n)
    votes = np.where(random.random((n, m)) < np.linspace(0.5, 0.95, m), true[:, None], random.integers(0, k, (n, m)))
    votes[random.random((n, m)) < 0.3] = -1
    return true, votes


@pytest.mark.parametrize("method", ["majority", "dawid-skene", "label-model"])
def test_aggregate(tmp_path: Path, method: str) -> None:
    true, votes = votes_of(400, 6, 3)
    np.save(tmp_path / "v.npy", votes.astype(np.int8))
    names = np.array(["a", "b", "c"])
    columns = {f"worker {m}": [None if v < 0 else str(names[v]) for v in votes[:, m]] for m in range(6)}
    pq.write_table(pa.table({"uid": [f"{i:032x}" for i in range(400)], **columns}), tmp_path / "v.parquet")
    told = json.loads(run("aggregate", tmp_path / "v.npy", "-o", tmp_path / "n", "--method", method, "--json").stdout)
    run("aggregate", tmp_path / "v.parquet", "-o", tmp_path / "t", "--method", method)
    assert told["labelled"] == (votes >= 0).any(axis=1).sum()
    plain = pq.read_table(tmp_path / "n" / "labels.parquet")
    named = pq.read_table(tmp_path / "t" / "labels.parquet")
    assert plain.column_names == ["row", "label", "confidence", "agreement", "num_votes"]
    assert named["uid"].to_pylist()[:2] == ["0" * 32, "0" * 31 + "1"]
    labels = read_labels(tmp_path / "n" / "labels.parquet").labels
    assert labels.tolist() == read_labels(tmp_path / "t" / "labels.parquet").labels.tolist()
    assert (labels == true)[labels >= 0].mean() > 0.9
    soft = np.load(tmp_path / "n" / "soft_labels.npy")
    assert soft.shape == (400, 3)
    np.testing.assert_allclose(soft[labels >= 0].sum(axis=1), 1, rtol=1e-5)
    confusion = np.load(tmp_path / "n" / "confusion.npy")
    np.testing.assert_array_equal(confusion, pycurate.annotator_confusion(votes, labels, 3))
    html = (tmp_path / "t" / "report.html").read_text()
    assert "worker 0" in html
    assert json.loads((tmp_path / "t" / "manifest.json").read_text())["class_names"] == ["a", "b", "c"]


def test_aggregate_counts_of_ferplus(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "ferplus" / "fer2013new.csv"
    with source.open() as file:
        rows = list(csv.reader(file))
    classes = rows[0][2:]
    counts = np.array([row[2:] for row in rows[1:]], np.int64)
    result = run(
        "aggregate", source, "-o", tmp_path / "out", "--counts", "--columns", ",".join(classes), "--method", "majority",
        "--json",
    )  # fmt: skip
    told = json.loads(result.stdout)
    assert told["rows"] == told["labelled"] == 35_887
    assert told["votes"] == counts.sum()
    by_name = np.argsort(classes)
    read = read_labels(tmp_path / "out" / "labels.parquet")
    assert list(read.class_names or ()) == sorted(classes)
    assert read.labels.tolist() == counts[:, by_name].argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"a": [0.5, 1.0]}, {}, "column 'a': expected names of classes, as another column does, got double"),
        ({"a": [0, 1], "b": ["x", "y"]}, {}, "column 'a': expected names of classes"),
        ({"a": [0, 1]}, {"columns": ["b"]}, "expected columns b, got a"),
        ({"uid": ["0" * 32] * 2}, {}, "expected columns of votes"),
        ({"a": ["x", "y"]}, {"counts": True}, "expected numbers of votes, got string"),
        ({"a": [0, 1], "uid": ["x", "y"]}, {}, "row 0: uid is not 32 hex digits"),
    ],
)
def test_votes_that_cannot_be_read(tmp_path: Path, columns: Any, settings: Any, message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(InputError, match=message):
        read_votes(tmp_path / "v.parquet", **settings)


def test_other_files_and_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_votes(tmp_path / "v.csv")
    np.save(tmp_path / "v.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"expected integers \(rows, annotators\)"):
        read_votes(tmp_path / "v.npy")
    np.save(tmp_path / "v.npy", np.zeros((3, 3), np.int64))
    with pytest.raises(InputError, match="method: expected majority, dawid-skene, label-model"):
        pycurate.aggregate_labels(tmp_path / "v.npy", tmp_path / "out", method="mean")
    with pytest.raises(InputError, match="columns: only of a Parquet or CSV table"):
        read_votes(tmp_path / "v.npy", ["a"])


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p = problem(20, 3)
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "p.npy", p)
    arguments = ("issues", tmp_path / "y.npy", tmp_path / "p.npy", "--out", tmp_path / "out")
    monkeypatch.setattr(devices, "cuda_support", lambda: CudaSupport(True, 0, ()))
    with pytest.raises(InputError, match="device: a GPU was asked for, but no CUDA driver was found"):
        run(*arguments, "--device", "cuda")
    assert not (tmp_path / "out").exists()
    assert InputError("").exit_code == 2
    assert run(*arguments, "--device", "auto").exit_code == 0
