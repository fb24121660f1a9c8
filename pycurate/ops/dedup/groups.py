"""Groups of duplicates: each removed row with the row that is kept in its place."""

from __future__ import annotations

import numpy as np

from pycurate.kernels.distinct import Indices


def keepers(duplicate_of: Indices) -> Indices:
    """(n,) the kept row at the end of each row's chain of duplicates, itself for a row that is kept.

    Under `published` a row may be removed for one that is removed too; chains end, since each step goes to an earlier
    row.

    Parameters
    ----------
    duplicate_of
        (n,) the row in whose favour a row is removed, -1 where it is kept.
    """
    keeper = np.where(duplicate_of < 0, np.arange(len(duplicate_of)), duplicate_of)
    while True:
        further = keeper[keeper]
        if np.array_equal(further, keeper):
            return keeper
        keeper = further


def group_members(keeper: Indices, order: Indices) -> tuple[Indices, Indices]:
    """The rows of all groups of two or more, group by group, and the number of each row's group.

    Parameters
    ----------
    keeper
        (n,) as `keepers` returns it.
    order
        (n,) the rows in the order in which groups (by their kept row) and the rows of a group are to come.

    Returns
    -------
    rows, groups
        (m,) each; groups are numbered from 0.
    """
    n = len(keeper)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    shared = np.bincount(keeper, minlength=n)[keeper] > 1
    rows = np.flatnonzero(shared)
    rows = rows[np.lexsort((place[rows], keeper[rows] != rows, place[keeper[rows]]))]
    heads = keeper[rows] == rows
    return rows, np.cumsum(heads) - 1
