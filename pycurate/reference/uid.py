"""128-bit uids in plain NumPy: the definition that ``kernels.uid`` must equal.

Uid arrays are (n,) of ``u8,u8``: the first and the last 16 of 32 hex digits, ordered by (f0, f1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UID_DTYPE = np.dtype("u8,u8")


def parse_hex(texts: Sequence[str]) -> NDArray[np.void]:
    """The uid of each text of 32 hex digits."""
    return np.array([(int(text[:16], 16), int(text[16:], 16)) for text in texts], UID_DTYPE)


def format_hex(uids: NDArray[np.void]) -> list[str]:
    """32 lower-case hex digits of each uid."""
    return [f"{high:016x}{low:016x}" for high, low in uids.tolist()]


def sort_order(uids: NDArray[np.void]) -> NDArray[np.int64]:
    """(n,) the stable order that sorts the uids."""
    return np.lexsort((uids["f1"], uids["f0"])).astype(np.int64)


def run_lengths(uids: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Each different uid in rising order, and how often it is there; ``uids`` in any order."""
    keys, counts = np.unique(uids, return_counts=True)
    return keys, counts.astype(np.int64)


def combine(operation: str, a: NDArray[np.void], b: NDArray[np.void]) -> NDArray[np.void]:
    """Multiset algebra: with c and d the copies of a uid in a and b, the result holds it min(c, d) ("intersect"),
    max(c, d) ("union"), max(c - d, 0) ("minus"), c if d is 0 else 0 ("without") or c + d ("add") times; sorted."""
    keys, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
    copies_a = np.bincount(inverse[: len(a)], minlength=len(keys))
    copies_b = np.bincount(inverse[len(a) :], minlength=len(keys))
    copies = {
        "intersect": np.minimum(copies_a, copies_b),
        "union": np.maximum(copies_a, copies_b),
        "minus": np.maximum(copies_a - copies_b, 0),
        "without": np.where(copies_b == 0, copies_a, 0),
        "add": copies_a + copies_b,
    }[operation]
    return np.repeat(keys, copies)


def find(sorted_uids: NDArray[np.void], queries: NDArray[np.void]) -> NDArray[np.int64]:
    """The first position of each query in ``sorted_uids``, or -1."""
    first: dict[Any, int] = {}
    for position, uid in enumerate(sorted_uids.tolist()):
        first.setdefault(uid, position)
    return np.array([first.get(uid, -1) for uid in queries.tolist()], np.int64)
