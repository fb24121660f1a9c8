from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from pycurate.errors import InputError
from pycurate.kernels.phash import HashBits
from pycurate.ops.dedup import decode as decoding
from pycurate.ops.dedup.decode import ABSENT, TOO_LARGE, UNREADABLE, UNSUPPORTED, decode, quiet
from pycurate.ops.dedup.perceptual import (
    FLAT,
    hash_texts,
    hashes_of_texts,
    perceptual_duplicates,
    perceptual_hashes,
    unjudged_reasons,
)
from pycurate.reference import hamming as reference_hamming
from pycurate.reference import phash as reference
from pycurate.reference import removal as reference_removal


def picture(width: int = 96, height: int = 80, seed: int = 0) -> Image.Image:
    patches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bits_between(x: NDArray[np.uint64], y: NDArray[np.uint64]) -> int:
    return int(reference_hamming.distances(x.reshape(1, -1), y.reshape(1, -1))[0, 0])


def test_pictures_that_cannot_be_judged_are_named_and_cost_nothing() -> None:
    whole = encoded(picture(300, 300), "JPEG")
    images = [
        whole,
        None,
        b"",
        b"not a picture",
        whole[: len(whole) // 2],
        encoded(Image.new("RGB", (40, 40), (3, 200, 100))),
        encoded(picture().convert("F"), "TIFF"),
        encoded(picture(), "PNG")[:200],
    ]
    hashes = perceptual_hashes(iter(images), threads=2)
    assert hashes.flags.tolist() == [0, ABSENT, UNREADABLE, UNREADABLE, UNREADABLE, FLAT, UNSUPPORTED, UNREADABLE]
    assert hashes.codes.shape == (8, 1)
    assert not hashes.codes[1:].any()
    assert unjudged_reasons(hashes.flags).tolist()[:3] == [b"", b"no image", b"image is unreadable"]
    assert unjudged_reasons(hashes.flags)[5:7].tolist() == [b"image is blank", b"image has no colours"]


def test_a_picture_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 1 << 20
    assert decode(bomb, 64) == TOO_LARGE
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    assert decode(encoded(picture()), 64) == TOO_LARGE
    monkeypatch.setattr(decoding, "MAX_ENCODED_BYTES", 100)
    assert decode(encoded(picture()), 64) == TOO_LARGE


@pytest.mark.parametrize("bits", [64, 256])
@pytest.mark.parametrize("kind", ["phash", "dhash"])
def test_hashes_are_those_of_the_pixels(kind: Any, bits: HashBits) -> None:
    images = [picture(seed=seed) for seed in range(5)]
    hashes = perceptual_hashes([encoded(image) for image in images], kind, bits, threads=1)
    for image, code in zip(images, hashes.codes, strict=True):
        np.testing.assert_array_equal(code, reference.picture_hash(np.asarray(image), kind, bits))
    turned = perceptual_hashes(
        [encoded(image.transpose(Image.Transpose.ROTATE_90)) for image in images], kind, bits, dihedral=True
    )
    straight = perceptual_hashes([encoded(image) for image in images], kind, bits, dihedral=True)
    np.testing.assert_array_equal(turned.codes, straight.codes)
    assert (turned.codes != hashes.codes).any()


@pytest.mark.parametrize("threads", [1, 3])
def test_many_pictures_come_in_order(threads: int) -> None:
    data = [encoded(picture(40, 40, seed)) for seed in range(60)]
    data[7] = b"?"
    one = perceptual_hashes(data, threads=1)
    found = perceptual_hashes((image for image in data), threads=threads)
    np.testing.assert_array_equal(found.codes, one.codes)
    np.testing.assert_array_equal(found.flags, one.flags)
    assert found.flags[7] == UNREADABLE
    none = perceptual_hashes([], bits=256, threads=threads)
    assert none.codes.shape == (0, 4)
    assert none.flags.shape == (0,)


def test_every_kind_of_pixels_has_the_hash_of_its_colours() -> None:
    image = picture()
    grey = image.convert("L")
    expected = perceptual_hashes([encoded(image)]).codes[0]
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    same = [
        encoded(grey),
        encoded(deep),
        encoded(image.convert("RGBA")),
        encoded(grey.convert("LA")),
        encoded(image, "BMP"),
        encoded(image, "TIFF"),
        encoded(image, "PPM"),
        encoded(image, "WEBP", lossless=True),
    ]
    for data in same:
        np.testing.assert_array_equal(perceptual_hashes([data]).codes[0], expected)
    near = [
        encoded(image.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"),
        encoded(image.convert("CMYK"), "JPEG", quality=95),
        encoded(image, "JPEG", quality=60),
        encoded(image.resize((300, 250)), "JPEG"),
    ]
    for data in near:
        assert bits_between(perceptual_hashes([data]).codes[0], expected) <= 4
    assert perceptual_hashes([encoded(grey.convert("1"))]).flags[0] == 0


def test_transparent_pixels_lie_over_white() -> None:
    image = picture().convert("RGBA")
    hole = image.copy()
    hole.paste((0, 0, 0, 0), (0, 0, 48, 80))
    over_white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    over_white.alpha_composite(hole)
    found = perceptual_hashes([encoded(hole), encoded(over_white.convert("RGB"))]).codes
    np.testing.assert_array_equal(found[0], found[1])
    clear = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    assert perceptual_hashes([encoded(clear, transparency=0)]).flags[0] == 0


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [picture(seed=seed) for seed in (1, 2)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = perceptual_hashes([moving, encoded(frames[0], "GIF")]).codes
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_says_how_a_picture_is_laid(orientation: int) -> None:
    shown = picture(96, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = shown if back is None else shown.transpose(back)
    found = perceptual_hashes([encoded(stored, "PNG", exif=exif), encoded(shown)]).codes
    np.testing.assert_array_equal(found[0], found[1])
    damaged = encoded(shown, "JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    assert perceptual_hashes([damaged]).flags[0] == 0


def test_warnings_of_others_are_left_as_they_were() -> None:
    before = list(warnings.filters)
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("nobody hears this", stacklevel=1)
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_texts_are_hex_and_come_back() -> None:
    for bits in (64, 256):
        hashes = perceptual_hashes([encoded(picture(seed=s)) for s in range(4)] + [None], bits=bits)  # type: ignore[arg-type]
        texts = hash_texts(hashes)
        assert texts.dtype == f"S{bits // 4}"
        assert texts[4] == b""
        assert int(texts[0][:16], 16) == int(hashes.codes[0, 0])
        np.testing.assert_array_equal(hashes_of_texts(texts[:4]), hashes.codes[:4])
        assert hashes_of_texts(texts[:0]).shape == (0, bits // 64)
    assert hash_texts(perceptual_hashes([])).shape == (0,)


def codes_in_clumps(n: int) -> NDArray[np.uint64]:
    random = np.random.default_rng(n)
    codes = random.integers(0, 2**64, n, dtype=np.uint64)
    for row in range(max(1, n // 4), n):
        codes[row] = codes[random.integers(0, row)] ^ np.uint64(1 << int(random.integers(0, 64)))
    codes[n - n // 10 :] = codes[: n // 10]
    return codes


@pytest.mark.parametrize("removal", ["component", "greedy", "published"])
@pytest.mark.parametrize("n", [0, 1, 40, 160])
def test_duplicates_are_those_of_the_definitions(n: int, removal: Any) -> None:
    codes = codes_in_clumps(n)
    rank = np.random.default_rng(1).permutation(n)
    for radius in (0, 1, 3):
        distances = reference_hamming.distances(codes.reshape(-1, 1), codes.reshape(-1, 1))
        similarity = (1 - distances / 64).astype(np.float32)
        threshold = float(np.float32(1 - radius / 64))
        found = perceptual_duplicates(codes, radius, rank, removal)
        if removal == "greedy":
            copy_of = reference_hamming.copies(codes.reshape(-1, 1))
            expected = reference_removal.greedy(similarity, rank, threshold, False, copy_of)
        else:
            expected = getattr(reference_removal, removal)(similarity, rank, threshold, False)
        np.testing.assert_array_equal(found.duplicate_of, expected[0])
        np.testing.assert_array_equal(found.similarity, expected[1])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind: expected 'phash' or 'dhash', got 'ahash'"):
        perceptual_hashes([], "ahash")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bits: expected 64 or 256, got 128"):
        perceptual_hashes([], bits=128)  # type: ignore[arg-type]
    codes = np.zeros(3, np.uint64)
    with pytest.raises(ValueError, match="removal: expected"):
        perceptual_duplicates(codes, 1, np.arange(3), "all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"max_pairs: .* or remove by component or published"):
        perceptual_duplicates(np.arange(40, dtype=np.uint64), 6, np.arange(40), "greedy", max_pairs=10)


def full_size_hash(data: bytes) -> NDArray[np.uint64]:
    with Image.open(io.BytesIO(data)) as image:
        return reference.words_of(reference.textbook_bits(np.asarray(image.convert("RGB"))))


def test_real_photographs_agree_with_the_textbook_at_full_size(shared_data: Path) -> None:
    files = sorted((shared_data / "imagenet_sample/images").iterdir())
    data = [path.read_bytes() for path in files]
    hashes = perceptual_hashes(data)
    assert not hashes.flags.any()
    apart = np.array([bits_between(code, full_size_hash(d)) for code, d in zip(hashes.codes, data, strict=True)])
    assert len(apart) == 500
    assert (apart <= 2).mean() >= 0.95
    assert apart.max() <= 6


def test_files_of_all_sorts_are_decoded_but_the_two_that_are_damaged(shared_data: Path) -> None:
    root = shared_data / "imagededup_tests/tests/data"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    hashes = perceptual_hashes(path.read_bytes() for path in files)
    named = {path.relative_to(root).as_posix(): code for path, code in zip(files, hashes.codes[:, 0], strict=True)}
    assert len(files) == 34
    bad = [path.name for path, flag in zip(files, hashes.flags, strict=True) if flag]
    assert bad == ["ukbench09268_corrupt.jpg"] * 2
    formats = {code for name, code in named.items() if name.startswith("formats_images/ukbench09380.")}
    assert len(formats) == 1
    original = named["base_images/ukbench00120.jpg"]
    for name in ("ukbench00120_gray.jpg", "mixed_images/ukbench00120_resize.jpg", "alpha_channel_image.png"):
        assert int(named[name] ^ original).bit_count() <= 4
    flipped = [root / "base_images/ukbench00120.jpg", root / "mixed_images/ukbench00120_hflip.jpg"]
    ways = perceptual_hashes((path.read_bytes() for path in flipped), dihedral=True).codes
    assert bits_between(*ways) <= 4


def test_difference_hashes_of_altered_copies(shared_data: Path) -> None:
    folder = shared_data / "clip_neardup_groups"
    meta = pq.read_table(folder / "meta.parquet").to_pydict()
    hashes = perceptual_hashes(((folder / "images" / Path(name).name).read_bytes() for name in meta["file"]), "dhash")
    rows, cols, _ = reference_hamming.pairs_within(hashes.codes, 10)
    same = np.array(meta["group"])[rows] == np.array(meta["group"])[cols]
    assert same.mean() >= 0.985  # imagehash 0.988
    assert same.sum() / 2750 >= 0.18  # imagehash 0.186
