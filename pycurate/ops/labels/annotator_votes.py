"""Votes of many annotators or labelling functions, and what needs no model of them: majority and soft average.

Everything here and in `dawid_skene` and `label_model` reads votes in blocks of 2,048 rows, counted from the first row
whatever shards they come in, and adds blocks up in their order: results do not depend on shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.arrays import kind

NO_VOTE = -1
BLOCK_ROWS = 2048
_NUMBERS_AT_ONCE = 1 << 20

TieRule: TypeAlias = Literal["lowest", "rarest", "abstain"]
"""Of classes with as many votes: the lowest id; the one with the fewest votes in all, then the lowest; none (-1)."""


@dataclass(frozen=True, slots=True)
class SparseVotes:
    """Votes of rows that few of many annotators saw, row by row.

    Parameters
    ----------
    row_offsets
        (n + 1,) integers from 0, rising: votes of row i are those from ``row_offsets[i]`` to ``row_offsets[i + 1]``.
    annotators, labels
        (votes,) integers: who gave it, from 0, and the class. Annotators may vote several times on a row: votes of a
        crowd without names are all of annotator 0.
    num_annotators
        M.
    """

    row_offsets: NDArray[Any]
    annotators: NDArray[Any]
    labels: NDArray[Any]
    num_annotators: int

    def __post_init__(self) -> None:
        offsets = self.row_offsets
        if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise InputError("row_offsets: expected (n + 1,) rising positions from 0")
        if not len(self.annotators) == len(self.labels) == int(offsets[-1]):
            raise InputError(
                f"annotators, labels: expected {int(offsets[-1])} votes, as row_offsets ends, got "
                f"{len(self.annotators)} and {len(self.labels)}"
            )
        if (
            len(self.annotators)
            and not 0 <= int(self.annotators.min()) <= int(self.annotators.max()) < self.num_annotators
        ):
            raise InputError(
                f"annotators: expected numbers from 0 to {self.num_annotators - 1}, num_annotators less one"
            )

    @classmethod
    def of_counts(cls, counts: NDArray[Any]) -> SparseVotes:
        """Of (n, K) numbers of votes for each class by people without names, who become one annotator."""
        counts = np.asarray(counts)
        if counts.ndim != 2 or counts.dtype.kind not in "iu" or (counts.size and counts.min() < 0):
            raise InputError(f"counts: expected (n, K) integers from 0, got shape {counts.shape} of {counts.dtype}")
        offsets = np.concatenate([[0], np.cumsum(counts.sum(axis=1))]).astype(np.int64)
        labels = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.reshape(-1))
        return cls(offsets, np.zeros(len(labels), np.int32), labels.astype(np.int32), 1)

    def __len__(self) -> int:
        return len(self.row_offsets) - 1


Votes: TypeAlias = "NDArray[Any] | SparseVotes | Sequence[NDArray[Any]] | Callable[[], Iterable[NDArray[Any]]]"
"""(n, M) integers, a class id or -1 for no vote (int8 is enough below 128 classes), or floats with NaN for no vote; a
memory map included; or the same as a list of shards of consecutive rows, or a function that returns an iterator over
shards, called once a pass; or `SparseVotes`."""


class VoteBlock(NamedTuple):
    """Votes of rows ``first`` to ``first + rows``: (votes,) int64 each, by row (from 0) and then by annotator."""

    first: int
    rows: int
    row: NDArray[np.int64]
    annotator: NDArray[np.int64]
    label: NDArray[np.int64]


class VoteBlocks:
    """Votes in blocks, checked; as often iterated as passes are needed.

    Parameters
    ----------
    votes
        See `Votes`.
    num_classes
        K; votes must be below it. None: one more than the largest vote, for which all are read once.
    """

    def __init__(self, votes: Votes, num_classes: int | None = None) -> None:
        self._votes = votes
        self.annotators = _num_annotators(votes)
        self.num_classes = num_classes if num_classes is not None else np.iinfo(np.int64).max
        self.rows, highest = 0, -1
        if num_classes is None or callable(votes):
            for block in self:
                self.rows += block.rows
                highest = max(highest, int(block.label.max(initial=-1)))
            self.num_classes = highest + 1 if num_classes is None else num_classes
        else:
            self.rows = sum(map(len, votes)) if isinstance(votes, (list, tuple)) else len(votes)

    def __iter__(self) -> Iterator[VoteBlock]:
        source = _sparse(self._votes) if isinstance(self._votes, SparseVotes) else _dense(self._votes, self.annotators)
        for block in source:
            wrong = block.label >= self.num_classes
            if wrong.any():
                at = int(np.argmax(wrong))
                raise InputError(
                    f"votes: expected class ids below {self.num_classes} (num_classes), got {block.label[at]} in row "
                    f"{block.first + block.row[at]} by annotator {block.annotator[at]}"
                )
            yield block

    def counts(self, block: VoteBlock, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """(rows, K) votes for each class, each of its annotator's weight (M,) or of weight 1."""
        place = block.row * self.num_classes + block.label
        of_vote = None if weights is None else weights[block.annotator]
        found = np.bincount(place, of_vote, block.rows * self.num_classes)
        return found.reshape(block.rows, self.num_classes).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class Majority:
    """(n,) each: ``labels`` int64, -1 without votes or where a tie abstains; ``agreement`` float64, the share of a
    row's votes that the label has, NaN without votes; ``num_votes`` int64; ``tied`` bool."""

    labels: NDArray[np.int64]
    agreement: NDArray[np.float64]
    num_votes: NDArray[np.int64]
    tied: NDArray[np.bool_]


