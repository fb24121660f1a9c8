"""Soft labels of which only the most probable are kept: rows x L numbers, whatever the number of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.kernels.arrays import require_option
from pycurate.ops.labels.label_codes import Labels
from pycurate.ops.labels.neighbor_votes import NeighborVotes
from pycurate.ops.labels.tables import row_table
from pycurate.types import UidArray

Kind: TypeAlias = Literal["probabilities", "logits"]

BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class SoftLabels:
    """The most probable classes of each row.

    Attributes
    ----------
    labels
        (n, L) int32, by falling probability, ties to the lower class; -1 beyond the last.
    probabilities
        (n, L) float32 in [0, 1], 0 beyond the last. What they lack to 1 lies with classes that are not kept.
    n_classes
        Classes there are.
    unjudged
        (u,) rising rows that have no labels.
    """

    labels: Labels
    probabilities: NDArray[np.float32]
    n_classes: int
    unjudged: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def rest(self) -> NDArray[np.float32]:
        """(n,) probability of the classes that are not kept; 1 for an unjudged row."""
        kept: NDArray[np.float64] = self.probabilities.sum(axis=1, dtype=np.float64)
        return np.clip(1 - kept, 0, 1).astype(np.float32)

    def dense(self, rows: slice | NDArray[np.int64] = slice(None), *, fill_rest: bool = True) -> NDArray[np.float32]:
        """(r, n_classes) of some rows; ``fill_rest``: classes that are not kept share the rest, as ReLabel trains."""
        labels, kept = self.labels[rows], self.probabilities[rows]
        there = labels >= 0
        others = np.maximum(self.n_classes - there.sum(axis=1), 1)
        share = self.rest[rows] / others if fill_rest else np.zeros(len(labels))
        result = np.repeat(share.astype(np.float32)[:, None], self.n_classes, axis=1)
        row, _ = np.nonzero(there)
        result[row, labels[there]] = kept[there]
        return result

    def to_arrow(self, uids: UidArray | None = None) -> pa.Table:
        """Columns ``uid`` (32 hex digits) or ``row``, ``labels`` (list of int32) and ``probabilities`` (of float32)."""
        there = self.labels >= 0
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32))
        columns = {
            "labels": pa.ListArray.from_arrays(offsets, pa.array(self.labels[there])),
            "probabilities": pa.ListArray.from_arrays(offsets, pa.array(self.probabilities[there])),
        }
        return row_table(len(self), uids, columns)


def soft_labels(
    scores: NDArray[Any] | NeighborVotes, top: int = 5, *, kind: Kind = "probabilities", temperature: float = 1.0
) -> SoftLabels:
    """Keep the ``top`` most probable classes of each row, as ReLabel stores its label maps.

    Parameters
    ----------
    scores
        (n, K) floats, a model's probabilities or logits, perhaps a memory map, read in blocks; or `NeighborVotes`,
        whose shares are the probabilities.
    top
        Classes to keep, at least 1.
    kind
        ``"probabilities"`` (default), in [0, 1]; ``"logits"``: any finite numbers, of which the softmax over all
        classes is taken first.
    temperature
        Logits are divided by it; probabilities are raised to 1 / temperature and made to sum to 1 again. Below 1 labels
        get sharper: 0.5 is the squaring (gamma 2) with which PLS sharpens.

    Returns
    -------
    SoftLabels
        Rows with a value that is not finite, or below 0 or all 0 where probabilities are meant, are unjudged.

    Raises
    ------
    InputError
        A value is not as above.

    References
    ----------
    Yun, Oh, Heo, Han, Choe, Chun: Re-labeling ImageNet: from single to multi-labels, from global to localized labels
    (CVPR 2021). Albert, Arazo, Krishna, O'Connor, McGuinness: Is your noise correction noisy? PLS (WACV 2023).
    """
    check_count("top", top)
    require_option("kind", kind, Kind)
    if not temperature > 0 or not np.isfinite(temperature):
        raise InputError(f"temperature: expected a number above 0, got {temperature}")
    if isinstance(scores, NeighborVotes):
        if temperature != 1 or kind != "probabilities":
            raise InputError("scores: votes keep some labels only, so no softmax or temperature can be taken of them")
        if top > scores.labels.shape[1]:
            raise InputError(f"top: expected at most the {scores.labels.shape[1]} labels that votes kept, got {top}")
        kept = slice(0, top)
        return SoftLabels(scores.labels[:, kept], scores.shares[:, kept], scores.n_classes, scores.unjudged)
    if scores.ndim != 2 or scores.dtype.kind != "f" or scores.shape[1] < 1:
        raise InputError(f"scores: expected (n, K) floats, got {scores.shape} of {scores.dtype}")
    n, classes = scores.shape
    width = min(top, classes)
    labels, probabilities = np.full((n, width), -1, np.int32), np.zeros((n, width), np.float32)
    step = max(1, BLOCK_ELEMENTS // classes)
    for start in range(0, n, step):
        p, judged = _normalised(np.asarray(scores[start : start + step], np.float64), kind, temperature)
        order = np.argsort(-p, axis=1, kind="stable")[:, :width]
        rows = start + np.flatnonzero(judged)
        best = np.take_along_axis(p, order, axis=1)
        labels[rows] = np.where(best[judged] > 0, order[judged], -1)
        probabilities[rows] = best[judged]
    return SoftLabels(labels, probabilities, classes, np.flatnonzero(labels[:, 0] < 0))


def _normalised(
    block: NDArray[np.float64], kind: Kind, temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities after the temperature, and which rows have any."""
    judged = np.asarray(np.isfinite(block).all(axis=1))
    block = np.where(judged[:, None], block, 0.0)
    if kind == "logits":
        block = block / temperature
        block = np.exp(block - block.max(axis=1, keepdims=True))
        return block / block.sum(axis=1, keepdims=True), judged
    judged = np.asarray(judged & (block >= 0).all(axis=1) & (block.sum(axis=1) > 0))
    block = np.maximum(block, 0)
    if temperature == 1:
        return block, judged
    block = (block / np.maximum(block.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)) ** (1 / temperature)
    return block / np.maximum(block.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny), judged
