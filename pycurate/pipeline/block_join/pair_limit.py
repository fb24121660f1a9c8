"""``max_pairs`` of every join's ``pairs_above``: more pairs are an error, whoever finds them."""

from __future__ import annotations

import operator

from pycurate.errors import TooManyPairsError


def checked_max_pairs(max_pairs: int | None) -> int | None:
    """``max_pairs`` as it was given; ValueError where it is negative."""
    most = None if max_pairs is None else operator.index(max_pairs)
    if most is not None and most < 0:
        raise ValueError(f"max_pairs: expected None or at least 0, got {max_pairs}")
    return most


def require_at_most(max_pairs: int | None, found: int, limit: float) -> None:
    """TooManyPairsError where so many found pairs, of which there may be more, are too many."""
    if max_pairs is not None and found > max_pairs:
        raise TooManyPairsError(
            f"max_pairs: expected at most {max_pairs:,} pairs at or above {limit:g}, but at least {found:,} were "
            "found; raise the threshold, allow more pairs (40 bytes of disk each while they are merged), or ask "
            "components_above or most_similar_earlier, which hold no pairs"
        )
