"""Measures of captions, read in place from the buffers of an Arrow text column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate._core import caption as _caption

__all__ = ["count_words"]


def count_words(data: NDArray[np.uint8], offsets: NDArray[np.signedinteger[Any]]) -> NDArray[np.float32]:
    """Words of each text, ``len(text.split())``: runs of characters that are not one of the 29 of ``str.isspace``.

    Parameters
    ----------
    data : (bytes,) uint8
        The texts in UTF-8, one after the other. In broken UTF-8 whatever is no whitespace character belongs to a word.
    offsets : (n + 1,) int32 or int64, C order
        Text i is ``data[offsets[i]:offsets[i + 1]]``.

    Returns
    -------
    (n,) float32
        Exact below 2**24 words.

    Raises
    ------
    ValueError
        An offset falls or points outside ``data``; names the row.
    TypeError
        Another dtype; names the argument.
    """
    return _caption.count_words(data, offsets)
