from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

def hash(
    pixels: NDArray[Any], kind: Literal["phash", "dhash"], bits: Literal[64, 256], dihedral: bool
) -> tuple[NDArray[np.uint64], bool]:
    """(bits / 64,) words, the first bit the highest of word 0, and whether the picture has structure to hash."""

def jpeg_luma(encoded: bytes, least_side: int, max_pixels: int) -> tuple[NDArray[np.uint8], bool] | None:
    """(ceil(h / s), ceil(w / s)) luma of a baseline JPEG, and whether nothing else says how it is shown."""
