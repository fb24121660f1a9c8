"""Small pictures for the report from encoded bytes of unknown origin."""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE = 160
MAX_ENCODED_BYTES = 32 << 20
MAX_PIXELS = 64_000_000  # 192 MB once decoded; a bomb announces more in its header
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def thumbnail(encoded: bytes) -> dict[str, str]:
    """A thumbnail of at most 160 x 160 pixels, as the fields of an ``ExampleRow``.

    Parameters
    ----------
    encoded : bytes
        A picture file: JPEG, PNG, WebP, GIF (first frame), BMP or TIFF. Its size is judged from the header, before
        anything is decoded.

    Returns
    -------
    dict
        ``{"image": base64 JPEG}`` or, where there is nothing to show, ``{"image_note": why}``. Never raises on bad
        bytes: a picture that cannot be read must not cost the report.
    """
    from PIL import Image  # here: most pools have no pictures beside them

    if len(encoded) > MAX_ENCODED_BYTES:
        return {"image_note": f"not decoded: {len(encoded):,} bytes"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata; both are handled here
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    return {"image_note": f"not decoded: {width:,} x {height:,} pixels"}
                return {"image": base64.b64encode(_jpeg(image)).decode()}
    except Image.DecompressionBombError:
        return {"image_note": "not decoded: too many pixels"}
    except Exception as error:  # decoders raise nearly anything on bytes made to harm
        return {"image_note": f"unreadable picture ({type(error).__name__})"}


def _jpeg(image: Image.Image) -> bytes:
    from PIL import Image

    image.draft("RGB", (2 * MAX_SIDE, 2 * MAX_SIDE))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    shown = Image.new("RGB", image.size, (255, 255, 255))
    layer = image.convert("RGBA")
    shown.paste(layer, mask=layer.getchannel("A"))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
