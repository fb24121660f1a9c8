from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pycurate import Recipe, open_pool, plan, run
from pycurate.errors import InputError, RecipeError
from pycurate.ops.dedup.perceptual import hash_texts, perceptual_duplicates, perceptual_hashes
from pycurate.steps import ImageHash, PerceptualDedup, Threshold

KEY_ROWS = 12


def picture(seed: int, shade: int = 0, size: tuple[int, int] = (64, 64)) -> bytes:
    patches = np.random.default_rng(seed).integers(20, 230, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize((64, 64), Image.Resampling.BICUBIC)
    pixels = np.asarray(image.resize(size)).astype(int) + shade
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def images() -> list[bytes | None]:
    """24 rows: twelve pictures, some again in another size or shade, one damaged, one blank, one that is not there."""
    blank = io.BytesIO()
    Image.new("RGB", (32, 32), (255, 255, 255)).save(blank, "PNG")
    found: list[bytes | None] = [picture(seed) for seed in range(12)]
    found += [picture(0, 8), picture(1, 0, (90, 90)), picture(0, -6, (120, 100)), picture(40), picture(41)]
    found += [blank.getvalue(), b"broken", None, picture(40, 5), picture(42), picture(43), picture(1, 4)]
    return found


def write_pool(path: Path, order: list[int] | None = None) -> Path:
    """img2dataset shards of twelve rows; row i of `images` has uid i."""
    path.mkdir()
    all_images = images()
    rows = order or list(range(len(all_images)))
    for shard in range(0, len(rows), KEY_ROWS):
        part = rows[shard : shard + KEY_ROWS]
        keys = [f"{shard // KEY_ROWS:05d}{place:04d}" for place in range(len(part))]
        table = {
            "uid": [f"{row:032x}" for row in part],
            "key": keys,
            "status": ["success" if all_images[row] is not None else "failed_to_download" for row in part],
            "caption": [f"picture {row}" for row in part],
            "score": [float(row) for row in part],
        }
        pq.write_table(pa.table(table), path / f"{shard // KEY_ROWS:05d}.parquet")
        with tarfile.open(path / f"{shard // KEY_ROWS:05d}.tar", "w") as tar:
            for key, row in zip(keys, part, strict=True):
                for extension, data in (("jpg", all_images[row]), ("txt", b"a caption")):
                    if data is not None:
                        member = tarfile.TarInfo(f"{key}.{extension}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return path


def kept(out: Path) -> list[int]:
    return np.load(out / "subset.npy")["f1"].tolist()


def expected(radius: int, removal: Any, reverse: bool = False) -> list[int]:
    hashes = perceptual_hashes(images())
    judged = np.flatnonzero(hashes.flags == 0)
    rank = np.arange(len(judged))[::-1] if reverse else np.arange(len(judged))
    found = perceptual_duplicates(hashes.codes[judged], radius, np.ascontiguousarray(rank), removal)
    return judged[found.kept].tolist()


def test_blocks_carry_images_in_the_order_of_rows(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path / "pool"))
    for block_rows in (5, 100):
        blocks = [b for shard in pool.shards for b in shard.blocks(("caption",), images=True, block_rows=block_rows)]
        assert all(block.images is not None for block in blocks)
        found = [image for block in blocks for image in block.images or ()]
        assert found == images()
        assert [image for block in blocks for image in block.images or ()] == images()  # and again
    assert next(iter(pool.shards[0].blocks(("caption",)))).images is None
    sizes = [(tmp_path / "pool" / f"{number:05d}.tar").stat().st_size for number in range(2)]
    assert [shard.image_bytes_to_read((), True) for shard in pool.shards] == sizes
    assert [shard.image_bytes_to_read(()) for shard in pool.shards] == [0, 0]


def test_a_pool_without_tars_is_refused_in_a_sentence(pool_factory: Any, tmp_path: Path) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path / "pool", rows=5))
    with pytest.raises(
        InputError, match=r"images: shard .* has no tar of images; open the folder that img2dataset wrote"
    ):
        list(pool.shards[0].blocks((), images=True))
    with pytest.raises(
        RecipeError, match=r"step 'perceptual_dedup': expected a pool with images, got one of layout datacomp"
    ):
        run(Recipe(name="r", steps=[PerceptualDedup()]), pool, tmp_path / "out")


