"""``balance_labels``: how unequal the classes of a file of labels are, and a subset in which they are more equal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pycurate.api.out import claim_out
from pycurate.errors import InputError
from pycurate.io.atomic import atomic_write, write_json_atomic
from pycurate.io.label_files import read_labels
from pycurate.io.pool import Pool, open_pool
from pycurate.io.subset import Subset
from pycurate.ops.selection.balance import class_caps, water_filling
from pycurate.ops.selection.imbalance import ClassImbalance, imbalance_of
from pycurate.ops.selection.resampling import repeat_rows
from pycurate.report.balance_page import figures, render_balance
from pycurate.types import UID_DTYPE, UidArray

if TYPE_CHECKING:
    from rich.console import RenderableType

SUBSET, PAGE, FACTS = "subset.npy", "balance.html", "balance.json"


@dataclass(frozen=True, slots=True)
class LabelBalance:
    """Figures of the classes, and what was kept.

    Attributes
    ----------
    rule
        How rows were chosen; "nothing was chosen" for a report alone.
    before, after
        Of all rows, and of those kept with their repeats; None for a report alone.
    kept
        Rows of the subset, repeats counted.
    out
        Folder of what was written; None where nothing was.
    """

    rule: str
    before: ClassImbalance
    after: ClassImbalance | None
    kept: int
    out: Path | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "rule": self.rule,
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "kept": self.kept,
            "out": None if self.out is None else str(self.out),
        }

    def render(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        table.add_column("")
        table.add_column("all rows", justify="right")
        if self.after is not None:
            table.add_column("kept", justify="right")
        after = [] if self.after is None else [value for _, value in figures(self.after)]
        for number, (name, value) in enumerate(figures(self.before)):
            table.add_row(name, value, *after[number : number + 1])
        largest = ", ".join(f"{name} {rows:,}" for name, rows in self.before.head[:5])
        smallest = ", ".join(f"{name} {rows:,}" for name, rows in self.before.tail[-5:])
        parts: list[RenderableType] = [table, Text(f"\nlargest: {largest}"), Text(f"smallest: {smallest}")]
        if self.after is not None:
            parts.append(Text(f"{self.rule}: {self.kept:,} rows kept"))
        if self.out is not None:
            parts.append(Text(f"written to {self.out}", style="dim"))
        return Group(*parts)


def balance_labels(
    labels: str | os.PathLike[str],
    pool: Pool | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    cap: int | None = None,
    total: int | None = None,
    floor: int = 0,
    repeat: float | None = None,
    seed: int = 0,
) -> LabelBalance:
    """Count the classes of a file of labels and, where a rule is given, choose a more balanced subset.

    Writes ``balance.html`` and ``balance.json`` and, with a rule, ``subset.npy``: sorted uids, those taken several
    times as often as that. Holds some 100 bytes a row; for pools larger than that the recipe step ``class_balance``
    does the same out of core.

    Parameters
    ----------
    labels
        A file as `pycurate.io.label_files.read_labels` takes it.
    pool
        Where the rows are: labels are matched by uid, or by place where the file has no uids. Needed for a subset.
    out
        A folder, new, empty, or of an earlier run. By default nothing is written.
    cap
        The most rows of a class, drawn by a hash of uid and seed.
    total
        Rows to keep in all, each class as many as the others or all it has.
    floor
        With ``total``: rows that a class keeps at least.
    repeat
        A share of the rows, such as 0.001: rows of rarer classes are taken several times (repeat factor sampling).
    seed
        Of the draws.

    Raises
    ------
    InputError
        More than one rule, a rule without pool or ``out``, no row with a label, or a file that is not as it should be.
    """
    rules = [name for name, value in (("cap", cap), ("total", total), ("repeat", repeat)) if value is not None]
    if len(rules) > 1:
        raise InputError(f"{' and '.join(rules)}: expected one of them; run twice to compare")
    if floor and total is None:
        raise InputError("floor: goes with total; a cap keeps that many of every class that has them")
    if rules and (pool is None or out is None):
        lacking = "pool" if pool is None else "out"
        raise InputError(
            f"{lacking}: expected one with {rules[0]}, as a subset names the uids of a pool and is written"
        )
    opened = pool if isinstance(pool, Pool) or pool is None else open_pool(pool)
    uids = None if opened is None else _uids_of(opened)
    read = read_labels(labels, uids)
    names = _names(read.class_names, read.labels)
    sizes = np.bincount(read.labels[read.labels >= 0], minlength=len(names)).astype(np.int64)
    before = imbalance_of(sizes, names, int(np.count_nonzero(read.labels < 0)))
    rule, times = "nothing was chosen", None
    if rules:
        rule, times = _chosen(read.labels, uids, cap, total, floor, repeat, seed)
    after_sizes = None
    if times is not None:
        there = read.labels >= 0
        after_sizes = np.bincount(read.labels[there], weights=times[there], minlength=len(names)).astype(np.int64)
    after = None if after_sizes is None else imbalance_of(after_sizes, names)
    found = LabelBalance(
        rule, before, after, 0 if times is None else int(times.sum()), None if out is None else Path(out)
    )
    if out is not None:
        _write(claim_out(Path(out)), found, str(labels), sizes, after_sizes, uids, times)
    return found


def _uids_of(pool: Pool) -> UidArray:
    uids, start = np.empty(pool.rows, UID_DTYPE), 0
    for shard in pool.shards:
        for block in shard.blocks(()):
            assert block.uids is not None
            uids[start + block.start : start + block.start + block.rows] = block.uids
        start += shard.rows
    return uids


def _names(given: tuple[str, ...] | None, labels: NDArray[np.int64]) -> NDArray[Any]:
    return np.arange(int(labels.max(initial=-1)) + 1) if given is None else np.array(given, object)


def _chosen(
    labels: NDArray[np.int64],
    uids: UidArray | None,
    cap: int | None,
    total: int | None,
    floor: int,
    repeat: float | None,
    seed: int,
) -> tuple[str, NDArray[np.int64]]:
    """The rule in words, and how often each row is taken."""
    if repeat is not None:
        times = np.where(labels >= 0, repeat_rows(labels, repeat, uids=uids, seed=seed).times, 0)
        return f"rows of classes rarer than {repeat:g} of the rows several times", times
    if cap is not None:
        return f"at most {cap:,} rows of a class", class_caps(labels, cap, uids=uids, seed=seed).keep.astype(np.int64)
    assert total is not None
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    filled = water_filling(counts, total, floors=floor)
    keep = class_caps(labels, filled.quotas, uids=uids, seed=seed).keep
    return f"{total:,} rows in all, at most {filled.cap + (filled.spare > 0):,} of a class", keep.astype(np.int64)


def _write(
    out: Path,
    found: LabelBalance,
    title: str,
    sizes: NDArray[np.int64],
    after_sizes: NDArray[np.int64] | None,
    uids: UidArray | None,
    times: NDArray[np.int64] | None,
) -> None:
    if times is not None:
        assert uids is not None
        Subset.from_uids(np.repeat(uids, times)).save(out / SUBSET)
    page = render_balance(
        f"Classes of {Path(title).name}", f"{found.rule[:1].upper()}{found.rule[1:]}.", found.before, sizes.tolist(),
        found.after, None if after_sizes is None else after_sizes.tolist(),
    )  # fmt: skip
    with atomic_write(out / PAGE) as file:
        file.write(page.encode())
    write_json_atomic(out / FACTS, found.to_dict())
