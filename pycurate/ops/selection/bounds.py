"""Bounds on a score: which rows lie outside, compared in the score's own precision."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.types import ScoreArray

Side: TypeAlias = Literal["minimum", "maximum"]


def outside(values: ScoreArray, limit: float, side: Side, inclusive: bool = True) -> NDArray[np.bool_]:
    """Rows whose value is provably outside a bound.

    Parameters
    ----------
    values : (n,) float or integer
        The scores. NaN is never outside: it cannot be judged.
    limit
        The bound, rounded to the precision of ``values`` first: float32 scores are compared with ``float32(limit)``, as
        a pandas or NumPy comparison with a Python number does, so that 0.28 keeps the rows that hold float32(0.28).
    side
        ``"minimum"``: smaller values are outside. ``"maximum"``: larger values are.
    inclusive
        True: a value equal to the limit is inside.

    Returns
    -------
    (n,) bool
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a limit beyond float32 becomes infinity, which compares as it should
            limit = values.dtype.type(limit)
    if side == "minimum":
        return np.asarray(values < limit if inclusive else values <= limit)
    return np.asarray(values > limit if inclusive else values >= limit)


def missing(values: ScoreArray) -> NDArray[np.bool_]:
    """Rows without a value: NaN in a float column, none in an integer one."""
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), np.bool_)
