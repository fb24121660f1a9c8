"""Aligned rows: similarity, norms, checks and linear heads of embeddings in one pass over memory.

Every similarity here is *canonical* (``pycurate.reference.rowwise`` is its definition): the same bits on every
instruction set and for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.arrays import kind, matrix_of, require_option, rows_of, thread_count_of
from pycurate.kernels.device import cuda_kernels, device_of, lies_on_gpu, on_device

Metric: TypeAlias = Literal["cosine", "inner_product", "l2"]
Gpus: TypeAlias = tuple[int, ...]
FloatType: TypeAlias = Literal["float32", "float16", "bfloat16"]

A_NOT_FINITE, A_ZERO, B_NOT_FINITE, B_ZERO = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)
"""Bits of ``flags``. *Not finite*: the squared norm is not a finite float32, because an element is NaN or infinite or
the sum overflows. *Zero*: the squared norm is 0, because every element is or the sum underflows."""

__all__ = [
    "A_NOT_FINITE",
    "A_ZERO",
    "B_NOT_FINITE",
    "B_ZERO",
    "Heads",
    "RowStatistics",
    "RowwiseScores",
    "convert",
    "pair_similarity",
    "row_statistics",
    "rowwise_scores",
    "sum_by_cluster",
]


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Linear heads on embeddings: score[i, k] = x[i] · weights[k] + bias[k].

    Parameters
    ----------
    weights
        (h, d) float32, C order.
    bias
        (h,) float32.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, array in (("weights", self.weights), ("bias", self.bias)):
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                raise TypeError(
                    f"{name}: expected a float32 array, got {kind(array)}; pass numpy.asarray({name}, numpy.float32)"
                )


@dataclass(frozen=True, slots=True, eq=False)
class RowwiseScores:
    """What one pass over n aligned rows gives."""

    similarities: NDArray[np.float32]  # (n,) NaN where the row cannot be judged
    norms_a: NDArray[np.float32]  # (n,) Euclidean norms; inf or NaN where flagged as not finite
    norms_b: NDArray[np.float32]  # (n,)
    flags: NDArray[np.uint8]  # (n,) A_NOT_FINITE | A_ZERO | B_NOT_FINITE | B_ZERO
    heads_a: NDArray[np.float32] | None  # (n, h), None where no heads were asked for
    heads_b: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class RowStatistics:
    """What one pass over n rows gives."""

    norms: NDArray[np.float32]  # (n,) Euclidean norms
    flags: NDArray[np.uint8]  # (n,) A_NOT_FINITE | A_ZERO
    heads: NDArray[np.float32] | None  # (n, h), None where no heads were asked for


def pair_similarity(
    a: NDArray[Any],
    b: NDArray[Any],
    metric: Metric = "cosine",
    *,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> NDArray[np.float32]:
    """Similarity of each row of ``a`` with the same row of ``b``; larger is nearer.

    Parameters
    ----------
    a, b
        (n, d) arrays of the same dtype: float16, bfloat16 (from ml_dtypes, or uint16 bits with ``dtype="bfloat16"``),
        float32 or int8; normalised or not. The elements of a row must be adjacent; rows may be any stride apart.
        Tensors in CPU memory come in by DLPack. Nothing is copied.
    metric
        ``"cosine"``: dot / (|a| |b|) in [-1, 1], exactly 1 for identical rows. ``"inner_product"``: dot. ``"l2"``: the
        negated squared distance, -(|a|² + |b|² - 2 dot), at most 0, and exactly 0 for identical rows.
    threads
        Threads to use; every processor this process may run on by default. The result does not depend on it.
    dtype
        ``"bfloat16"`` to read uint16 arrays as bfloat16 bits.
    device
        ``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:1"``, ``"cuda:0,1"`` (several), ``"auto"`` (a GPU where one can
        be used); None: where the arrays lie. Rows in the CPU's memory go to GPUs in pieces of 64 MB, to each in turn.
        The result is the same bits and lies in the CPU's memory.

    Returns
    -------
    (n,) float32. NaN where the result is not a finite number: a row with NaN or infinite elements, an overflow of
    float32, or, for cosine, a zero row.

    Raises
    ------
    TypeError
        ``a`` or ``b`` is not an array of a dtype above, or they differ.
    ValueError
        A shape, stride or ``metric`` is not as above.
    KeyboardInterrupt
        Ctrl-C, within about a tenth of a second.

    Notes
    -----
    Sums are float32 fused multiply-adds in 16 lanes (exact integers for int8), the rest float64 rounded once, so that
    the bits are the same on every instruction set and for any number of threads.
    """
    place = device_of(device, a, b)
    if place is not None:
        return _scores_on_device(a, b, metric, None, None, dtype, place).similarities
    x, y, element = _pair(a, b, dtype)
    similarities: NDArray[np.float32] = _core.rowwise.score_pairs(
        x, y, element, metric, False, None, None, None, None, thread_count_of(threads)
    )[0]
    return similarities


def rowwise_scores(
    a: NDArray[Any],
    b: NDArray[Any],
    metric: Metric = "cosine",
    *,
    heads_a: Heads | None = None,
    heads_b: Heads | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> RowwiseScores:
    """Similarity, norms, flags and any number of linear heads of aligned rows, reading each row once from memory.

    Parameters
    ----------
    a, b, metric, threads, dtype, device
        As in :func:`pair_similarity`.
    heads_a, heads_b
        Linear heads on the rows of ``a`` and of ``b``. They are canonical sums too: the same bits everywhere.

    Returns
    -------
    RowwiseScores
        A row whose norm is not finite has NaN similarity for cosine and l2, and for ``inner_product`` where the dot
        product itself is not finite; a zero row has NaN similarity for cosine only.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`pair_similarity`; also for heads whose shape does not match the rows.
    """
    place = device_of(device, a, b)
    if place is not None:
        return _scores_on_device(a, b, metric, heads_a, heads_b, dtype, place)
    x, y, element = _pair(a, b, dtype)
    return RowwiseScores(
        *_core.rowwise.score_pairs(
            x, y, element, metric, True, *_head_arrays(heads_a), *_head_arrays(heads_b), thread_count_of(threads)
        )
    )


def row_statistics(
    x: NDArray[Any],
    *,
    heads: Heads | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> RowStatistics:
    """Norms, flags and any number of linear heads of the rows of one (n, d) matrix, read once from memory.

    Parameters
    ----------
    x, threads, dtype, device
        As ``a`` in :func:`pair_similarity`.
    heads
        Linear heads on the rows.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`rowwise_scores`.
    """
    place = device_of(device, x)
    if place is not None:
        measure, arrays = cuda_kernels().measure_rows, _head_arrays(heads)
        return RowStatistics(*_piecewise([("x", x)], dtype, place, lambda piece: measure(piece, *arrays)))
    rows, element = rows_of("x", x, dtype)
    return RowStatistics(*_core.rowwise.measure_rows(rows, element, *_head_arrays(heads), thread_count_of(threads)))


def convert(
    x: NDArray[Any],
    to: FloatType,
    *,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
) -> NDArray[Any]:
    """A converted copy of an (n, d) matrix; rounds to nearest, ties to even, once.

    Parameters
    ----------
    x, threads, dtype
        As ``a`` in :func:`pair_similarity`, but not int8.
    to
        ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Returns
    -------
    (n, d) C-ordered float32, float16, or uint16 bits for ``"bfloat16"``. A NaN stays a NaN, quiet, with its sign and
    the upper bits of its payload.
    """
    rows, element = rows_of("x", x, dtype)
    return _core.rowwise.convert_rows(rows, element, to, thread_count_of(threads))


def sum_by_cluster(
    x: NDArray[np.float32],
    lengths: NDArray[np.float64] | None,
    cluster: NDArray[np.int64],
    clusters: int,
    block_rows: int,
    *,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """(clusters, d) sums of the rows (n, d) of each cluster, elements divided by the length (n,) of their row.

    Of each block of ``block_rows`` rows those of a cluster are added one by one in rising order, and blocks in order,
    in float64: the same bits for any number of threads.
    """
    return _core.rowwise.sum_by_cluster(x, lengths, cluster, clusters, block_rows, thread_count_of(threads))


PIECE_BYTES = 1 << 26  # of the rows that are on their way to a GPU at a time


def _scores_on_device(
    a: Any, b: Any, metric: Metric, heads_a: Heads | None, heads_b: Heads | None, dtype: str | None, gpus: Gpus
) -> RowwiseScores:
    require_option("metric", metric, Metric)
    score = cuda_kernels().score_pairs
    heads = (*_head_arrays(heads_a), *_head_arrays(heads_b))
    fields = _piecewise([("a", a), ("b", b)], dtype, gpus, lambda x, y: score(x, y, metric, *heads))
    return RowwiseScores(*fields)


def _piecewise(arrays: list[tuple[str, Any]], dtype: str | None, gpus: Gpus, ask: Callable[..., Any]) -> list[Any]:
    """What a kernel says of the same rows of each array in a GPU's memory; those from the CPU's go there piece by
    piece, to each GPU in turn."""
    matrices: list[Any] = []
    read_as: list[str | None] = []
    for name, x in arrays:
        checked, element = (x, None) if lies_on_gpu(x) else matrix_of(name, x, dtype)
        if matrices and tuple(checked.shape) != tuple(matrices[0].shape):
            raise ValueError(f"{name}: expected shape {tuple(matrices[0].shape)}, got {tuple(checked.shape)}")
        matrices.append(checked)
        read_as.append("bfloat16" if element == "bfloat16" else dtype)
    n, row_bytes = matrices[0].shape[0], max(1, matrices[0].shape[1] * 4)
    step = max(1, n) if lies_on_gpu(matrices[0]) else max(1, PIECE_BYTES // row_bytes)

    def part(number: int) -> Any:
        begin, gpu = number * step, gpus[number % len(gpus)]
        piece = [
            on_device(name, x[begin : begin + step], kind_of_x, gpu)
            for (name, _), x, kind_of_x in zip(arrays, matrices, read_as, strict=True)
        ]
        if len({x.element for x in piece}) > 1:
            raise TypeError(f"b: expected {piece[0].element} to match a, got {piece[1].element}; convert one of them")
        return ask(*piece)

    # One piece is on its way while the last is computed.
    with ThreadPoolExecutor(2 * len(gpus)) as pool:
        return _joined(list(pool.map(part, range(-(-max(1, n) // step)))))


def _joined(parts: list[Any]) -> list[Any]:
    """The fields of all pieces, each as one array; None where there is none."""
    return [None if fields[0] is None else np.concatenate(fields) for fields in zip(*parts, strict=True)]


def _pair(a: NDArray[Any], b: NDArray[Any], dtype: str | None) -> tuple[NDArray[Any], NDArray[Any], str]:
    x, element = rows_of("a", a, dtype)
    y, element_b = rows_of("b", b, dtype)
    if element_b != element:
        raise TypeError(f"b: expected {element} to match a, got {element_b}; convert one of them on purpose")
    return x, y, element


def _head_arrays(heads: Heads | None) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    return (None, None) if heads is None else (heads.weights, heads.bias)
