"""Shape of an image from its width and height, as the DataComp and ALIGN rules read it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shortest_side(width: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smaller of width and height in pixels, (n,) float64; NaN where either is missing."""
    return np.minimum(width, height)


def aspect_ratio(width: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longer side over shorter side, (n,) float64 >= 1 for real images; NaN where a size is missing.

    The quotient of float64 numbers, as pandas computes it for integer columns. A side of 0 gives infinity, also when
    both are 0: such an image is outside every bound, which is how a comparison with pandas' NaN drops it too.
    """
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    ratio = np.full(len(shorter), np.inf)
    np.divide(longer, shorter, out=ratio, where=shorter != 0)
    return ratio
