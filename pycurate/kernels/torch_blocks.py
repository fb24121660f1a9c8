"""Blocks of all pairs of rows, multiplied by PyTorch: what bounds their products, and which of them the CPU scores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.arrays import matrix_of
from pycurate.kernels.host_matrix import HostMatrix

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Progress = Callable[[float], object] | None

MOST_BLOCK_ROWS = 4096
_HALF_ULP = 2.0**-24
# As on the other twins (csrc/kernels/fused_similarity/shares.h): of a row of a smaller squared norm nothing is said.
_FRAGILE_SQUARE = 2.0**-100
# Of rows up to this, no sum of a similarity overflows float32, so that every pair of them has one.
_LARGE_SQUARE = 2.0**124
_PAIR_BYTES = 64  # of a block at most: the product, two bounds in float64, what they are made of, masks, places
_PROGRESS_SECONDS = 0.1
_precision = threading.Lock()  # of the process, while a thread has set it


def loaded_torch() -> Any:
    """The package, loaded when it is used."""
    return import_module("torch")


def torch_devices() -> list[dict[str, Any]]:
    """The GPUs that PyTorch can use; none where it is not installed. Loads PyTorch."""
    if find_spec("torch") is None or not loaded_torch().cuda.is_available():
        return []
    cuda = loaded_torch().cuda
    facts = [cuda.get_device_properties(number) for number in range(cuda.device_count())]
    return [{"name": f.name, "capability": (f.major, f.minor), "bytes": f.total_memory} for f in facts]


def place_of(number: int) -> Any:
    """PyTorch's name of a GPU."""
    return loaded_torch().device("cuda", number)


class Matrix(HostMatrix):
    """(n, d) rows in the CPU's memory and the number of the GPU on which they are multiplied."""

    def __init__(self, array: NDArray[Any], element: str, device: int) -> None:
        super().__init__(array, element)
        self.device = device

    @classmethod
    def upload(cls, x: NDArray[Any], element: str, device: int, rows: Integers | None = None) -> Matrix:
        return cls(x if rows is None else x[rows], element, device)

    @classmethod
    def lend(cls, capsule: Any, name: str) -> Matrix:
        """Of a tensor on a GPU, by DLPack: copied to the CPU's memory."""
        tensor = loaded_torch().from_dlpack(capsule)
        array, element = matrix_of(name, tensor.cpu(), None)
        return cls(array, element, tensor.device.index or 0)


class Operand:
    """Rows that take part, and what bounds need of each: a row is a unit row times a scale, with a bias for l2.

    A score is ``scale_a * scale_b * (product ± slack) + bias_a + bias_b``. Of a row too short to be sure of, the unit
    row is 0 and the scale infinite: it may have any score.
    """

    def __init__(self, x: Matrix, rows: Integers | None, metric: str, precision: str, screening: None = None) -> None:
        self.x, self.metric, self.precision = x, metric, precision
        self.rows = np.arange(x.shape[0]) if rows is None else rows
        self.n, self.d = len(self.rows), x.shape[1]
        squares = x.self_products()[self.rows]
        sure = squares >= _FRAGILE_SQUARE
        self.factors = np.divide(1, np.sqrt(squares), out=np.zeros(self.n), where=sure).astype(np.float32)
        norms = {"cosine": np.ones(self.n), "inner_product": np.sqrt(squares), "l2": np.sqrt(2 * squares)}[metric]
        self.scales = np.where(sure, norms, np.inf)
        # A similarity is rounded to float32 once, which for l2 is as large as both squares.
        squares_of_l2 = squares if metric == "l2" else np.zeros(self.n)
        self.biases = {side: -squares_of_l2 * (1 - side * 4 * _HALF_ULP) for side in (1, -1)}
        self.certain = sure & (squares < _LARGE_SQUARE)

    @property
    def nbytes(self) -> int:
        """Memory beyond the rows."""
        return self.n * (8 + 4 + 8 + 16 + 1)


