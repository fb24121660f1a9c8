"""Class probabilities as users have them (arrays, memory maps, shards, the largest few of each row), block by block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.arrays import kind
from pycurate.kernels.confident import RowSummary
from pycurate.kernels.device import device_of, lies_on_gpu

DTYPES = ("float16", "float32", "float64")

RANGE_WARNING, RANGE_ERROR = 1e-6, 1e-3
"""How far below 0 or above 1 a probability is silently taken, and taken with a warning. The first is cleanlab's; the
second lets through what float16 softmaxes and averaged folds produce."""
SUM_WARNING, SUM_ERROR = 1e-3, 5e-2
"""The same for the sum of a row and 1. A row of float16, each rounded by 2^-12 of itself, is within 3e-4."""

_BLOCK_BYTES = 16 << 20
_GPU_BLOCK_BYTES = 1 << 30  # of a tensor there, which is read in a millisecond


@dataclass(frozen=True, slots=True)
class TopProbabilities:
    """The largest probabilities of each row and its label's own: what is worth keeping of many classes.

    Parameters
    ----------
    classes
        (n, L) integers, the L classes of largest probability of each row, in any order; negative where a row has less.
    probabilities
        (n, L) float16, float32 or float64, theirs.
    self_probability
        (n,) float, the probability of each row's label.
    num_classes
        K. The other classes of a row count as probability 0.

    Margins are exact with L >= 2, always. The confident joint is exact where no dropped class can reach its threshold,
    which ``rows_in_doubt`` of `pycurate.ops.labels.confident_learning.scan_rows` counts: keep L >= 4. Pair margins of
    ``prune_by_noise_rate`` are exact for the kept classes only.
    """

    classes: NDArray[Any]
    probabilities: NDArray[Any]
    self_probability: NDArray[Any]
    num_classes: int

    def __post_init__(self) -> None:
        shape = np.shape(self.probabilities)
        if len(shape) != 2 or np.shape(self.classes) != shape or np.shape(self.self_probability) != shape[:1]:
            raise InputError(
                "classes, probabilities, self_probability: expected shapes (n, L), (n, L) and (n,), got "
                f"{np.shape(self.classes)}, {shape} and {np.shape(self.self_probability)}"
            )
        if self.classes.dtype.kind not in "iu" or self.probabilities.dtype.name not in DTYPES:
            raise InputError(
                "classes, probabilities: expected integers and float16, float32 or float64, got "
                f"{self.classes.dtype} and {self.probabilities.dtype}"
            )
        if self.classes.size and int(self.classes.max()) >= self.num_classes:
            raise InputError(f"classes: expected less than num_classes = {self.num_classes}, got {self.classes.max()}")

    def __len__(self) -> int:
        return len(self.probabilities)


PredProbs: TypeAlias = "NDArray[Any] | TopProbabilities | Sequence[NDArray[Any]] | Callable[[], Iterable[NDArray[Any]]]"
"""(n, K) float16, float32 or float64, a memory map included; or the same as a list of shards of consecutive rows; or a
function that returns an iterator over such shards, called once for each pass and once to see K; or `TopProbabilities`.
An array, or each shard, may be a tensor in the memory of a GPU (PyTorch, CuPy), where it is then read.
"""


@dataclass(frozen=True, slots=True)
class ProbabilityBlocks:
    """Probabilities of n rows and their labels, as the passes read them.

    ``labels`` (n,) int64, negative for rows that take no part. Iterating yields (first row, block): (rows, K) in an
    element type of `DTYPES` with adjacent elements. Shards are cut to 16 MB; only where columns are not adjacent they
    are copied, one block at a time. Tensors on a GPU stay there, in blocks of 1 GB. ``device`` is where passes run.
    """

    pred_probs: PredProbs
    labels: NDArray[np.int64]
    num_classes: int
    bytes_at_once: int = _BLOCK_BYTES
    device: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the probabilities of all classes are there."""
        return not isinstance(self.pred_probs, TopProbabilities)

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any]]]:
        row = 0
        for shard in _shards(self.pred_probs, self.labels):
            values = _checked(shard, self.num_classes)
            if row + len(values) > len(self.labels):
                raise InputError(f"pred_probs: expected {len(self.labels)} rows, one for each label, got more")
            there = lies_on_gpu(values)
            at_once = max(self.bytes_at_once, _GPU_BLOCK_BYTES) if there else self.bytes_at_once
            step = max(1, at_once // (values.itemsize * values.shape[1]))
            for begin in range(0, len(values), step):
                block = values[begin : begin + step]
                if not there and block.shape[1] > 1 and block.strides[1] != block.itemsize:
                    block = np.ascontiguousarray(block)
                yield row, block
                row += len(block)
        if row != len(self.labels):
            raise InputError(f"pred_probs: expected {len(self.labels)} rows, one for each label, got {row}")


def probability_blocks(
    pred_probs: PredProbs, labels: Any, *, unlabelled: bool = False, device: str | None = None
) -> ProbabilityBlocks:
    """The blocks of ``pred_probs`` and ``labels`` that go with them.

    Raises
    ------
    InputError
        Wrong dtype, shape or length, or a label is not a class, names the argument and the row; or there is no such
        device.
    """
    device_of(device, pred_probs if lies_on_gpu(pred_probs) else None)
    num_classes = _num_classes(pred_probs)
    if num_classes < 1:
        raise InputError("pred_probs: expected at least one class, a column, got none")
    checked = labels_of(labels, num_classes, unlabelled=unlabelled)
    rows = _known_rows(pred_probs)
    if rows is not None and rows != len(checked):
        raise InputError(f"pred_probs and labels: expected the same length, got {rows} rows and {len(checked)} labels")
    return ProbabilityBlocks(pred_probs, checked, num_classes, device=device)


def labels_of(labels: Any, num_classes: int, *, unlabelled: bool = False) -> NDArray[np.int64]:
    """(n,) int64 of a list, an array or a series of class ids; -1, where allowed, for rows that take no part."""
    values = np.asarray(labels)
    if values.ndim != 1 or (values.dtype.kind not in "iub" and len(values)):
        raise InputError(
            f"labels: expected one class id a row, a 1-D array of integers, got {values.ndim}-D of dtype {values.dtype}"
            "; map names to ids first"
        )
    checked = np.ascontiguousarray(values, np.int64)
    least = -1 if unlabelled else 0
    wrong = (checked < least) | (checked >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"labels: expected class ids from {least} to {num_classes - 1}, the columns of pred_probs, got "
            f"{values[row]} in row {row}"
            + ("" if unlabelled or checked[row] != -1 else "; take rows without a label away first")
        )
    return checked


@dataclass(slots=True)
class RowChecks:
    """What is wrong with rows seen so far: grave things raise, the rest is said once at the end."""

    complete: bool
    beyond: int = 0
    first_beyond: tuple[int, float] = (-1, 0.0)
    uneven: int = 0
    first_uneven: tuple[int, float] = (-1, 0.0)

    def add(self, first_row: int, rows: RowSummary) -> None:
        """Look at a block's rows.

        Raises
        ------
        InputError
            A probability is NaN or infinite or beyond [0, 1] by more than 1e-3, or a row's sum is off by more than
            0.05.
        """
        bad = ~np.isfinite(rows.sums)
        if bad.any():
            row = first_row + int(np.argmax(bad))
            raise InputError(f"pred_probs: row {row} holds NaN or infinity; take the row away or predict it again")
        most = np.fmax(rows.self_probability, rows.largest_other)
        excess = np.maximum(most - 1, 0 - rows.least)
        if excess.size and excess.max() > RANGE_WARNING:
            at = int(np.argmax(excess))
            value = most[at] if most[at] - 1 >= 0 - rows.least[at] else rows.least[at]
            if excess[at] > RANGE_ERROR:
                raise InputError(
                    f"pred_probs: expected probabilities from 0 to 1, got {value:.6g} in row {first_row + at}; logits "
                    "need a softmax first"
                )
            self.beyond += int((excess > RANGE_WARNING).sum())
            if self.first_beyond[0] < 0:
                self.first_beyond = (first_row + at, float(value))
        off = rows.sums - 1 if not self.complete else np.abs(rows.sums - 1)
        if off.size and off.max() > SUM_WARNING:
            at = int(np.argmax(off))
            if off[at] > SUM_ERROR:
                raise InputError(
                    f"pred_probs: expected rows that sum to 1, got {rows.sums[at]:.6g} in row {first_row + at}; divide "
                    "each row by its sum, or pass multi_label=True where classes do not exclude each other"
                )
            self.uneven += int((off > SUM_WARNING).sum())
            if self.first_uneven[0] < 0:
                self.first_uneven = (first_row + at, float(rows.sums[at]))

    def warn(self) -> None:
        """One warning for each kind of thing that was let through."""
        if self.beyond:
            row, value = self.first_beyond
            warnings.warn(
                f"pred_probs: {self.beyond} rows hold probabilities beyond [0, 1] by up to {RANGE_ERROR:g}, such as "
                f"{value:.9g} in row {row}; they are used as they are",
                stacklevel=4,
            )
        if self.uneven:
            row, value = self.first_uneven
            warnings.warn(
                f"pred_probs: the sums of {self.uneven} rows are off 1 by more than {SUM_WARNING:g}, such as "
                f"{value:.6g} in row {row}; they are used as they are",
                stacklevel=4,
            )


def _num_classes(pred_probs: PredProbs) -> int:
    if isinstance(pred_probs, TopProbabilities):
        return pred_probs.num_classes
    if isinstance(pred_probs, np.ndarray):
        return int(_two_dimensional(pred_probs).shape[1])
    if isinstance(pred_probs, (list, tuple)) or callable(pred_probs):
        shards = iter(pred_probs()) if callable(pred_probs) else iter(pred_probs)
        first = next(shards, None)
        if first is None:
            raise InputError("pred_probs: expected at least one shard, got none")
        return int(_two_dimensional(first).shape[1])
    return int(_two_dimensional(_array(pred_probs)).shape[1])


def _known_rows(pred_probs: PredProbs) -> int | None:
    if callable(pred_probs):
        return None
    if isinstance(pred_probs, (list, tuple)):
        return sum(len(shard) for shard in pred_probs)
    return len(pred_probs)


def _shards(pred_probs: PredProbs, labels: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    if isinstance(pred_probs, TopProbabilities):
        yield from _dense(pred_probs, labels)
    elif callable(pred_probs):
        yield from pred_probs()
    elif isinstance(pred_probs, (list, tuple)):
        yield from pred_probs
    else:
        yield _array(pred_probs)


def _dense(top: TopProbabilities, labels: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Blocks with zeros for what was not kept. Only what was written is wiped: K is large and L small."""
    dtype = np.result_type(top.probabilities.dtype, np.asarray(top.self_probability).dtype)
    step = max(1, _BLOCK_BYTES // (dtype.itemsize * top.num_classes))
    scratch = np.zeros((min(step, max(1, len(top))), top.num_classes), dtype)
    for begin in range(0, len(top), step):
        part = slice(begin, min(begin + step, len(top)))
        count = part.stop - begin
        rows = np.arange(count)
        classes, own = top.classes[part].astype(np.int64), labels[part]
        kept, labelled = classes >= 0, own >= 0
        row_of = np.broadcast_to(rows[:, None], classes.shape)[kept]
        scratch[row_of, classes[kept]] = top.probabilities[part][kept]
        scratch[rows[labelled], own[labelled]] = top.self_probability[part][labelled]
        yield scratch[:count]
        scratch[row_of, classes[kept]] = 0
        scratch[rows[labelled], own[labelled]] = 0


def _array(pred_probs: Any) -> NDArray[Any]:
    if isinstance(pred_probs, np.ndarray) or lies_on_gpu(pred_probs):
        array: NDArray[Any] = pred_probs
        return array
    if hasattr(pred_probs, "__dlpack__"):
        return np.from_dlpack(pred_probs)
    raise InputError(
        f"pred_probs: expected a NumPy array (n, K), shards of one or TopProbabilities, got {kind(pred_probs)}"
    )


def _two_dimensional(values: Any) -> NDArray[Any]:
    array = _array(values)
    if array.ndim != 2:
        raise InputError(f"pred_probs: expected a 2-D array (n, K), got {array.ndim}-D")
    return array


def _checked(shard: Any, num_classes: int) -> NDArray[Any]:
    array = _two_dimensional(shard)
    dtype = str(array.dtype).removeprefix("torch.")  # of a tensor
    if dtype not in DTYPES:
        raise InputError(
            f"pred_probs: expected float16, float32 or float64, got dtype {array.dtype}; convert it on purpose"
        )
    if array.shape[1] != num_classes:
        raise InputError(f"pred_probs: expected {num_classes} columns in every shard, got {array.shape[1]}")
    return array
