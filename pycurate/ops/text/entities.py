"""Captions that name an entity of a list: the DataComp text-based baseline's second rule (Gadre et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

UNKNOWN = 2
"""The value of a row whose caption is null."""


def contains_entity(captions: pa.Array, is_entity: Callable[[str], bool]) -> NDArray[np.uint8]:
    """1 where any whitespace-separated word of the caption is an entity, 0 where none is, 2 where it is null.

    Parameters
    ----------
    captions : (n,) Arrow text
    is_entity
        Says of one word, as it stands in the caption, whether it is an entity.
    """
    found = np.full(len(captions), UNKNOWN, np.uint8)
    for row, caption in enumerate(captions.to_pylist()):
        if caption is not None:
            found[row] = any(map(is_entity, caption.split()))
    return found