def slack_of(d: int) -> float:
    """What the float32 product of two unit rows of d elements and their canonical cosine differ by, at most.

    With u = 2^-24 and gamma_k = k u / (1 - k u): a sum of d products in any order is within gamma_d of the exact one,
    as rows of length 1 have sums of absolute products of at most 1; the elements of a unit row, divided by a canonical
    norm, are within gamma_(d / 16 + 4) / 2 + 2 u of what they stand for; a canonical cosine is within 2 gamma_(d / 16 +
    4) + 4 u of the exact one (shares.h). Together that is less than gamma_(1.2 d + 24). Twice gamma_(d + 32) is more at
    every d, and leaves room for a GPU that counts numbers below 2^-126 as 0 and for the few operations on bounds.
    """
    roundings = (d + 32) * _HALF_ULP
    return 2 * roundings / (1 - roundings) if roundings < 0.5 else np.inf


class Part(NamedTuple):
    """Some rows of an operand on the GPU."""

    begin: int
    end: int
    units: Any
    scales: Any
    biases: dict[int, Any]
    certain: Any


class Block:
    """All pairs of two parts."""

    def __init__(self, join: Join, left: Part, right: Part) -> None:
        self.join, self.left, self.right = join, left, right
        with whole_float32(left.units.device):
            self.products = left.units @ right.units.T
        self.a, self.b = slice(left.begin, left.end), slice(right.begin, right.end)
        self.nodes_b = slice(join.offset + right.begin, join.offset + right.end)

    @cached_property
    def is_pair(self) -> Any:
        """Of a part with itself: each pair once."""
        whole = loaded_torch().ones_like(self.products, dtype=loaded_torch().bool)
        return whole.triu(1) if self.join.is_self and self.left.begin == self.right.begin else whole

    def _bound(self, side: int) -> Any:
        left, right = self.left, self.right
        scales = left.scales[:, None] * right.scales[None, :]
        products = (self.products.to(scales.dtype) + side * slack_of(self.join.a.d)) * scales
        return products + left.biases[side][:, None] + right.biases[side][None, :]

    @property
    def lower(self) -> Any:
        """What the score of a pair is at least; -inf of what may be none."""
        sure = self.is_pair & self.left.certain[:, None] & self.right.certain[None, :]
        return self._bound(-1).masked_fill(~sure, -np.inf)

    def reaching(self, limits: Any) -> Any:
        """Mask of the pairs that may be at or above these limits, which broadcast."""
        return ~(self._bound(1) < limits) & self.is_pair

    def scored(
        self, mask: Any, matters: Callable[[Integers, Integers], NDArray[np.bool_]] | None = None
    ) -> Iterator[tuple[Integers, Integers, Floats]]:
        """Nodes and canonical similarities of the pairs of a mask that have one, some at a time.

        ``matters``: which pairs still do, asked before each time.
        """
        join, step = self.join, self.join.a.x.rows_at_a_time()
        places = (
            (mask.nonzero() + loaded_torch().tensor([self.left.begin, self.right.begin], device=join.place))
            .cpu()
            .numpy()
        )
        for begin in range(0, len(places), step):
            i, j = places[begin : begin + step].T
            if matters is not None:
                still = matters(i, join.offset + j)
                i, j = i[still], j[still]
            x, y = join.a.x.take(join.a.rows[i]), join.b.x.take(join.b.rows[j])
            similarities = scores_of(x, y, join.a.x.element, join.a.metric, join.threads)
            judged = ~np.isnan(similarities)
            yield i[judged], join.offset + j[judged], similarities[judged]


