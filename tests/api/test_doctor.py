"""``doctor`` on pools with everything in them that it is there to find."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pycurate.api.doctor import doctor
from pycurate.api.doctor_report import DoctorReport, Finding, Place
from pycurate.errors import InputError, MemoryCapError, PoolError, WorkspaceError
from pycurate.io.pool import open_pool
from pycurate.recipes import Recipe

ROWS, SHARDS, DIMENSION = 120, 3, 16
TOTAL = ROWS * SHARDS


def unit(rows: int = TOTAL, seed: int = 0, dtype: Any = np.float16) -> NDArray[Any]:
    values = np.random.default_rng(seed).normal(size=(rows, DIMENSION))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype)


def uids(rows: int = TOTAL) -> list[str]:
    random = np.random.default_rng(7)
    return [random.bytes(16).hex() for _ in range(rows)]


def by_check(report: DoctorReport) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.check, []).append(finding)
    return found


def only(report: DoctorReport, check: str) -> Finding:
    found = by_check(report).get(check, [])
    assert len(found) == 1, report.findings
    return found[0]


def shown(report: DoctorReport) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(report.render())
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def stems(pool: Path) -> list[str]:
    return sorted(path.stem for path in pool.glob("*.parquet"))


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Path:
    path: Path = pool_factory.datacomp(
        tmp_path / "pool", SHARDS, ROWS, embeddings={"a_img": unit(seed=1), "a_txt": unit(seed=2)}, uid=uids()
    )
    return path


def test_a_sound_pool_is_fit_and_described(pool: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = doctor(pool, workers=2, scratch=scratch)
    assert report.ok
    assert report.findings == ()
    assert (report.layout, report.shards, report.rows, report.examined_rows) == ("datacomp", SHARDS, TOTAL, TOTAL)
    assert report.uid_source == "column"
    assert report.columns["original_width"] == "int64"
    assert report.uids_compared
    assert report.scratch_bytes == 16 * TOTAL
    assert list(scratch.iterdir()) == []
    image, text = report.embeddings
    assert (image.name, image.dimension, image.dtype, image.sound_rows) == ("a_img", DIMENSION, "float16", TOTAL)
    norms = np.linalg.norm(unit(seed=2).astype(np.float64), axis=1)
    measured = (text.norm_minimum, text.norm_mean, text.norm_maximum)
    assert measured == pytest.approx((norms.min(), norms.mean(), norms.max()), rel=1e-6)
    uid_bytes = sum(
        metadata.row_group(0).column(0).total_compressed_size
        for metadata in (pq.ParquetFile(path).metadata for path in pool.glob("*.parquet"))
    )
    assert report.read_bytes == 2 * TOTAL * DIMENSION * 2 + uid_bytes
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert "Fit to run." in shown(report)


def test_rows_that_cannot_be_judged_are_counted_and_placed(tmp_path: Path, pool_factory: Any) -> None:
    image, text = unit(seed=1, dtype=np.float32), unit(seed=2, dtype=np.float32)
    image[[5, 130], 3] = np.nan
    image[131] = -np.inf
    image[131, 0] = np.nan
    image[7, 15] = np.inf
    image[ROWS * 2 + 1] = 0
    text[300:310] = 3e38
    pool = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS, embeddings={"a_img": image, "a_txt": text})
    report = doctor(pool)
    first, second, third = stems(pool)
    nan = only(report, "embedding_nan")
    assert (nan.severity, nan.count) == ("warning", 3)
    assert nan.places == (Place(first, 5), Place(second, 10), Place(second, 11))
    assert nan.sentence == "embedding a_img: 3 rows have NaN"
    assert "unjudged" in nan.remedy
    infinite = only(report, "embedding_infinite")
    assert (infinite.count, infinite.places) == (1, (Place(first, 7),))
    assert infinite.sentence == "embedding a_img: 1 row has an infinite value"
    zero = only(report, "embedding_zero")
    assert (zero.count, zero.places) == (1, (Place(third, 1),))
    overflow = only(report, "embedding_overflow")
    assert overflow.count == 10
    assert overflow.places == tuple(Place(third, row) for row in range(60, 65))
    assert report.ok
    assert [e.sound_rows for e in report.embeddings] == [TOTAL - 5, TOTAL - 10]
    assert "Fit to run; 4 warnings above." in shown(report)


def test_unnormalised_rows_are_a_note_with_the_range(tmp_path: Path, pool_factory: Any) -> None:
    image = unit(seed=1)
    image[:200] *= np.linspace(3, 12, 200)[:, None].astype(np.float16)
    image[250] *= np.float16(1.005)
    pool = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS, embeddings={"a_img": image})
    note = only(doctor(pool), "embedding_unnormalised")
    assert (note.severity, note.count) == ("note", 200)
    assert note.sentence == "embedding a_img: 200 rows have a norm other than 1 (norms 1 to 12)"


def test_bfloat16_and_int8_rows_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "pool"
    path.mkdir()
    half = (unit(rows=50, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    half[3, 2] = 0x7FC0  # NaN
    half[4, 2] = 0xFF80  # -inf
    half[5] = 0x8000  # -0
    np.save(path / "half_0.npy", half)
    np.save(path / "byte_0.npy", np.full((50, 4), -3, np.int8))
    report = doctor(open_pool(path, bfloat16=("half",)))
    assert only(report, "embedding_nan").places == (Place("byte_0", 3),)
    assert only(report, "embedding_infinite").places == (Place("byte_0", 4),)
    assert only(report, "embedding_zero").places == (Place("byte_0", 5),)
    assert only(report, "embedding_unnormalised").sentence == (
        "embedding byte: 50 rows have a norm other than 1 (norms 6 to 6)"
    )
    assert {e.name: e.dtype for e in report.embeddings} == {"byte": "int8", "half": "bfloat16"}


def test_no_pool_is_an_error_that_is_raised(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="does not exist"):
        doctor(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match="no layout fits"):
        doctor(tmp_path / "empty")


def test_empty_shards_are_a_note(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", 2, 10, embeddings={"a_img": unit(20)})
    stem = stems(pool)[0]
    np.savez(pool / f"{stem}.npz", a_img=unit(20)[:0])
    pq.write_table(pq.read_table(pool / f"{stem}.parquet").slice(0, 0), pool / f"{stem}.parquet")
    report = doctor(pool)
    assert report.ok
    assert only(report, "shard_empty").places == (Place(stem),)
    assert report.examined_rows == 10


def test_malformed_uids_are_counted_and_the_rest_compared(tmp_path: Path, pool_factory: Any) -> None:
    names: list[Any] = uids()
    names[3], names[130], names[131] = None, "g" * 32, "abc"
    names[200] = names[150] + "\n"
    names[359] = names[0]
    pool = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS, embeddings={"a_img": unit()}, uid=names)
    report = doctor(pool)
    first, second, third = stems(pool)
    malformed = only(report, "uid_malformed")
    assert (malformed.severity, malformed.count) == ("error", 4)
    assert malformed.places == (Place(first, 3), Place(second, 10), Place(second, 11), Place(second, 80))
    assert malformed.sentence == "column uid: 4 rows have no 32 hex digits"
    twice = only(report, "uid_duplicate")
    assert twice.places == (Place(first, 0), Place(third, 119))
    assert report.examined_rows == TOTAL
    assert report.scratch_bytes == 16 * (TOTAL - 4)


def test_repeated_uids_are_an_error_unless_allowed(tmp_path: Path, pool_factory: Any) -> None:
    names = uids()
    names[1] = names[200] = names[340] = "0" * 31 + "1"
    names[50] = names[51] = "00" * 15 + "FF"
    names[9] = names[60] = "f" * 32
    pool = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS, embeddings={"a_img": unit()}, uid=names)
    first, second, third = stems(pool)
    report = doctor(pool)
    found = only(report, "uid_duplicate")
    assert (found.severity, found.count) == ("error", 7)
    assert found.sentence == f"3 uids are on more than one row, 7 rows in all; the first is {'0' * 31}1"
    assert found.places == (Place(first, 1), Place(second, 80), Place(third, 100), Place(first, 50), Place(first, 51))
    assert "allow duplicate uids" in found.remedy
    assert f"{first} row 1; {second} row 80" in shown(report)
    assert not report.ok
    allowed = doctor(pool, allow_duplicate_uids=True)
    assert only(allowed, "uid_duplicate").severity == "note"
    assert allowed.ok


def test_uniqueness_can_be_skipped(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = doctor(pool, uniqueness=False, scratch=tmp_path / "never made")
    assert only(asked, "uniqueness_skipped").severity == "note"
    assert (asked.uids_compared, asked.scratch_bytes) == (False, 0)

    full = shutil.disk_usage(tmp_path)._replace(free=16 * TOTAL - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    report = doctor(pool, scratch=tmp_path)
    found = only(report, "uniqueness_skipped")
    assert found.severity == "warning"
    assert found.sentence == (
        f"uids were not compared: that takes {16 * TOTAL:,} bytes in {tmp_path}, which has {16 * TOTAL - 1:,} free"
    )
    assert report.ok
    assert not report.uids_compared


def test_scratch_must_be_a_folder(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"scratch: cannot write in .*nowhere \(No such file or directory\)"):
        doctor(pool, scratch=tmp_path / "nowhere")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(WorkspaceError, match=r"scratch: cannot write in .*file \(Not a directory\); give another"):
        doctor(pool, scratch=file)


def test_a_pool_of_metadata_only(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", SHARDS, ROWS)
    for path in pool.glob("*.npz"):
        path.unlink()
    report = doctor(pool, "datacomp-none")
    assert report.ok
    assert (report.embeddings, report.examined_rows, report.uids_compared) == ((), TOTAL, True)


def test_what_a_recipe_needs_is_looked_for(tmp_path: Path, pool_factory: Any) -> None:
    texts: list[Any] = ["a caption of some words"] * TOTAL
    texts[4] = texts[125] = None
    scores = np.full(TOTAL, 0.3, np.float32)
    scores[9] = np.nan
    pool = pool_factory.datacomp(
        tmp_path / "pool", SHARDS, ROWS, embeddings={"l14_img": unit(), "l14_txt": unit()}, text=texts,
        clip_b32_similarity_score=scores,
    )  # fmt: skip
    good = Recipe(
        name="good",
        steps=[
            {"clip_score": {"as": "clip", "embeddings": "l14"}},
            {"caption_rules": {"min_words": 3}},
            {"threshold": {"score": "clip_b32_similarity_score", "minimum": 0.2}},
        ],
    )
    report = doctor(pool, good)
    assert report.ok
    assert report.recipe == "good"
    text, score = sorted(by_check(report)["value_missing"], key=lambda finding: -finding.count)
    first, second, _ = stems(pool)
    assert text.sentence == "column text: 2 rows have no value"
    assert text.places == (Place(first, 4), Place(second, 5))
    assert (score.count, score.places) == (1, (Place(first, 9),))

    bad = Recipe(
        name="bad",
        steps=[
            {"clip_score": {"as": "clip", "embeddings": "l15"}},
            {"threshold": {"score": "clip_l14_similarity_scor", "minimum": 0.2}},
        ],
    )
    report = doctor(pool, bad)
    assert not report.ok
    missing = by_check(report)
    assert {f.sentence.split(";")[0] for f in missing["embedding_missing"]} == {
        "step 'clip_score': embedding: the pool has no embedding 'l15_img'",
        "step 'clip_score': embedding: the pool has no embedding 'l15_txt'",
    }
    assert "did you mean 'clip_l14_similarity_score'?" in only(report, "column_missing").sentence
    assert report.examined_rows == TOTAL


def test_a_file_that_the_recipe_names_is_looked_for(pool: Path, tmp_path: Path) -> None:
    recipe = Recipe(name="words", steps=[{"caption_rules": {"word_list": str(tmp_path / "words.txt")}}])
    finding = only(doctor(pool, recipe), "recipe_needs")
    assert finding.severity == "error"
    assert "words.txt" in finding.sentence


def test_findings_do_not_depend_on_workers_or_memory(tmp_path: Path, pool_factory: Any) -> None:
    image = unit(rows=9000, seed=3) * np.float16(1.7)
    image[::11, 2] = np.nan
    image[::13] = 0
    names = uids(9000)
    names[4000:4100] = names[:100]
    names[8000] = "no"
    pool = pool_factory.datacomp(tmp_path / "pool", 3, 3000, embeddings={"a_img": image}, uid=names)
    reports = [
        replace(doctor(pool, workers=workers, memory_bytes=memory), seconds=0.0)
        for workers, memory in ((1, 1 << 30), (2, 1 << 30), (5, 1 << 30), (1, 202 << 20))
    ]
    assert by_check(reports[0]).keys() == {
        "embedding_nan", "embedding_zero", "embedding_unnormalised", "uid_malformed", "uid_duplicate",
    }  # fmt: skip
    assert all(report == reports[0] for report in reports[1:])


def test_too_little_memory_is_refused_with_what_is_enough(pool: Path) -> None:
    with pytest.raises(MemoryCapError, match="give at least 161 MiB"):
        doctor(pool, memory_bytes=100 << 20, workers=1)


def test_embeddings_can_be_chosen(pool: Path) -> None:
    report, whole = doctor(pool, embeddings=["a_txt"]), doctor(pool)
    assert [e.name for e in report.embeddings] == ["a_txt"]
    assert whole.read_bytes - report.read_bytes == TOTAL * DIMENSION * 2
    with pytest.raises(InputError, match="has no embedding 'a_text'; did you mean 'a_txt'"):
        doctor(pool, embeddings=["a_text"])
    with pytest.raises(InputError, match="workers: expected at least 1, got 0"):
        doctor(pool, workers=0)


def test_an_embedding_of_some_shards_only(pool: Path) -> None:
    stem = stems(pool)[1]
    np.savez(pool / f"{stem}.npz", a_img=unit(ROWS))
    report = doctor(pool)
    finding = only(report, "embedding_partial")
    assert finding.sentence == "embedding a_txt is missing in 1 shard of 3"
    assert finding.places == (Place(stem),)
    table = pq.read_table(pool / f"{stem}.parquet").append_column("extra", pa.nulls(ROWS))
    pq.write_table(table, pool / f"{stem}.parquet")
    assert only(doctor(pool), "column_partial").sentence == "column extra is missing in 2 shards of 3"


def test_tars_are_joined_with_their_rows(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.img2dataset(tmp_path / "pool", 2, 20)
    sound = doctor(pool)
    assert sound.ok
    assert sound.uids_compared
    assert set(by_check(sound)) == {"uid_made"}
    tar = pool / "00001.tar"
    with tarfile.open(tar) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(tar, "w") as archive:
        for member, data in members:
            if member.name == "000010002.jpg":
                continue
            if member.name == "000010005.jpg":
                member.name = "000019999.jpg"
            archive.addfile(member, io.BytesIO(data))
    report = doctor(pool)
    missing, strange = only(report, "image_missing"), only(report, "image_unexpected")
    assert missing.sentence == (
        "2 rows of status success without an image in the tar, such as key 000010002, 000010005"
    )
    assert strange.sentence == "1 image in tars without a row of status success, such as key 000019999"
    assert missing.places == strange.places == (Place("00001"),)
    tar.write_bytes(tar.read_bytes()[:20_000])
    report = doctor(pool)
    assert "truncated" in only(report, "shard_unreadable").sentence
    assert report.examined_rows == 20


def test_repeated_keys_make_repeated_uids(tmp_path: Path, pool_factory: Any) -> None:
    keys = [f"{i // 20:05d}{i % 20:04d}" for i in range(40)]
    keys[4] = keys[2]
    pool = pool_factory.img2dataset(tmp_path / "pool", 2, 20, key=keys)
    assert only(doctor(pool), "uid_duplicate").places == (Place("00000", 2), Place("00000", 4))


@pytest.mark.parametrize("layout", ["clip_retrieval", "plain"])
def test_uids_made_from_places_need_no_comparison(tmp_path: Path, pool_factory: Any, layout: str) -> None:
    pool = getattr(pool_factory, layout)(tmp_path / "pool")
    report = doctor(pool, layout=layout)
    assert report.ok
    assert not report.uids_compared
    assert {"uid_made", "uid_unique"} <= set(by_check(report))
    assert report.examined_rows == 600


def test_progress_hears_of_both_phases(pool: Path) -> None:
    heard: list[Any] = []

    class Listener:
        def start(self, stage: str, shards: int) -> None:
            heard.append((stage, shards))

        def advance(self, rows: int, read_bytes: int = 0) -> None:
            heard.append(rows)

        def finish(self) -> None:
            heard.append("finish")

    doctor(pool, progress=Listener())
    assert heard == [("examine", SHARDS), ROWS, ROWS, ROWS, "finish", ("uniqueness", 1), TOTAL, "finish"]


def test_real_unnormalised_embeddings(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "clip_neardup_groups" / "clip_image_emb_fp32.npy"
    if not source.exists():
        pytest.skip("clip_neardup_groups is not here")
    (tmp_path / "pool").mkdir()
    shutil.copy(source, tmp_path / "pool" / "clip.npy")
    report = doctor(tmp_path / "pool")
    norms = np.linalg.norm(np.load(source).astype(np.float64), axis=1)
    assert report.ok
    assert only(report, "embedding_unnormalised").count == len(norms)
    assert report.embeddings[0].norm_mean == pytest.approx(norms.mean(), rel=1e-6)