def majority_vote(votes: Votes, num_classes: int | None = None, *, ties: TieRule = "lowest") -> Majority:
    """The class most voted for in each row.

    Parameters
    ----------
    votes
        See `Votes`.
    num_classes
        K. None: one more than the largest vote.
    ties
        See `TieRule`.
    """
    if ties not in get_args(TieRule):
        raise InputError(f"ties: expected lowest, rarest or abstain, got {ties!r}")
    blocks = VoteBlocks(votes, num_classes)
    frequency = class_frequencies(blocks) if ties == "rarest" else np.zeros(blocks.num_classes)
    found = Majority(
        np.full(blocks.rows, -1, np.int64), np.full(blocks.rows, np.nan), np.zeros(blocks.rows, np.int64),
        np.zeros(blocks.rows, np.bool_),
    )  # fmt: skip
    for block in blocks:
        part = slice(block.first, block.first + block.rows)
        if not blocks.num_classes:
            continue
        counts = blocks.counts(block)
        total, most = counts.sum(axis=1), counts.max(axis=1)
        modes = (counts == most[:, None]) & (total > 0)[:, None]
        tied = modes.sum(axis=1) > 1
        labels = np.where(modes, -frequency, -np.inf).argmax(axis=1)
        labels[(total == 0) | (tied & (ties == "abstain"))] = -1
        found.labels[part], found.num_votes[part], found.tied[part] = labels, total, tied
        np.divide(most, total, out=found.agreement[part], where=total > 0)
    return found


def soft_average(votes: Votes, num_classes: int | None = None, *, weights: Any = None) -> NDArray[np.float64]:
    """(n, K) float64: each row's share of votes for each class; zeros without votes.

    Parameters
    ----------
    votes, num_classes
        As in `majority_vote`.
    weights
        (M,) from 0: what an annotator's vote counts. None: 1.
    """
    blocks = VoteBlocks(votes, num_classes)
    of_annotator = None if weights is None else np.asarray(weights, np.float64)
    if of_annotator is not None and (of_annotator.shape != (blocks.annotators,) or not (of_annotator >= 0).all()):
        raise InputError(f"weights: expected {blocks.annotators} numbers from 0, one an annotator")
    shares = np.zeros((blocks.rows, blocks.num_classes))
    for block in blocks:
        counts = blocks.counts(block, of_annotator)
        total = counts.sum(axis=1, keepdims=True)
        np.divide(counts, total, out=shares[block.first : block.first + block.rows], where=total > 0)
    return shares


