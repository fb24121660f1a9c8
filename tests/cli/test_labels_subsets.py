"""``pycurate labels balance`` and ``pycurate labels coreset`` as a person meets them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import pycurate
from pycurate.cli import app as commands
from pycurate.errors import InputError
from pycurate.kernels.uid import format_hex
from pycurate.ops.selection.balance import class_caps
from pycurate.ops.selection.k_center import k_center


def invoke(*arguments: Any) -> str:
    """Standard output of a command called in this process."""
    result = CliRunner().invoke(commands.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def pool_uids(pool: Any) -> np.ndarray:
    opened = pycurate.open_pool(pool)
    return np.concatenate([block.uids for shard in opened.shards for block in shard.blocks(())])


@pytest.fixture
def labelled(pool_factory: Any, tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """A pool, a parquet of names by uid in another order, uids and names in the pool's order."""
    pool = pool_factory.datacomp(tmp_path / "pool", 3, 100)
    uids = pool_uids(pool)
    random = np.random.default_rng(0)
    names = np.array(["<b>cat</b>", "dog", "emu", "yak"], object)[random.zipf(1.6, 300).clip(0, 4) - 1]
    names[::17] = None
    order = random.permutation(300)
    texts = [text.decode() for text in format_hex(uids[order].copy())]
    pq.write_table(pa.table({"uid": texts, "label": names[order].tolist()}), tmp_path / "labels.parquet")
    return pool, tmp_path / "labels.parquet", uids, names


def test_a_report_alone_needs_no_pool(labelled: Any, tmp_path: Path) -> None:
    _, labels, _, names = labelled
    facts = json.loads(invoke("labels", "balance", labels, "--json"))
    assert facts["before"]["rows"] == 300
    assert facts["before"]["unlabelled"] == sum(name is None for name in names)
    assert facts["before"]["classes"] == len({name for name in names if name is not None})
    assert facts["after"] is None
    text = invoke("labels", "balance", labels, "--out", tmp_path / "out")
    assert "effective classes" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")) == [
        "balance.html",
        "balance.json",
        "pycurate.json",
    ]


@pytest.mark.parametrize("rule", [("--cap", 9), ("--total", 60), ("--total", 60, "--floor", 4)])
def test_a_subset_is_that_of_the_op_and_the_page_says_so(labelled: Any, tmp_path: Path, rule: Any) -> None:
    pool, labels, uids, names = labelled
    out = tmp_path / "out"
    facts = json.loads(invoke("labels", "balance", labels, "--pool", pool, "--out", out, *rule, "--json"))
    if rule[0] == "--cap":
        caps: Any = 9
    else:
        counts = np.unique([name for name in names if name is not None], return_counts=True)[1]
        caps = pycurate.water_filling(counts, 60, floors=rule[3] if len(rule) > 2 else 0).quotas
    keep = class_caps(names, caps, uids=uids).keep
    np.testing.assert_array_equal(pycurate.Subset.load(out / "subset.npy").uids, np.sort(uids[keep]))
    assert facts["kept"] == keep.sum() == sum(rows for _, rows in facts["after"]["head"])
    page = (out / "balance.html").read_text()
    HTMLParser().feed(page)
    assert "&lt;b&gt;cat" in page
    assert "<b>cat" not in page
    assert 'class="curve before"' in page
    assert "kept" in page


def test_repeats_are_copies_in_the_subset(labelled: Any, tmp_path: Path) -> None:
    pool, labels, uids, names = labelled
    out = tmp_path / "out"
    invoke("labels", "balance", labels, "--pool", pool, "--out", out, "--repeat", 0.2)
    codes = np.unique([name or "" for name in names], return_inverse=True)[1] - 1
    times = np.where(codes >= 0, pycurate.repeat_rows(codes, 0.2, uids=uids).times, 0)
    np.testing.assert_array_equal(pycurate.Subset.load(out / "subset.npy").uids, np.sort(np.repeat(uids, times)))
    assert times.max() > 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cap", 3, "--total", 4], "cap and total: expected one of them"),
        (["--cap", 3], "pool: expected one with cap, as a subset names the uids of a pool"),
        (["--floor", 3], "floor: goes with total"),
        (["--cap", 0, "--pool", "POOL", "--out", "OUT"], "caps: expected a whole number of at least 1, got 0"),
        (["--total", 0, "--pool", "POOL", "--out", "OUT"], "total: expected a whole number of at least 1, got 0"),
        (["--repeat", 2, "--pool", "POOL", "--out", "OUT"], "threshold: expected a share above 0 and at most 1, got 2"),
    ],
)
def test_bad_options_are_named(labelled: Any, tmp_path: Path, options: list[Any], sentence: str) -> None:
    pool, labels, _, _ = labelled
    given = [{"POOL": pool, "OUT": tmp_path / "out"}.get(option, option) for option in options]
    with pytest.raises(InputError, match=sentence):
        invoke("labels", "balance", labels, *given)
    assert not (tmp_path / "out").exists()


def test_a_file_without_labels_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.full(4, -1))
    with pytest.raises(InputError, match="labels: expected at least one row with a label, got none among 4 rows"):
        invoke("labels", "balance", tmp_path / "none.npy")


@pytest.mark.parametrize("method", ["facility_location", "k_center"])
def test_a_coreset_is_a_run(pool_factory: Any, tmp_path: Path, method: str) -> None:
    pool = pool_factory.clip_retrieval(tmp_path / "pool", 2, 60)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="embedding: expected the name of one, as the pool has 2: image, text"):
        invoke("labels", "coreset", pool, "--rows", 10, "--out", out)
    arguments = ["labels", "coreset", pool, "-e", "image", "--rows", 10, "--method", method, "--out", out]
    facts = json.loads(invoke(*arguments, "--json"))
    assert (facts["rows"], facts["kept"], facts["unjudged"]) == (120, 10, 0)
    assert "one of the 10 rows that represent 120 best" in facts["description"]
    assert "10 of 120 rows kept" in invoke(*arguments)
    uids = pool_uids(pool)
    order = np.lexsort((uids["f1"], uids["f0"]))
    x = np.concatenate([np.load(tmp_path / "pool" / "img_emb" / f"img_emb_{part:02d}.npy") for part in range(2)])
    x = np.ascontiguousarray(x[order])
    if method == "k_center":
        rows = k_center(x, 10).rows
    else:
        rows = pycurate.facility_location(x, 10, negative="zero").rows
    np.testing.assert_array_equal(pycurate.Subset.load(out / "subset.npy").uids, np.sort(uids[order][rows]))
