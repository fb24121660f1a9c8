"""What goes wrong outside: full and read-only disks, damaged and hostile files. Each is told in a sentence."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate import Recipe, run
from pycurate.errors import PoolError, RecipeError, WorkspaceError


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Path:
    return Path(pool_factory.datacomp(tmp_path / "pool", shards=2, rows=100))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this process may not mount a tmpfs: {made.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_loses_nothing_that_was_finished(small_disk: Path, tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "large", shards=8, rows=5_000)
    with pytest.raises(WorkspaceError, match=r"cannot write .*: the disk is full; free some space there"):
        run("datacomp-clip-l14-30", pool, small_disk / "out", processes=False)
    assert list((small_disk / "out" / "workspace" / "columns").rglob("*.arrow.json"))
    assert not list(small_disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    run("datacomp-clip-l14-30", pool, small_disk / "out", processes=False)
    fresh = run("datacomp-clip-l14-30", pool, tmp_path / "fresh", processes=False)
    assert (small_disk / "out" / "subset.npy").read_bytes() == fresh.subset.read_bytes()


def test_a_disk_that_is_full_in_a_fit_is_named(small_disk: Path, tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "large", shards=2, rows=12_000, text=["same"] * 24_000)
    recipe = Recipe(name="r", steps=[{"exact_dedup": "caption"}])
    with pytest.raises(WorkspaceError, match=r"cannot write .*scratch.*: the disk is full; free some space there"):
        run(recipe, pool, small_disk / "out", processes=False)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert run(recipe, pool, small_disk / "out", processes=False).manifest.counts.kept == 1


def test_a_read_only_disk_is_named(small_disk: Path, pool: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(WorkspaceError, match=r"out: cannot use .*out as a folder \(Read-only file system\)"):
        run("datacomp-none", pool, small_disk / "out")


def stems(pool: Path) -> list[Path]:
    return [path.with_suffix("") for path in sorted(pool.glob("*.parquet"))]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def test_a_truncated_parquet(pool: Path, tmp_path: Path) -> None:
    cut(stems(pool)[1].with_suffix(".parquet"))
    with pytest.raises(PoolError, match=rf"shard {stems(pool)[1].name}: .*\.parquet: .*(truncated|cannot be read)"):
        run("datacomp-none", pool, tmp_path / "out")


def test_a_truncated_npz(pool: Path, tmp_path: Path) -> None:
    cut(stems(pool)[1].with_suffix(".npz"))
    with pytest.raises(PoolError, match=rf"shard {stems(pool)[1].name}: .*\.npz: truncated"):
        run("datacomp-none", pool, tmp_path / "out")


def test_rows_that_do_not_match(pool: Path, tmp_path: Path) -> None:
    path = stems(pool)[0].with_suffix(".npz")
    arrays = dict(np.load(path))
    np.savez(path, **{name: values[:-1] for name, values in arrays.items()})
    with pytest.raises(
        PoolError, match=r"row counts differ: .*parquet has 100 rows, .* has 99 rows; rows are joined by"
    ):
        run("datacomp-none", pool, tmp_path / "out")


def test_a_uid_that_is_not_hex(tmp_path: Path, pool_factory: Any) -> None:
    uids = [f"{i:032x}" for i in range(100)]
    uids[57] = "not a uid"
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=100, uid=uids)
    with pytest.raises(PoolError, match=r"shard \w{32}, row 57: uid 'not a uid' is not 32 hex digits"):
        run("datacomp-none", pool, tmp_path / "out")


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_embeddings_of_a_wrong_dtype(tmp_path: Path, pool_factory: Any, dtype: type) -> None:
    embeddings = {name: np.ones((50, 8), dtype) for name in ("l14_img", "l14_txt")}
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=50, embeddings=embeddings)
    with pytest.raises(PoolError, match=rf"l14_img.*{np.dtype(dtype).name}.*float16|float16.*{np.dtype(dtype).name}"):
        run("datacomp-none", pool, tmp_path / "out")


def test_a_missing_column_is_asked_for_by_name(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=50, clip_l14_similarity_score=None)
    with pytest.raises(RecipeError, match=r"clip_l14_similarity_score.*did you mean 'clip_b32_similarity_score'"):
        run("datacomp-clip-l14-30", pool, tmp_path / "out")


def test_an_empty_pool(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    with pytest.raises(PoolError, match=r"pool"):
        run("datacomp-none", tmp_path / "pool", tmp_path / "out")


def test_an_npz_that_says_it_is_larger_than_it_is(pool: Path, tmp_path: Path) -> None:
    """A deflated member that unpacks to more, or to less, than its header declares."""
    path = stems(pool)[0].with_suffix(".npz")
    arrays = dict(np.load(path))
    header = tmp_path / "header.npy"
    np.save(header, arrays["l14_img"])
    data = header.read_bytes()
    for payload in (data + bytes(50_000_000), data[:-100]):
        path.unlink()
        np.savez_compressed(path, **{name: values for name, values in arrays.items() if name != "l14_img"})
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("l14_img.npy", payload)
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("name: r\nsteps:\n  - clip_score: {embeddings: l14, as: clip}\n")
        with pytest.raises(PoolError, match=rf"{path.name}.*l14_img"):
            run(recipe, pool, tmp_path / "out", processes=False)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_an_npy_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    np.save(tmp_path / "pool" / "features_0.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    with pytest.raises(PoolError, match=r"features_0\.npy.*(object|pickle)"):
        run("datacomp-none", tmp_path / "pool", tmp_path / "out")


def test_an_image_bomb_is_a_note_in_the_report(tmp_path: Path, pool_factory: Any) -> None:
    """A picture of 60,000 x 60,000 pixels in 400 bytes: never decoded, and no reason to fail."""
    import struct
    import zlib

    from pycurate.report import read_examples

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    pool = pool_factory.img2dataset(tmp_path / "pool", shards=1, rows=6)
    _replace_images(pool / "00000.tar", bomb)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: r\nsteps:\n  - image_rules: {min_side: 300}\n")
    result = run(recipe, pool, tmp_path / "out", processes=False)
    rows = [row for group in read_examples(result.out).groups for row in group.rows]
    assert rows
    assert all(row.image is None for row in rows)
    assert any(row.image_note and "pixels" in row.image_note for row in rows)


def _replace_images(path: Path, image: bytes) -> None:
    import io
    import tarfile

    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            data = image if name.endswith(".jpg") else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_hostile_texts_stay_texts(tmp_path: Path, pool_factory: Any) -> None:
    captions = ["<script>alert(1)</script>", "'; DROP TABLE rows; --", "a\x00b", "\u202egnp.exe", ""] * 4
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20, text=captions)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: r\nsteps:\n  - filter: \"caption not like '%DROP%'\"\n  - caption_rules: {min_words: 2}\n")
    result = run(recipe, pool, tmp_path / "out", processes=False)
    assert result.manifest.counts.kept == 0
    page = (result.out / "report.html").read_text()
    assert "<script>alert" not in page


def test_the_columns_of_every_shard_must_hold_what_the_recipe_reads(pool: Path, tmp_path: Path) -> None:
    path = stems(pool)[1].with_suffix(".parquet")
    pq.write_table(pq.read_table(path).drop_columns(["clip_l14_similarity_score"]), path)
    with pytest.raises(RecipeError, match=r"clip_l14_similarity_score.*only in some"):
        run("datacomp-clip-l14-30", pool, tmp_path / "out")
