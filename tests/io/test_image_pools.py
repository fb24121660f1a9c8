"""Pools whose images lie elsewhere than in img2dataset shards: tars beside a datacomp pool, and plain image files."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pycurate import Recipe, build_pack, decontaminate, doctor, open_pool, plan, run
from pycurate.api.export import export_parquet
from pycurate.errors import InputError, PoolError, RecipeError
from pycurate.io import shard as shards
from pycurate.io.layouts import images as image_layout
from pycurate.ops.dedup.perceptual import perceptual_duplicates, perceptual_hashes
from pycurate.pipeline.image_index import images_at_hand, needs_index
from pycurate.steps import PerceptualDedup, Threshold

ROWS = 30


def picture(seed: int, shade: int = 0, size: tuple[int, int] = (64, 64)) -> bytes:
    patches = np.random.default_rng(seed).integers(20, 230, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize((64, 64), Image.Resampling.BICUBIC).resize(size)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(image).astype(int) + shade, 0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def images() -> list[bytes | None]:
    """Thirty rows: twenty pictures, four of them again, a damaged one, five that are not there."""
    found: list[bytes | None] = [picture(seed) for seed in range(20)]
    found += [picture(3, 6), picture(7, 0, (96, 80)), picture(3, -5), picture(11, 4), b"\xff\xd8broken"]
    return found + [None] * 5


def uid(row: int) -> str:
    return hashlib.md5(f"row {row}".encode()).hexdigest()


def write_tar(path: Path, rows: Sequence[int], keyed: bool = False, together: bool = True) -> None:
    """A sample a row: its image and, unless its key is the uid, a json member that names it."""
    members: list[tuple[str, bytes]] = []
    for place, row in enumerate(rows):
        image = images()[row]
        key = uid(row) if keyed else f"{place:09d}"
        if image is not None:
            members.append((f"{key}.jpg", image))
        members.append((f"{key}.txt", b"a caption"))
        if not keyed:
            members.append((f"{key}.json", json.dumps({"uid": uid(row).upper(), "key": key}).encode()))
    if not together:
        members.sort(key=lambda member: member[0].rsplit(".", 1)[1])
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_datacomp(path: Path, *, rows: int = ROWS, column: str = "uid") -> Path:
    """Two metadata shards, and tars below ``shards`` in another order: rows 0 to 9 by key, the others by json."""
    (path / "shards").mkdir(parents=True)
    for number, part in enumerate((range(0, rows, 2), range(1, rows, 2))):
        stem = hashlib.md5(f"shard {number}".encode()).hexdigest()
        table = {column: [uid(row) for row in part], "text": [f"text {row}" for row in part], "place": list(part)}
        pq.write_table(pa.table(table), path / f"{stem}.parquet")
    order = np.random.default_rng(0).permutation(np.arange(10, rows)).tolist()
    write_tar(path / "shards/00000.tar", order[:8])
    write_tar(path / "shards/00001.tar", order[8:], together=False)
    write_tar(path / "shards/00002.tar", [*range(10), order[0]], keyed=True)  # one again, which is not looked at
    return path


def kept(out: Path) -> set[str]:
    subset = np.load(out / "subset.npy")
    return {f"{high:016x}{low:016x}" for high, low in subset.tolist()}


def expected(removal: Any = "component") -> set[str]:
    hashes = perceptual_hashes(images())
    judged = np.flatnonzero(hashes.flags == 0)
    rank = np.empty(len(judged), np.int64)
    rank[np.argsort([uid(row) for row in judged])] = np.arange(len(judged))
    found = perceptual_duplicates(hashes.codes[judged], 6, rank, removal)
    return {uid(row) for row in judged[found.kept]}


def test_images_of_a_datacomp_pool_are_found_by_uid(tmp_path: Path) -> None:
    pool = open_pool(write_datacomp(tmp_path / "pool"))
    assert pool.layout == "datacomp"
    assert pool.has_images
    assert needs_index(pool)
    assert sum(shard.image_bytes_to_read((), True) for shard in pool.shards) > 100_000
    with images_at_hand(pool) as indexed:
        assert not needs_index(indexed)
        for shard in indexed.shards:
            for block in shard.blocks(("place",), images=True, block_rows=4):
                assert block.images is not None
                assert list(block.images) == [images()[row] for row in block.columns["place"].to_pylist()]
            places = next(iter(shard.blocks(("place",)))).columns["place"].to_pylist()
            assert shard.images([0, 2]) == {0: images()[places[0]], 2: images()[places[2]]}
    with images_at_hand(pool, 1) as some:
        assert 0 < sum(image is not None for s in some.shards for b in s.blocks(images=True) for image in b.images) < 9
    with pytest.raises(InputError, match="or a datacomp pool with its tars and an index of them"):
        list(pool.shards[0].blocks(images=True))


@pytest.mark.parametrize("processes", [False, True])
def test_a_recipe_over_a_datacomp_pool(tmp_path: Path, processes: bool) -> None:
    pool = write_datacomp(tmp_path / "pool")
    recipe = Recipe(name="r", steps=[PerceptualDedup(radius=6)])
    assert plan(recipe, pool).read.total_bytes > 100_000
    result = run(recipe, pool, tmp_path / "out", processes=processes, workers=2)
    assert kept(tmp_path / "out") == expected()
    ledger = pq.read_table(tmp_path / "out/ledger").to_pydict()
    assert sorted(filter(None, ledger["detail"])) == ["image is unreadable"] + ["no image"] * 5
    assert "index images" in {stage.name for stage in result.manifest.stages}
    assert run(recipe, pool, tmp_path / "out").reused


def test_new_tars_are_looked_at_and_other_columns_stay(tmp_path: Path) -> None:
    path = write_datacomp(tmp_path / "pool")
    late = (path / "shards/00002.tar").read_bytes()
    (path / "shards/00002.tar").unlink()
    recipe = Recipe(name="r", steps=[Threshold(score="place", minimum=0), PerceptualDedup(radius=6)])
    run(recipe, path, tmp_path / "out", processes=False)
    assert len(kept(tmp_path / "out")) < 15
    (path / "shards/00002.tar").write_bytes(late)
    columns = tmp_path / "out/workspace/columns"
    before = {file: file.stat().st_mtime_ns for file in columns.rglob("*.arrow") if "perceptual" not in str(file)}
    assert not run(recipe, path, tmp_path / "out", processes=False).reused
    assert kept(tmp_path / "out") == expected()
    assert before == {file: file.stat().st_mtime_ns for file in before}
    index = tmp_path / "out/workspace/images/uids.bin"
    built = index.stat().st_mtime_ns
    run(Recipe(name="r", steps=[PerceptualDedup(radius=6, hash="dhash")]), path, tmp_path / "out", processes=False)
    assert index.stat().st_mtime_ns == built


def test_damaged_tars_and_pools_without_a_uid_are_named(tmp_path: Path) -> None:
    path = write_datacomp(tmp_path / "pool")
    tar = path / "shards/00001.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    with pytest.raises(PoolError, match=r"shards/00001\.tar: truncated"):
        run(Recipe(name="r", steps=[PerceptualDedup()]), path, tmp_path / "out")
    other = write_datacomp(tmp_path / "other", column="number")
    with pytest.raises(RecipeError, match=r"expected a pool with images, got one of layout datacomp without; open"):
        run(Recipe(name="r", steps=[PerceptualDedup()]), other, tmp_path / "out2")


def write_folder(path: Path) -> Path:
    """The rows that have an image as files of three folders."""
    for row, image in enumerate(images()):
        if image is not None:
            folder = path / ("", "cats", "cats/small")[row % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:02d}.{('jpg', 'JPG', 'jpeg')[row % 2]}").write_bytes(image)
    (path / "notes.md").write_text("no image")
    return path


def test_a_folder_of_images_is_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_folder(tmp_path / "pictures")
    (path / "_hidden").mkdir()
    (path / "_hidden/x.jpg").write_bytes(picture(1))
    pool = open_pool(path)
    assert (pool.layout, pool.rows, pool.uid_source) == ("images", 25, "path")
    assert [shard.name for shard in pool.shards] == ["cats/images-00000", "cats/small/images-00000", "images-00000"]
    assert set(pool.columns) == {"key", "image_bytes", "sha256"}
    found: dict[str, tuple[int, str, bytes]] = {}
    uids = set()
    for shard in pool.shards:
        for block in shard.blocks(("key", "image_bytes", "sha256"), images=True, block_rows=3):
            assert block.uids is not None
            uids |= set(block.uids.tolist())
            columns = [block.columns[name].to_pylist() for name in ("key", "image_bytes", "sha256")]
            for key, size, digest, image in zip(*columns, block.images, strict=True):
                found[key] = size, digest, image
    files = [p for p in path.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg") and "_hidden" not in str(p)]
    assert sorted(found) == sorted(p.relative_to(path).as_posix() for p in files)
    for file in files:
        data = file.read_bytes()
        assert found[file.relative_to(path).as_posix()] == (len(data), hashlib.sha256(data).hexdigest(), data)
    assert len(uids) == 25
    shard = pool.shards[0]
    assert shard.images([1, 0]) == {row: (path / shard.files[row]).read_bytes() for row in (0, 1)}
    before = shard.fingerprint()
    (path / shard.files[0]).write_bytes(picture(500))
    assert shard.fingerprint() != before
    monkeypatch.setattr(image_layout, "PART_IMAGES", 4)
    cut = open_pool(path)
    assert cut.rows == 25
    assert {u for s in cut.shards for b in s.blocks() for u in b.uids.tolist()} == uids  # of places, not of parts
    with pytest.raises(InputError, match="embedding 'x': a pool of image files has none"):
        list(pool.shards[0].blocks((), ("x",)))


def test_a_recipe_over_a_folder_of_images(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "pictures")
    assert plan("dedup-phash10", path).read.total_bytes == sum(len(image or b"") for image in images())
    run(Recipe(name="r", steps=[PerceptualDedup(radius=6)]), path, tmp_path / "out", workers=2)
    assert len(kept(tmp_path / "out")) == len(expected())
    ledger = pq.read_table(tmp_path / "out/ledger").to_pydict()
    assert list(filter(None, ledger["detail"])) == ["image is unreadable"]
    assert doctor(path).rows == 25
    export_parquet(path, tmp_path / "out/subset.npy", tmp_path / "exported")
    parts = [pq.read_table(file) for file in (tmp_path / "exported").rglob("*.parquet")]
    exported = pa.concat_tables(parts).to_pydict()
    assert set(exported["uid"]) == kept(tmp_path / "out")
    assert len(exported["key"]) == len(set(exported["key"])) == len(expected())
    assert all((path / key).is_file() for key in exported["key"])


def test_images_beside_a_table_are_no_rows(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "pool")
    np.save(path / "embedding.npy", np.zeros((3, 2), np.float32))
    assert open_pool(path).layout == "plain"
    assert open_pool(path, layout="images").rows == 25
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match=r"it has no \.parquet, \.npy, \.npz, \.tar or image file"):
        open_pool(tmp_path / "empty")


@pytest.mark.parametrize("kind", ["datacomp", "folder"])
def test_packs_and_decontamination_look_at_images(tmp_path: Path, kind: str) -> None:
    make = write_datacomp if kind == "datacomp" else write_folder
    path = make(tmp_path / "pool")
    (tmp_path / "items").mkdir()
    (tmp_path / "items/a.jpg").write_bytes(picture(3, 3))
    build_pack(tmp_path / "items", tmp_path / "pack")
    report = decontaminate(path, [tmp_path / "pack"], tmp_path / "out", similarity={}, radius=6)
    assert report.removed == 3
    assert len(kept(tmp_path / "out")) == (ROWS if kind == "datacomp" else 25) - 3
    made = build_pack(path, tmp_path / "pool pack")
    assert (tmp_path / "pool pack/phash.npy").exists()
    assert len(np.load(tmp_path / "pool pack/phash.npy")) == (ROWS if kind == "datacomp" else 25)
    assert made is not None


def test_blocks_of_images_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "IMAGE_BLOCK_ROWS", 2)
    pool = open_pool(write_folder(tmp_path / "pictures"))
    assert {block.rows for shard in pool.shards for block in shard.blocks(images=True)} <= {1, 2}