class Join:
    """Blocks of all pairs of two operands, or of one with itself. A *node* is an index of a row of a, or behind them of
    b."""

    def __init__(self, a: Operand, b: Operand | None, threads: int, progress: Progress) -> None:
        if b is not None and (a.d, a.x.element, a.metric) != (b.d, b.x.element, b.metric):
            raise ValueError("b: expected an operand prepared like a: same dimension, dtype and metric")
        self.a, self.b, self.is_self = a, a if b is None else b, b is None
        self.offset = 0 if b is None else a.n
        self.nodes = self.offset + self.b.n
        self.threads, self.progress = threads, progress
        self.place = place_of(a.x.device)

    def rows_of(self, i: Integers, j: Integers) -> tuple[Integers, Integers]:
        """Row numbers of nodes of a and of b."""
        return self.a.rows[i], self.b.rows[j - self.offset]

    def to_device(self, values: NDArray[Any]) -> Any:
        return loaded_torch().from_numpy(np.ascontiguousarray(values)).to(self.place)

    def blocks(self) -> Iterator[Block]:
        step, last = self._block_rows(), time.monotonic()
        begins_a, begins_b = range(0, self.a.n, step), range(0, self.b.n, step)
        total = len(begins_a) * (len(begins_a) + 1) // 2 if self.is_self else len(begins_a) * len(begins_b)
        done = 0
        for begin_a in begins_a:
            left = self._part(self.a, begin_a, step)
            for begin_b in begins_b[begin_a // step if self.is_self else 0 :]:
                same = self.is_self and begin_a == begin_b
                yield Block(self, left, left if same else self._part(self.b, begin_b, step))
                done += 1
                if self.progress is not None and time.monotonic() - last >= _PROGRESS_SECONDS:
                    self.progress(done / total)
                    last = time.monotonic()

    def scored_above(self, threshold: float) -> Iterator[tuple[Integers, Integers, Floats]]:
        """Nodes and similarities of all pairs at or above a threshold, some at a time."""
        for block in self.blocks():
            for i, j, similarities in block.scored(block.reaching(threshold)):
                found = similarities >= threshold
                yield i[found], j[found], similarities[found]

    def _block_rows(self) -> int:
        """The most whose pairs take at most half of the memory that is free."""
        free = loaded_torch().cuda.mem_get_info(self.place)[0] if self.place.type == "cuda" else 1 << 30
        step = MOST_BLOCK_ROWS
        while step > 64 and step * step * _PAIR_BYTES + 2 * step * self.a.d * 12 > free // 2:
            step //= 2
        return step

    def _part(self, operand: Operand, begin: int, step: int) -> Part:
        part = slice(begin, min(begin + step, operand.n))
        rows = np.ascontiguousarray(operand.x.take(operand.rows[part]))
        torch = loaded_torch()
        if operand.x.element == "bfloat16":
            there = self.to_device(rows.view(np.int16)).view(torch.bfloat16)
        else:
            there = self.to_device(rows)
        units = there.to(torch.float32) * self.to_device(operand.factors[part])[:, None]
        # Cosines are bounded in float32; other scores may be larger than its numbers.
        kind = np.float32 if operand.metric == "cosine" else np.float64
        return Part(
            part.start,
            part.stop,
            units,
            self.to_device(operand.scales[part].astype(kind)),
            {side: self.to_device(biases[part].astype(kind)) for side, biases in operand.biases.items()},
            self.to_device(operand.certain[part]),
        )


def scores_of(x: NDArray[Any], y: NDArray[Any], element: str, metric: str, threads: int) -> Floats:
    """(n,) canonical similarities of aligned rows."""
    found: Floats = _core.rowwise.score_pairs(x, y, element, metric, False, None, None, None, None, threads)[0]
    return found


@contextmanager
def whole_float32(place: Any) -> Iterator[None]:
    """Products in float32 as it is: no TF32, no autocast, whatever the process has set."""
    matmul = loaded_torch().backends.cuda.matmul
    name, value = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    with _precision:
        before = getattr(matmul, name)
        setattr(matmul, name, value)
        try:
            with loaded_torch().no_grad(), loaded_torch().autocast(place.type, enabled=False):
                yield
        finally:
            setattr(matmul, name, before)
