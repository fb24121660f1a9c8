"""Pictures of unknown origin, decoded at reduced scale for a perceptual hash: pixels, or why there are none."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.phash import jpeg_luma

if TYPE_CHECKING:
    from PIL import Image

MAX_ENCODED_BYTES = 64 << 20
MAX_PIXELS = 64_000_000  # 256 MB once decoded; a bomb announces more in its header
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

ABSENT, UNREADABLE, TOO_LARGE, UNSUPPORTED = 1, 2, 4, 8

_GREY_AT_ONCE = 1 << 22  # pixels from which Pillow makes RGB grey, to the same bits, before it is copied
_ORIENTATION = 0x0112
_quiet_lock = threading.Lock()
_quiet: list[Any] = []  # the filters to restore, and how many callers want quiet


def decode(encoded: bytes | None, least_side: int) -> NDArray[np.uint8] | int:
    """The pixels of an encoded picture as they are shown, at reduced scale where the format offers one.

    JPEGs are decoded at 1/2, 1/4 or 1/8 as long as both sides keep ``least_side`` pixels, and their luma alone;
    baseline ones by `jpeg_luma`, to the pixels that Pillow gives. Of an animation the first frame counts. The
    orientation that EXIF gives is applied, as browsers do. Pixels of 16 bits keep their upper 8. The size is judged
    from the header, before anything is decoded.

    Parameters
    ----------
    encoded
        A JPEG, PNG, WebP, GIF, BMP, TIFF, PBM, PGM, PPM or, where Pillow has it, AVIF file. None: there is no picture.
    least_side
        Pixels.

    Returns
    -------
    (h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA uint8, or the reason why not: ``ABSENT``; ``UNREADABLE``, no picture
    or a damaged or cut one; ``TOO_LARGE``, over 64 MiB or 64 million pixels; ``UNSUPPORTED``, pixels that are no
    colours, such as floats. Never raises on bad bytes.
    """
    from PIL import Image  # here: most recipes look at no picture

    if encoded is None:
        return ABSENT
    if len(encoded) > MAX_ENCODED_BYTES:
        return TOO_LARGE
    read = jpeg_luma(encoded, least_side, MAX_PIXELS) if _has_libjpeg_turbo() else None
    if read is not None and read.is_plain:
        return read.luma
    try:
        with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                return TOO_LARGE
            image.draft("L", (least_side, least_side))
            if read is not None and image.format == "JPEG" and image.size == read.luma.shape[::-1]:
                orientation = _orientation(image)
                return np.asarray(_laid(Image.fromarray(read.luma), orientation)) if orientation else read.luma
            return _pixels(image)
    except Image.DecompressionBombError:
        return TOO_LARGE
    except MemoryError:
        raise
    except Exception:  # decoders raise nearly anything on bytes made to harm
        return UNREADABLE


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of Pillow, which warns of large pictures and odd metadata, until the last of several callers leaves.

    Filters of warnings belong to the process: threads that saved and restored them on their own would leave those of
    another for good.
    """
    with _quiet_lock:
        if not _quiet:
            catching = warnings.catch_warnings()
            catching.__enter__()
            warnings.simplefilter("ignore")
            _quiet.append(catching)
        _quiet.append(None)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet.pop()
            if len(_quiet) == 1:
                _quiet.pop().__exit__(None, None, None)


def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with; only these decoders are tried on bytes of unknown origin."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def _has_libjpeg_turbo() -> bool:
    """Whether Pillow decodes with it; libjpeg from version 7 on has other pixels at reduced scale."""
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def _pixels(image: Image.Image) -> NDArray[np.uint8] | int:
    image.load()
    image = _laid(image, _orientation(image))
    if image.mode.startswith("I;16"):
        upper: NDArray[np.uint8] = (np.asarray(image) >> 8).astype(np.uint8)
        return upper
    if image.mode in ("I", "F"):
        return UNSUPPORTED
    if image.mode in ("PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "1" or (image.mode == "RGB" and image.width * image.height >= _GREY_AT_ONCE):
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.asarray(image)


def _orientation(image: Image.Image) -> int | None:
    """How its EXIF says that the picture is to be laid; None as stored, and for TIFFs, which Pillow lays itself."""
    if "exif" not in image.info or image.format == "TIFF":
        return None
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata are no reason to lose the picture
        return None
    return orientation if orientation in range(2, 9) else None


def _laid(image: Image.Image, orientation: int | None) -> Image.Image:
    from PIL import Image

    if orientation is None:
        return image
    turns = Image.Transpose
    turn = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    return image.transpose(turn[orientation])
