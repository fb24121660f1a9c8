"""``pycurate labels noise`` and ``pycurate labels pseudo`` as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pycurate.cli import app as commands
from pycurate.errors import PycurateError
from pycurate.io.label_files import read_labels
from pycurate.io.pool import open_pool
from pycurate.kernels.uid import format_hex
from pycurate.ops.labels.label_noise import knn_label_noise
from pycurate.ops.labels.pseudo_labels import zero_shot_labels

NAMES = ("ant", "bee", "cat")


def invoke(*arguments: Any) -> str:
    result = CliRunner().invoke(commands.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 180)
    x = (np.eye(3, 8)[true] * 3 + random.normal(size=(180, 8))).astype(np.float16)
    x[80:90] = x[1]
    x[6] = 0
    given = np.where(random.random(180) < 0.25, random.integers(0, 3, 180), true)
    given[9] = -1
    kind = [None if label < 0 else NAMES[label] for label in given]
    folder = tmp_path_factory.mktemp("labels") / "pool"
    return Path(pool_factory.datacomp(folder, 3, 60, embeddings={"e": x}, number=given, kind=kind))


def rows_of(pool: Path) -> tuple[Any, Any, Any]:
    """Uids, embeddings and labels in the order of the pool."""
    blocks = [b for s in open_pool(pool).shards for b in s.blocks(("number",), ("e",))]
    return (
        np.concatenate([b.uids for b in blocks]),
        np.concatenate([b.embeddings["e"] for b in blocks]),
        np.concatenate([np.asarray(b.columns["number"]) for b in blocks]),
    )


@pytest.mark.parametrize("source", ["number", "kind", "file", "npy"])
@pytest.mark.parametrize("method", ["simifeat", "simifeat-rank"])
def test_noise_is_written_for_every_row(pool: Path, tmp_path: Path, source: str, method: str) -> None:
    uids, x, labels = rows_of(pool)
    given = ["--label", source]
    if source == "file":
        table = pa.table({"uid": format_hex(uids).astype(str), "label": labels})
        pq.write_table(table.take(np.random.default_rng(0).permutation(180)), tmp_path / "l.parquet")
        given = ["--labels", tmp_path / "l.parquet"]
    if source == "npy":
        np.save(tmp_path / "l.npy", labels)
        given = ["--labels", tmp_path / "l.npy"]
    out = tmp_path / "made" / "noise.parquet"
    printed = invoke("labels", "noise", pool, "-e", "e", *given, "-o", out, "--method", method, "--memory", "1G")
    right = knn_label_noise(x, labels, method=method, uids=uids)  # type: ignore[arg-type]
    table = pq.read_table(out).to_pydict()
    order = np.argsort(uids)
    names: Any = NAMES if source == "kind" else range(3)
    assert table["uid"] == format_hex(uids[order]).astype(str).tolist()
    assert table["label"] == [None if label < 0 else names[label] for label in labels[order]]
    assert table["is_issue"] == right.is_issue[order].tolist()
    assert table["suggested"] == [None if label < 0 else names[label] for label in right.suggested[order]]
    quality = np.array([np.nan if q is None else q for q in table["quality"]], np.float32)
    np.testing.assert_array_equal(quality, right.quality[order])
    facts = json.loads(pq.read_schema(out).metadata[b"pycurate"])
    assert (facts["method"], facts["k"], facts["embedding"]) == (method, 10, "e")
    assert f"{right.is_issue.sum()} labels" in printed
    assert "unjudged  1 labels" in printed
    assert ("estimate" in printed) == (method == "simifeat-rank")
    assert sorted(p.name for p in out.parent.iterdir()) == ["noise.parquet"]


def test_noise_as_json(pool: Path, tmp_path: Path) -> None:
    printed = invoke(
        "labels", "noise", pool, "-e", "e", "--label", "kind", "-o", tmp_path / "n.parquet", "--method", "vote",
        "-k", "5", "--rounds", "3", "--fraction", "0.5", "--seed", "2", "--threads", "2", "--quiet", "--json",
    )  # fmt: skip
    facts = json.loads(printed)
    assert facts["rows"] == 180
    assert facts["labelled"] == 179
    assert [c["class"] for c in facts["classes"]] == list(NAMES)
    assert sum(c["issues"] for c in facts["classes"]) == facts["issues"]


@pytest.mark.parametrize("options", [(), ("-k", "9"), ("-k", "20", "--spill"), ("-k", "9", "--rank-by", "probability")])
def test_pseudo_labels_are_written_and_read_again(pool: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    uids, x, _ = rows_of(pool)
    classes = np.random.default_rng(3).normal(size=(3, 8)).astype(np.float32)
    np.save(tmp_path / "classes.npy", classes)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    out = tmp_path / "pseudo.parquet"
    printed = invoke(
        "labels", "pseudo", pool, "-e", "e", "--classes", tmp_path / "classes.npy", "--names", tmp_path / "names.txt",
        "-o", out, *options,
    )  # fmt: skip
    right = zero_shot_labels(
        x,
        classes,
        int(options[1]) if options else None,
        spill="--spill" in options,
        rank_by="probability" if "probability" in options else "similarity",
        uids=uids,
    )
    found = read_labels(out, uids)
    assert found.class_names == NAMES
    np.testing.assert_array_equal(found.labels, right.labels)
    scores = dict(zip(pq.read_table(out)["uid"].to_pylist(), pq.read_table(out)["score"].to_pylist(), strict=True))
    for row in np.flatnonzero(right.labels >= 0):
        assert scores[format_hex(uids[row : row + 1])[0].decode()] == pytest.approx(float(right.scores[row]), rel=1e-6)
    assert f"labelled  {(right.labels >= 0).sum()} rows" in printed
    assert "unjudged  1 rows" in printed
    facts = json.loads(
        invoke("labels", "pseudo", pool, "-e", "e", "--classes", tmp_path / "classes.npy", "-o", out, "--json")
    )
    assert facts["labelled"] == 179


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("noise", "-e", "f", "--label", "number"), "embedding: the pool has no embedding 'f'"),
        (("noise", "-e", "e", "--label", "nmber"), "column: the pool has no column 'nmber'; did you mean 'number'"),
        (("noise", "-e", "e"), "label, labels: expected exactly one"),
        (("noise", "-e", "e", "--label", "clip_b32_similarity_score"), "to hold integers or class names"),
        (("noise", "-e", "e", "--labels", "none.npy"), "no such file"),
        (("noise", "-e", "e", "--label", "number", "-k", "1"), "k: expected a whole number of at least 2"),
        (("noise", "-e", "e", "--label", "number", "--rounds", "99"), "rounds: expected at most 64, got 99"),
        (("noise", "-e", "e", "--label", "number", "--memory", "1M"), "memory"),
        (("pseudo", "-e", "e", "--classes", "none.npy"), "class_embeddings: none.npy: not a readable .npy file"),
    ],
)
def test_wrong_use_is_one_sentence(pool: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    command, *rest = arguments
    with pytest.raises((PycurateError, ValueError), match=sentence):
        invoke("labels", command, pool, *rest, "-o", tmp_path / "o.parquet")
    assert list(tmp_path.iterdir()) == []


def test_wrong_classes_and_names_are_told(pool: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.ones((3, 8)))
    with pytest.raises(PycurateError, match=r"expected \(K, d\) float32 or float16"):
        invoke("labels", "pseudo", pool, "-e", "e", "--classes", tmp_path / "c.npy", "-o", tmp_path / "o.parquet")
    np.save(tmp_path / "c.npy", np.ones((3, 8), np.float32))
    (tmp_path / "n.txt").write_text("a\nb\n")
    base = ("labels", "pseudo", pool, "-e", "e", "--classes", tmp_path / "c.npy", "-o")
    with pytest.raises(PycurateError, match="class_names: expected 3 different names"):
        invoke(*base, tmp_path / "o.parquet", "--names", tmp_path / "n.txt")
    with pytest.raises(PycurateError, match=r"out: expected a file named \*.parquet"):
        invoke(*base, tmp_path / "o.csv")


def test_a_pool_without_labels_has_no_issues(tmp_path: Path, pool_factory: Any) -> None:
    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float16)
    folder = pool_factory.datacomp(tmp_path / "pool", 1, 20, embeddings={"e": x}, number=np.full(20, -1, np.int64))
    out = tmp_path / "noise.parquet"
    assert "issues    0 labels" in invoke("labels", "noise", folder, "-e", "e", "--label", "number", "-o", out)
    assert pq.read_table(out)["label"].null_count == 20
