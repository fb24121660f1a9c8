"""Brute force for sampled rows: which of their near-duplicates a join compared them with, and what that certifies.

A join may be asked about several *settings* at once, each of which compares the pairs of those before it and more, such
as a clustered join about rising numbers of probes. Each true pair then has a first setting that finds it, and one
comparison of the sampled rows with all others tells the recall of every setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.index.duplicate_certificate import LOOKS, DuplicateCertificate, duplicate_certificate, least_positives
from pycurate.index.sampling import drawn_rows
from pycurate.kernels.distinct import Indices
from pycurate.pipeline.block_join.blocks import BlockPlan, Blocks, Grid
from pycurate.pipeline.block_join.join_folder import JoinFolder, answer_of
from pycurate.pipeline.block_join.pair_runs import runs_of
from pycurate.pipeline.block_join.source import RowSource
from pycurate.pipeline.block_join.sweep import How, Task, run_tasks

FIRST_SAMPLE = 1000
MOST_SIMILARITIES = 200_000_000_000
"""Of sampled rows with all rows: one to two minutes of 8 cores at 512 dimensions."""
DEFAULT_TARGET = 0.99
_SAMPLE_STREAM = 4
"""Not that of k-means: centroids suit the rows they were trained on best."""
_PAIRS_AT_ONCE = 1 << 13


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateSample:
    """Sampled rows of a join, and what each of its settings finds of their near-duplicates."""

    folder: JoinFolder
    source: RowSource
    rows: Indices  # the distinct ones
    limit: float
    settings: list[str]  # in words, each finding what the one before it does
    first_setting: Callable[[Indices, Indices], Indices]
    """Of pairs of rows, the number of the first setting that compares them; len(settings) where none does."""
    plan: BlockPlan
    how: How
    seed: int
    facts: dict[str, Any]  # what settings are about, besides their words
    order: Indices | None = None  # (len(rows),) places among them in the order in which they are numbered for draws

    def certify(self, target: float, most: int) -> tuple[int, DuplicateCertificate]:
        """The first setting whose recall is at least ``target``, else the last, and its certificate.

        The sample doubles until there are positives enough to tell, and at most twice after that; ``most``
        similarities end it. Looking at several settings makes the bound no less sure: where a setting below the target
        passes, the last such setting passes on the same sample, too, since it finds at least as much.
        """
        found, sampled, looks = [np.zeros((0, len(self.settings) + 1), np.int64)], 0, 0
        while True:
            size = min(len(self.rows), 2 * sampled if sampled else FIRST_SAMPLE)
            found.append(self._stored(sampled, size))
            sampled = size
            needs = np.concatenate(found)
            is_last = sampled == len(self.rows) or 2 * sampled * len(self.rows) > most
            if not is_last and len(needs) < least_positives(target):
                continue
            looks += 1
            for number, words in enumerate(self.settings):
                certificate = duplicate_certificate(
                    needs.sum(axis=1),
                    needs[:, : number + 1].sum(axis=1),
                    method=words,
                    threshold=self.limit,
                    target=target,
                    rows=sampled,
                    population=len(self.rows),
                    seed=self.seed,
                )
                if certificate.verdict == "holds":
                    return number, certificate
            if certificate.verdict == "fails" or is_last or looks == LOOKS:
                return number, certificate

    def _stored(self, begin: int, end: int) -> NDArray[np.int64]:
        facts = {**self.facts, "settings": self.settings, "limit": self.limit, "seed": self.seed}
        folder = self.folder.task_folder("certificate", **facts, begin=begin, end=end)
        if folder.answer() is None:
            places = drawn_rows(len(self.rows), end, self.seed, _SAMPLE_STREAM)[begin:]
            places = places if self.order is None else self.order[places]
            folder.write_answer({"found": self._found(self.rows[np.sort(places)])})
        return np.array(answer_of(folder)["found"])

    def _found(self, sampled: Indices) -> NDArray[np.int64]:
        """(positives, settings + 1) how many near-duplicates of each row a setting is the first to find; none last."""
        counts = np.zeros((len(sampled), len(self.settings) + 1), np.int64)
        block_rows = self.plan.block_rows
        left, right = Blocks(self.source, sampled, block_rows), Blocks(self.source, self.rows, block_rows)

        def work(task: Task) -> None:
            rows, cols = sampled[left.span(task.i)], self.rows[right.span(task.j)]
            for run in runs_of(task.pair, rows, cols, self.limit, self.plan.most_pairs, task.progress):
                for pairs in _parts(run):
                    place = np.searchsorted(sampled, pairs["row"])
                    np.add.at(counts, (place, self.first_setting(pairs["row"], pairs["col"])), 1)

        run_tasks(Grid(left, right), self.how, lambda i, j: False, work)
        return counts[counts.any(axis=1)]


def _parts(run: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Without the sampled rows themselves, and rows that are near-duplicates of several side by side."""
    run = run[run["row"] != run["col"]]
    run = run[np.argsort(run["col"], kind="stable")]
    for begin in range(0, len(run), _PAIRS_AT_ONCE):
        yield run[begin : begin + _PAIRS_AT_ONCE]


def share_of(name: str, value: float) -> float:
    """``value`` as a share from 0 to 1; ValueError where it is none."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a share from 0 to 1, got {value}")
    return float(value)