def log_scores(block: VoteBlock, log_prior: NDArray[np.float64], logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, K) sums over a row's votes of ``logs[annotator, vote]``, and ``log_prior`` (K,); ``logs`` (M, K, K)."""
    scores = np.repeat(log_prior[None], block.rows, axis=0)
    begins = np.flatnonzero(np.diff(block.row, prepend=-1))  # of each row's votes
    step = max(1, _NUMBERS_AT_ONCE // len(log_prior))
    first = 0
    while first < len(begins):
        # Whole rows only, so that where they are cut changes no sum.
        last = max(first + 1, int(np.searchsorted(begins, begins[first] + step, "right")) - 1)
        end = int(begins[last]) if last < len(begins) else len(block.row)
        if len(block.row) - begins[first] <= step:
            last, end = len(begins), len(block.row)
        part = slice(int(begins[first]), end)
        sums = np.add.reduceat(logs[block.annotator[part], block.label[part]], begins[first:last] - part.start, axis=0)
        scores[block.row[begins[first:last]]] += sums
        first = last
    return scores


def class_frequencies(blocks: VoteBlocks) -> NDArray[np.float64]:
    """(K,) votes for each class."""
    frequency = np.zeros(blocks.num_classes)
    for block in blocks:
        frequency += np.bincount(block.label, minlength=blocks.num_classes)
    return frequency


def annotator_confusion(votes: Votes, labels: Any, num_classes: int | None = None) -> NDArray[np.int64]:
    """(M, K, K) counts of each annotator's votes, by label of the row and vote; rows labelled -1 are left out.

    Parameters
    ----------
    votes, num_classes
        As in `majority_vote`.
    labels
        (n,) integers: true, or consensus.
    """
    blocks = VoteBlocks(votes, num_classes)
    truth = np.asarray(labels)
    if (
        truth.shape != (blocks.rows,)
        or truth.dtype.kind not in "iu"
        or (len(truth) and truth.max() >= blocks.num_classes)
    ):
        raise InputError(
            f"labels: expected {blocks.rows} class ids below {blocks.num_classes}, one a row of votes, got shape "
            f"{truth.shape} of {truth.dtype}"
        )
    k = blocks.num_classes
    counts = np.zeros(blocks.annotators * k * k, np.int64)
    for block in blocks:
        own = truth[block.first + block.row].astype(np.int64)
        place = (block.annotator * k + own) * k + block.label
        counts += np.bincount(place[own >= 0], minlength=len(counts))
    return counts.reshape(blocks.annotators, k, k)


def _num_annotators(votes: Votes) -> int:
    if isinstance(votes, SparseVotes):
        return votes.num_annotators
    if isinstance(votes, np.ndarray):
        return int(_checked(votes).shape[1])
    if callable(votes) or isinstance(votes, (list, tuple)):
        first = next(iter(votes() if callable(votes) else votes), None)
        if first is None:
            raise InputError("votes: expected at least one shard, got none")
        return int(_checked(first).shape[1])
    raise InputError(f"votes: expected an array (n, M), shards of one or SparseVotes, got {kind(votes)}")


def _checked(votes: Any) -> NDArray[Any]:
    if not isinstance(votes, np.ndarray) or votes.ndim != 2 or votes.dtype.kind not in "iuf":
        shown = f"shape {votes.shape} of {votes.dtype}" if isinstance(votes, np.ndarray) else kind(votes)
        raise InputError(f"votes: expected (n, M) integers, -1 for no vote, or floats with NaN for none, got {shown}")
    return votes


def _dense(votes: Any, annotators: int) -> Iterator[VoteBlock]:
    """Blocks of 2,048 rows across the borders of shards."""
    shards = votes() if callable(votes) else votes if isinstance(votes, (list, tuple)) else [votes]
    pending: list[NDArray[np.int64]] = []
    count = first = 0
    for shard in shards:
        array = _checked(shard)
        if array.shape[1] != annotators:
            raise InputError(f"votes: expected {annotators} annotators in every shard, got {array.shape[1]}")
        begin = 0
        while begin < len(array):
            taken = array[begin : begin + BLOCK_ROWS - count]
            pending.append(_integers(taken, first + count))
            begin, count = begin + len(taken), count + len(taken)
            if count == BLOCK_ROWS:
                yield _dense_block(first, np.concatenate(pending))
                first, pending, count = first + count, [], 0
    if count:
        yield _dense_block(first, np.concatenate(pending))


def _integers(votes: NDArray[Any], first: int) -> NDArray[np.int64]:
    if votes.dtype.kind == "f":
        none = np.isnan(votes)
        whole = np.where(none, NO_VOTE, votes)
        wrong = ~np.isfinite(whole) | (whole != np.floor(whole)) | ((whole < 0) & ~none)
    else:
        whole = votes
        wrong = votes < NO_VOTE
    if wrong.any():
        row, annotator = np.unravel_index(int(np.argmax(wrong)), votes.shape)
        raise InputError(
            f"votes: expected class ids from 0 and {'NaN' if votes.dtype.kind == 'f' else '-1'} for no vote, got "
            f"{votes[row, annotator]} in row {first + row} by annotator {annotator}"
        )
    return whole.astype(np.int64)


def _dense_block(first: int, votes: NDArray[np.int64]) -> VoteBlock:
    row, annotator = np.nonzero(votes >= 0)
    return VoteBlock(first, len(votes), row, annotator, votes[row, annotator])


def _sparse(votes: SparseVotes) -> Iterator[VoteBlock]:
    for first in range(0, len(votes), BLOCK_ROWS):
        offsets = np.asarray(votes.row_offsets[first : first + BLOCK_ROWS + 1], np.int64)
        part = slice(int(offsets[0]), int(offsets[-1]))
        label = np.asarray(votes.labels[part], np.int64)
        row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        if len(label) and label.min() < 0:
            at = int(np.argmax(label < 0))
            raise InputError(f"labels: expected class ids from 0, got {label[at]} in row {first + row[at]}")
        yield VoteBlock(first, len(offsets) - 1, row, np.asarray(votes.annotators[part], np.int64), label)
