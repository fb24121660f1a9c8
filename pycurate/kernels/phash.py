"""Perceptual hashes of decoded pictures; ``pycurate.reference.phash`` defines them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate._core import phash as _phash
from pycurate.kernels.arrays import kind as kind_of

HashKind: TypeAlias = Literal["phash", "dhash"]
HashBits: TypeAlias = Literal[64, 256]

__all__ = ["HashBits", "HashKind", "JpegLuma", "jpeg_luma", "picture_hash"]


def picture_hash(
    pixels: NDArray[np.uint8], kind: HashKind = "phash", bits: HashBits = 64, *, dihedral: bool = False
) -> NDArray[np.uint64] | None:
    """The perceptual hash of one decoded picture.

    Parameters
    ----------
    pixels
        (h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA uint8, laid over white; the pixels of a row adjacent, rows any
        stride apart. Nothing is copied.
    kind
        ``"phash"``: signs of the lowest coefficients of a DCT against their median; ``"dhash"``: whether the picture
        grows brighter to the right.
    bits
        64 or 256.
    dihedral
        True: the smallest of the hashes of the eight ways to lay the picture, so that turned and mirrored pictures have
        the same hash.

    Returns
    -------
    (bits / 64,) uint64, the first bit the highest of word 0, the same on every instruction set; None where the picture
    has no structure to hash, because its cells differ by less than one grey level.

    Raises
    ------
    TypeError, ValueError
        ``pixels``, ``kind`` or ``bits`` is not as above.
    """
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"pixels: expected a NumPy array of uint8, got {kind_of(pixels)}; pass numpy.asarray(pixels)")
    array: NDArray[Any] = pixels
    words, structured = _phash.hash(array, kind, bits, dihedral)
    return words if structured else None


class JpegLuma(NamedTuple):
    """The brightness of a JPEG at reduced scale."""

    luma: NDArray[np.uint8]  # (ceil(h / s), ceil(w / s)), as stored: no orientation is applied
    is_plain: bool  # no metadata, such as an orientation, go with the picture


def jpeg_luma(encoded: bytes, least_side: int, max_pixels: int) -> JpegLuma | None:
    """The luma of a JPEG at 1/2, 1/4 or 1/8, bit for bit as libjpeg-turbo decodes it, in 0.55 of the time.

    Read are files of one whole baseline scan, Huffman coded, of 8-bit samples: grey ones, and those of Y, Cb and Cr
    with Y in full. What is odd in any way, let alone damaged, is left to the library that says what it is.

    Parameters
    ----------
    encoded
        The file, of any content.
    least_side
        At least 1: of the scales at which both sides keep so many pixels the smallest is taken, as ``Image.draft`` of
        Pillow does.
    max_pixels
        A picture of more is not read.

    Returns
    -------
    JpegLuma, or None where the file is not read, or would be in full size.

    Raises
    ------
    TypeError, ValueError
        An argument is not as above.
    """
    found = _phash.jpeg_luma(encoded, least_side, max_pixels)
    return None if found is None else JpegLuma(*found)
