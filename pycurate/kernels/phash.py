"""Perceptual hashes of decoded pictures; ``pycurate.reference.phash`` defines them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate._core import phash as _phash
from pycurate.kernels.arrays import kind as kind_of

HashKind: TypeAlias = Literal["phash", "dhash"]
HashBits: TypeAlias = Literal[64, 256]

__all__ = ["HashBits", "HashKind", "picture_hash"]


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
