"""The reader of baseline JPEGs against libjpeg-turbo, through Pillow: the same pixels, or none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from pycurate.kernels.phash import jpeg_luma
from pycurate.ops.dedup import decode as decoding
from pycurate.ops.dedup.decode import decode

pytestmark = pytest.mark.skipif(
    not features.check_feature("libjpeg_turbo"), reason="this Pillow decodes with another library than libjpeg-turbo"
)

MANY = 1 << 30


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng([height, width, seed])
    patches = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray(np.clip(smooth + random.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def theirs(encoded: bytes, least_side: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded)) as image:
        image.draft("L", (least_side, least_side))
        return np.asarray(image)


def require_same(encoded: bytes, least_side: int, what: object) -> None:
    read = jpeg_luma(encoded, least_side, MANY)
    assert read is not None, what
    np.testing.assert_array_equal(read.luma, theirs(encoded, least_side), err_msg=str(what))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_pixels_are_those_of_the_library(subsampling: str, quality: int) -> None:
    for number, (height, width) in enumerate([(16, 16), (17, 33), (41, 64), (80, 23), (129, 200)]):
        image = photograph(height, width, quality)
        options: dict[str, Any] = {"quality": quality, "optimize": number % 2 == 1}
        if subsampling == "grey":
            image = image.convert("L")
        else:
            options["subsampling"] = subsampling
        if number % 3 == 2:
            options["restart_marker_blocks"] = 3
        encoded = jpeg(image, **options)
        for scale in (2, 4, 8):
            require_same(encoded, min(height, width) // scale, (height, width, scale))


@pytest.mark.parametrize("rows", [0, 1])
def test_restart_markers_by_rows(rows: int) -> None:
    encoded = jpeg(photograph(100, 90), restart_marker_rows=rows)
    assert (b"\xff\xd0" in encoded) == bool(rows)
    require_same(encoded, 20, rows)


def test_black_white_and_flat_pictures() -> None:
    checks = (np.indices((64, 80)).sum(0) % 2 * 255).astype(np.uint8)
    large_checks = checks[:8, :10].repeat(8, 0).repeat(8, 1)
    read_files = 0
    for pixels in (checks, np.zeros_like(checks), np.full_like(checks, 255), large_checks):
        for quality in (20, 100):
            encoded = jpeg(Image.fromarray(pixels), quality=quality)
            for least_side in (32, 16, 8):
                read = jpeg_luma(encoded, least_side, MANY)
                if read is not None:  # sums out of range are for the library
                    np.testing.assert_array_equal(read.luma, theirs(encoded, least_side))
                    read_files += 1
    assert read_files >= 18


def test_what_is_left_to_the_library() -> None:
    image = photograph(64, 64)
    whole = jpeg(image)
    assert jpeg_luma(whole, 32, MANY) is not None
    left = {
        "progressive": jpeg(image, progressive=True),
        "cmyk": jpeg(image.convert("CMYK")),
        "rgb": jpeg(image, keep_rgb=True),
        "cut": whole[:-2],
        "trailing marker": whole[:-2] + b"\xff\xfe\x00\x02\xff\xd9",
        "png": b"\x89PNG\r\n\x1a\n" + whole,
        "nothing": b"",
        "filled": whole.replace(b"\xff\xdb", b"\xff\xff\xdb"),
        "sixteen bits": whole.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    }
    assert all(data != whole for data in left.values())
    assert {name: jpeg_luma(data, 32, MANY) for name, data in left.items()} == dict.fromkeys(left)
    assert jpeg_luma(whole, 33, MANY) is None  # in full size
    assert jpeg_luma(whole, 32, 64 * 64 - 1) is None
    assert jpeg_luma(whole + b"anything after it", 32, MANY) is not None
    with pytest.raises(ValueError, match="least_side: expected at least 1, got 0"):
        jpeg_luma(whole, 0, MANY)


def test_metadata_are_noticed() -> None:
    image = photograph(64, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    for encoded, is_plain in (
        (jpeg(image), True),
        (jpeg(image, comment="a comment"), True),
        (jpeg(image, exif=exif), False),
        (jpeg(image, icc_profile=b"p" * 200), False),
    ):
        read = jpeg_luma(encoded, 16, MANY)
        assert read is not None
        assert read.is_plain == is_plain


def decoded_twice(encoded: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """With this reader and without it."""
    mine = decode(encoded, 16)
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "_has_libjpeg_turbo", lambda: False)
        return mine, decode(encoded, 16)


@pytest.mark.parametrize("orientation", [None, *range(10)])
def test_orientation_is_applied_as_without_it(orientation: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    mine, other = decoded_twice(jpeg(photograph(70, 90), exif=exif), monkeypatch)
    np.testing.assert_array_equal(mine, other)


def test_damaged_files_are_what_the_library_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    whole = [
        jpeg(photograph(48, 64, seed), quality=80, subsampling=subsampling, restart_marker_blocks=restart)
        for seed, (subsampling, restart) in enumerate([("4:2:0", 0), ("4:4:4", 2), ("4:2:2", 0)])
    ]
    read = 0
    for number in range(3000):
        data = bytearray(whole[number % 3])
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(data) if number % 2 else 700))
            if number % 5 == 0:
                del data[place]
            else:
                data[place] = random.integers(256) if number % 3 else data[place] ^ 1 << random.integers(8)
        mine, other = decoded_twice(bytes(data), monkeypatch)
        np.testing.assert_array_equal(mine, other, err_msg=str(number))
        read += jpeg_luma(bytes(data), 16, MANY) is not None
    assert 100 < read < 2900  # some changes are of values, some of what a file is


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_real_photographs(shared_data: Path, scale: int) -> None:
    paths = sorted((shared_data / "imagenet_sample/images").iterdir())
    assert len(paths) >= 500
    for path in paths:
        encoded = path.read_bytes()
        with Image.open(path) as image:
            least_side = min(image.size) // scale
        require_same(encoded, least_side, path.name)


def test_real_files_of_all_sorts(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    for path in sorted((shared_data / "imagededup_tests/tests/data").rglob("*")):
        if path.is_file():
            mine, other = decoded_twice(path.read_bytes(), monkeypatch)
            np.testing.assert_array_equal(mine, other, err_msg=path.name)
            read += jpeg_luma(path.read_bytes(), 16, MANY) is not None
    assert read >= 10
