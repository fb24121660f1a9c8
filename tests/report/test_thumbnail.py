from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from pycurate.report.thumbnail import MAX_ENCODED_BYTES, thumbnail


def encode(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def decode(shown):
    assert set(shown) == {"image"}
    image = Image.open(io.BytesIO(base64.b64decode(shown["image"], validate=True)))
    assert image.format == "JPEG"
    return image


def png_header(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_thumbnails_fit_and_keep_shape_and_colour(kind):
    image = decode(thumbnail(encode(Image.new("RGB", (800, 400), (200, 30, 30)), kind)))
    assert image.size == (160, 80)
    red, green, blue = image.getpixel((80, 40))
    assert red > 180
    assert max(green, blue) < 60


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16", "CMYK"])
def test_every_common_mode_is_shown(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(thumbnail(encode(Image.new(mode, (40, 30)), kind))).size == (40, 30)


def test_transparent_parts_are_white():
    image = decode(thumbnail(encode(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), "PNG")))
    assert min(image.getpixel((20, 15))) > 250


@pytest.mark.parametrize(
    ("width", "height", "note"),
    [
        (9000, 9000, "not decoded: 9,000 x 9,000 pixels"),
        (12_000, 12_000, "not decoded: 12,000 x 12,000 pixels"),
        (60_000, 60_000, "not decoded: too many pixels"),
    ],
)
def test_a_bomb_is_known_by_its_header(width, height, note):
    assert thumbnail(png_header(width, height)) == {"image_note": note}


@pytest.mark.parametrize(
    "encoded",
    [b"", b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", png_header(100, 100)[:40]],
)
def test_unreadable_bytes_give_a_note(encoded):
    shown = thumbnail(encoded)
    assert set(shown) == {"image_note"}
    assert shown["image_note"].startswith("unreadable picture (")


def test_a_truncated_jpeg_gives_a_note_and_no_error():
    whole = encode(Image.effect_noise((300, 300), 80), "JPEG")
    assert thumbnail(whole[: len(whole) // 2])["image_note"].startswith("unreadable picture (")


def test_a_huge_file_is_not_opened():
    assert thumbnail(b"\xff\xd8" + bytes(MAX_ENCODED_BYTES)) == {"image_note": "not decoded: 33,554,434 bytes"}
