"""Small pictures for the demo pool, drawn by code: one topic in one colour before a plain landscape."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageDraw

from pycurate.demo.captions import COLOURS, TOPICS

SIZE = 96
VARIANTS = 3
_PAINT = {
    "red": (200, 44, 48),
    "orange": (236, 132, 36),
    "yellow": (240, 200, 60),
    "green": (56, 150, 84),
    "blue": (50, 104, 190),
    "purple": (128, 76, 170),
}
_SKY = (((226, 238, 246), (250, 246, 234)), ((246, 226, 208), (252, 244, 232)), ((40, 48, 72), (110, 118, 146)))
_Paint = tuple[int, int, int]


def _sun(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    for box in ((46, 12, 50, 84), (12, 46, 84, 50)):
        draw.rectangle(box, fill=paint)
    draw.line((22, 22, 74, 74), fill=paint, width=4)
    draw.line((22, 74, 74, 22), fill=paint, width=4)
    draw.ellipse((28, 28, 68, 68), fill=paint)


def _moon(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    points = [(60, 16), (36, 24), (26, 46), (34, 68), (56, 80), (72, 72), (54, 64), (46, 48), (50, 30)]
    draw.polygon(points, fill=paint)


def _star(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.polygon(
        [(48, 12), (57, 38), (84, 38), (62, 54), (70, 82), (48, 64), (26, 82), (34, 54), (12, 38), (39, 38)], fill=paint
    )


def _mountain(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.polygon([(6, 82), (40, 20), (58, 52), (66, 40), (90, 82)], fill=paint)
    draw.polygon([(40, 20), (33, 33), (40, 38), (47, 33)], fill=(250, 250, 250))


def _house(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.rectangle((26, 46, 70, 82), fill=paint)
    draw.polygon([(18, 46), (48, 18), (78, 46)], fill=(96, 72, 60))
    draw.rectangle((42, 60, 54, 82), fill=(250, 244, 230))


def _tree(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.rectangle((44, 58, 52, 84), fill=(110, 80, 56))
    for box in ((24, 34, 56, 66), (40, 34, 72, 66), (32, 14, 64, 48)):
        draw.ellipse(box, fill=paint)


def _flower(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.rectangle((46, 46, 50, 86), fill=(70, 130, 70))
    for x, y in ((48, 22), (64, 34), (58, 54), (38, 54), (32, 34)):
        draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=paint)
    draw.ellipse((40, 32, 56, 48), fill=(250, 236, 170))


def _boat(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.polygon([(12, 62), (84, 62), (70, 80), (26, 80)], fill=paint)
    draw.polygon([(46, 12), (46, 58), (18, 58)], fill=(248, 246, 240))
    draw.polygon([(52, 22), (52, 58), (76, 58)], fill=(222, 222, 216))


def _fish(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.ellipse((14, 30, 68, 68), fill=paint)
    draw.polygon([(62, 49), (86, 30), (86, 68)], fill=paint)
    draw.ellipse((26, 42, 33, 49), fill=(250, 250, 250))


def _balloon(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.line((48, 62, 44, 90), fill=(120, 120, 120), width=2)
    draw.ellipse((28, 10, 68, 60), fill=paint)
    draw.polygon([(48, 58), (43, 66), (53, 66)], fill=paint)


def _heart(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.ellipse((16, 20, 50, 54), fill=paint)
    draw.ellipse((46, 20, 80, 54), fill=paint)
    draw.polygon([(19, 46), (77, 46), (48, 82)], fill=paint)


def _umbrella(draw: ImageDraw.ImageDraw, paint: _Paint) -> None:
    draw.line((48, 46, 48, 84), fill=(90, 90, 90), width=4)
    draw.arc((36, 74, 50, 90), 0, 180, fill=(90, 90, 90), width=4)
    draw.pieslice((12, 14, 84, 86), 180, 360, fill=paint)


_SHAPES = (_sun, _moon, _star, _mountain, _house, _tree, _flower, _boat, _fish, _balloon, _heart, _umbrella)
assert len(_SHAPES) == len(TOPICS)


@cache
def _drawing(topic: int, colour: int, variant: int) -> bytes:
    top, bottom = _SKY[variant]
    image = Image.new("RGB", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    for y in range(SIZE):
        mix = [a + (b - a) * y // SIZE for a, b in zip(top, bottom, strict=True)]
        draw.line((0, y, SIZE, y), fill=(mix[0], mix[1], mix[2]))
    _SHAPES[topic](draw, _PAINT[COLOURS[colour]])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=78)
    return buffer.getvalue()


def jpeg(topic: int, colour: int, variant: int, comment: bytes) -> bytes:
    """An encoded picture; ``comment`` (at most 65,533 bytes) goes into it, so that other comments give other bytes."""
    data = _drawing(topic, colour, variant)
    head = 4 + int.from_bytes(data[4:6], "big")  # the comment follows the JFIF segment, which must come first
    return data[:head] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[head:]
