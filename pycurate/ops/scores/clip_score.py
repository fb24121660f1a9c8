"""CLIP score: the cosine of each image with its own caption (Hessel et al. 2021, without its factor of 2.5)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.rowwise import rowwise_scores

UNJUDGED_REASONS = (
    (1, b"image embedding is not finite"),
    (2, b"image embedding is zero"),
    (4, b"text embedding is not finite"),
    (8, b"text embedding is zero"),
)
"""Bit of ``flags`` -> why a row has no score; the first that is set is given."""


def clip_scores(image: NDArray[Any], text: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Canonical cosine of aligned rows, and why a row has none.

    Parameters
    ----------
    image, text : (n, d) float16, float32, int8, or uint16 that holds bfloat16; C order
        Embeddings of the same rows; unnormalised rows are welcome.

    Returns
    -------
    similarities : (n,) float32 in [-1, 1]
        NaN where an embedding is zero or not finite. Bit-identical on every instruction set.
    flags : (n,) uint8
        Bits of ``UNJUDGED_REASONS``; 0 where the row is judged.
    """
    bfloat16: Literal["bfloat16"] | None = "bfloat16" if image.dtype == np.uint16 else None
    scores = rowwise_scores(image, text, "cosine", threads=1, dtype=bfloat16)
    return scores.similarities, scores.flags


def unjudged_reasons(flags: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """The reason of each row as (n,) ``S29``; empty where the row is judged."""
    table = [next((reason for bit, reason in UNJUDGED_REASONS if code & bit), b"") for code in range(256)]
    return np.array(table, np.bytes_)[flags]
