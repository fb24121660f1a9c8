"""``doctor`` on pools with broken shards: each is told of, and all others are looked at."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pycurate.api.doctor import doctor
from pycurate.api.doctor_report import DoctorReport, Finding, Place

ROWS, SHARDS = 40, 3


def unit(rows: int) -> NDArray[np.float16]:
    values = np.random.default_rng(0).normal(size=(rows, 16))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def of_check(report: DoctorReport, check: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.check == check]


def shown(report: DoctorReport) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(report.render())
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def stems(pool: Path) -> list[str]:
    return sorted(path.stem for path in pool.glob("*.parquet"))


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Path:
    both = unit(SHARDS * ROWS)
    path: Path = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS, embeddings={"a_img": both, "a_txt": both})
    return path


class Damage(NamedTuple):
    check: str
    sentence: str
    rows_left: int = 2 * ROWS


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _damage(kind: str, pool: Path, stem: str) -> Damage:
    npz, table = pool / f"{stem}.npz", pool / f"{stem}.parquet"
    values = unit(ROWS)
    if kind == "cut npz":
        _cut(npz, 0.6)
        return Damage("shard_damaged", "truncated or not an npz file")
    if kind == "cut parquet":
        _cut(table, 0.6)
        return Damage("shard_damaged", "truncated or not a parquet file")
    if kind == "no npz":
        npz.unlink()
        return Damage("shard_damaged", "has no .*npz beside it")
    if kind == "row mismatch":
        np.savez(npz, a_img=values[:-1], a_txt=values[:-1])
        return Damage("shard_damaged", f"row counts differ: .*parquet has {ROWS} rows.* has {ROWS - 1} rows")
    if kind == "other dimension":
        np.savez(npz, a_img=values[:, :8], a_txt=values)
        return Damage("shard_damaged", "'a_img' has 8 dimensions of float16, in other shards 16")
    if kind == "other dtype":
        np.savez(npz, a_img=values, a_txt=values.astype(np.float32))
        return Damage("shard_damaged", "'a_txt' has 16 dimensions of float32, in other shards 16 of float16")
    if kind == "float64":
        np.savez(npz, a_img=values.astype(np.float64), a_txt=values)
        return Damage("shard_damaged", "dtype float64; expected float16")
    if kind == "pickled":
        np.savez(npz, a_img=np.array([{}], object), a_txt=values)
        return Damage("shard_damaged", "pickled Python objects")
    assert kind == "damaged page"
    data = bytearray(table.read_bytes())
    start = pq.ParquetFile(table).metadata.row_group(0).column(0).data_page_offset
    data[start : start + 40] = bytes(40)
    table.write_bytes(data)
    return Damage("shard_unreadable", "damaged parquet data")


@pytest.mark.parametrize("where", range(SHARDS))
@pytest.mark.parametrize(
    "kind",
    [
        "cut npz", "cut parquet", "no npz", "row mismatch", "other dimension", "other dtype", "float64", "pickled",
        "damaged page",
    ],
)  # fmt: skip
def test_a_broken_shard_is_told_and_the_others_looked_at(pool: Path, kind: str, where: int) -> None:
    stem = stems(pool)[where]
    other = stems(pool)[where - 1]
    expected = _damage(kind, pool, stem)
    part = unit(ROWS)
    part[17] = np.nan
    np.savez(pool / f"{other}.npz", a_img=part, a_txt=unit(ROWS))
    report = doctor(pool)
    assert not report.ok
    (finding,) = of_check(report, expected.check)
    assert finding.severity == "error"
    assert finding.places[0].shard == stem
    assert re.search(expected.sentence, finding.sentence), finding.sentence
    assert report.examined_rows == expected.rows_left
    (nan,) = of_check(report, "embedding_nan")
    assert nan.places == (Place(other, 17),)
    assert "1 error: a run would stop or go wrong." in shown(report)


def test_every_broken_shard_is_named_up_to_twenty(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", 24, 5, embeddings={"a_img": unit(120)})
    for stem in stems(pool)[1:]:
        _cut(pool / f"{stem}.npz", 0.5)
    found = of_check(doctor(pool), "shard_damaged")
    assert [f.places[0].shard for f in found[:20]] == stems(pool)[1:21]
    assert found[20].sentence == "3 more shards cannot be used"
    assert found[20].places == tuple(Place(stem) for stem in stems(pool)[21:])
    assert len(found) == 21


def test_nothing_but_broken_shards(pool: Path) -> None:
    for stem in stems(pool):
        _cut(pool / f"{stem}.npz", 0.5)
    report = doctor(pool, "datacomp-none")
    assert not report.ok
    (empty,) = of_check(report, "pool_empty")
    assert empty.sentence == "no row of the pool can be read"
    assert len(of_check(report, "shard_damaged")) == SHARDS
    assert json.dumps(report.to_dict())
    assert "errors: a run would stop" in shown(report)
