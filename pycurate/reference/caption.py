"""The definition of the caption kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def count_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """``len(text.split())`` of each text; (n,)."""
    return np.array([len(text.split()) for text in texts], np.float32)