@pytest.mark.parametrize("removal", ["component", "greedy", "published"])
def test_one_of_each_group_survives(tmp_path: Path, removal: Any) -> None:
    recipe = Recipe(name="r", steps=[PerceptualDedup(radius=6, removal=removal)])
    run(recipe, write_pool(tmp_path / "pool"), tmp_path / "out", processes=False)
    assert kept(tmp_path / "out") == expected(6, removal)
    assert not {12, 13, 14, 20, 23} & set(kept(tmp_path / "out"))
    ledger = pq.read_table(tmp_path / "out/ledger").to_pydict()
    reasons = dict(
        zip(ledger["uid"], zip(ledger["rule"], ledger["detail"], ledger["partner_uid"], strict=True), strict=True)
    )
    assert reasons[f"{13:032x}"] == ("perceptual_dedup", None, f"{1:032x}")
    for row, why in ((17, "image is blank"), (18, "image is unreadable"), (19, "no image")):
        assert reasons[f"{row:032x}"][:2] == ("perceptual_dedup.unjudged", why)


def test_shards_processes_and_blocks_change_nothing(tmp_path: Path) -> None:
    recipe = Recipe(name="r", steps=[PerceptualDedup(radius=6, unjudged="keep")])
    run(recipe, write_pool(tmp_path / "pool"), tmp_path / "one", processes=False)
    shuffled = np.random.default_rng(0).permutation(24).tolist()
    run(recipe, write_pool(tmp_path / "other", shuffled), tmp_path / "two", processes=True, workers=2)
    assert kept(tmp_path / "one") == kept(tmp_path / "two")
    assert {17, 18, 19} <= set(kept(tmp_path / "one"))


def test_the_highest_score_survives_and_dropped_rows_take_no_part(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path / "pool"))
    highest = Recipe(name="r", steps=[PerceptualDedup(radius=6, keep={"highest": "score"})])
    run(highest, pool, tmp_path / "out", processes=False)
    assert kept(tmp_path / "out") == expected(6, "component", reverse=True)
    after = Recipe(name="r", steps=[Threshold(score="score", minimum=1), PerceptualDedup(radius=6)])
    run(after, pool, tmp_path / "out2", processes=False)
    assert 12 in kept(tmp_path / "out2")  # in row 0's place


def test_a_new_radius_reads_no_image_and_hashes_are_columns(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path / "pool"))
    run(Recipe(name="r", steps=[PerceptualDedup(radius=2)]), pool, tmp_path / "out", processes=False)
    second = Recipe(name="r", steps=[PerceptualDedup(radius=6)])
    planned = plan(second, pool, out=tmp_path / "out")
    assert planned.read.left_bytes == 0
    run(second, pool, tmp_path / "out", processes=False)
    assert kept(tmp_path / "out") == expected(6, "component")


def block_of(make: Any, data: list[bytes | None]) -> Any:
    return replace(make(v=list(range(len(data)))), images=data)


@pytest.mark.parametrize(("kind", "bits"), [("phash", 64), ("dhash", 256)])
def test_image_hash_makes_a_column_of_hex(block: Any, kind: Any, bits: Any) -> None:
    step = ImageHash(hash=kind, bits=bits, as_="looks")
    made = step.score(block_of(block, images()))
    hashes = perceptual_hashes(images(), kind, bits)
    assert step.produces() == ("looks", "looks.flags")
    np.testing.assert_array_equal(made["looks"], hash_texts(hashes))
    np.testing.assert_array_equal(made["looks.flags"], hashes.flags)
    assert ImageHash(name="mine").produces() == ("mine", "mine.flags")


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(RecipeError, match="radius: expected at most 64, the bits of a hash, got 65"):
        PerceptualDedup(radius=65)
    assert PerceptualDedup(radius=65, bits=256).least_similarity == 1 - 65 / 256
    with pytest.raises(RecipeError, match="bits: expected 64 or 256, got 128"):
        PerceptualDedup(bits=128)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="hash: expected 'phash' or 'dhash', got 'ahash'"):
        ImageHash(hash="ahash")  # type: ignore[arg-type]
    assert Recipe.load("dedup-phash10").steps[0] == PerceptualDedup(radius=10, name="perceptual_dedup")
    step = PerceptualDedup(name="p")
    assert step.score_parameters() == {"hash": "phash", "bits": 64, "dihedral": False}
    assert step._block_size(64 << 20) == (171_196, 524_288)
    assert step._block_size(0)[0] == 1024
    assert PerceptualDedup(removal="greedy")._block_size(64 << 20) == (85_598, 524_288)


def test_real_photographs_in_a_recipe(real_img2dataset_pool: Path, tmp_path: Path) -> None:
    run("dedup-phash10", real_img2dataset_pool, tmp_path / "out", workers=2)
    ledger = pq.read_table(tmp_path / "out/ledger").to_pydict()
    assert ledger["rule"].count("perceptual_dedup.unjudged") == 42  # the downloads that failed
    assert ledger["detail"].count("no image") == 42
    removed = [s for s, rule in zip(ledger["value"], ledger["rule"], strict=True) if rule == "perceptual_dedup"]
    assert 0 < len(removed) < 400
    assert min(removed) >= np.float32(1 - 10 / 64)
    assert len(kept(tmp_path / "out")) == 2100 - 42 - len(removed)
