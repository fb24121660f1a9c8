"""The definition of the ``rowwise`` kernels, in NumPy: the same bits, slowly and readably.

The *canonical sum* of two rows is what every similarity, norm and linear head of this package is made of. Elements are
widened exactly to float32. Sixteen float32 lanes start at +0; lane l takes the elements j = l, l + 16, l + 32, ... in
rising j, by fused multiply-add (the product is exact, the sum rounded once); the last group of sixteen is filled up
with zeros. Then lanes are folded: l += l + 8, l += l + 4, l += l + 2, l += l + 1. int8 sums exactly, in integers.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Metric: TypeAlias = Literal["cosine", "inner_product", "l2"]
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]

LANES = 16
NOT_FINITE, ZERO = 1, 2  # flags of a row; those of ``b`` in a pair are shifted left by two bits


def fused_multiply_add(x: Floats, y: Floats, z: Floats) -> Floats:
    """x * y + z rounded once to float32.

    The product of two float32 is exact in float64. Their sum with z may not be, and rounding it twice could differ from
    rounding it once; so it is rounded to odd (Boldo and Melquiond, 2008): of the two float64 around an inexact sum, the
    one whose last bit is set, which no second rounding can mistake for a tie.
    """
    with np.errstate(all="ignore"):
        product = x.astype(np.float64) * y.astype(np.float64)
        addend = z.astype(np.float64)
        total = product + addend
        part = total - product  # Knuth's two-sum: total + error is the exact sum
        error = (product - (total - part)) + (addend - part)
        even = (total.view(np.uint64) & np.uint64(1)) == 0
        neighbour = np.nextafter(total, np.copysign(np.inf, error))
        rounded_to_odd = np.where(np.isfinite(total) & (error != 0) & even, neighbour, total)
        return rounded_to_odd.astype(np.float32)


def canonical_sum(x: NDArray[Any], y: NDArray[Any]) -> Doubles:
    """Canonical sum of ``x * y`` over the last axis.

    Parameters
    ----------
    x, y
        Broadcastable (..., d) arrays, both float32 (widened) or both int8.

    Returns
    -------
    (...) float64, which holds every float32 and every int8 sum exactly.
    """
    x, y = np.broadcast_arrays(x, y)
    if x.dtype == np.int8:
        exact: Doubles = np.sum(x.astype(np.int64) * y.astype(np.int64), axis=-1).astype(np.float64)
        return exact
    *rows, d = x.shape
    fill = [(0, 0)] * len(rows) + [(0, -d % LANES)]
    x, y = np.pad(x, fill), np.pad(y, fill)
    lanes = np.zeros((*rows, LANES), np.float32)
    for j in range(0, d, LANES):
        lanes = fused_multiply_add(x[..., j : j + LANES], y[..., j : j + LANES], lanes)
    with np.errstate(all="ignore"):
        for width in (8, 4, 2, 1):
            lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    return lanes[..., 0].astype(np.float64)


def widen(x: NDArray[Any]) -> NDArray[Any]:
    """Exact float32 of float16, of bfloat16 given as uint16 bits, or of float32; int8 stays int8."""
    if x.dtype == np.int8:
        return x
    if x.dtype == np.uint16:
        return quieted((x.astype(np.uint32) << 16).view(np.float32))
    return quieted(x.astype(np.float32))


def quieted(x: Floats) -> Floats:
    """``x`` with every signalling NaN made quiet; its sign and the rest of its payload stay."""
    bits = x.view(np.uint32)
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, bits | 0x00400000, bits).astype(np.uint32).view(np.float32)


def narrow(x: Floats, to: Literal["float16", "bfloat16"]) -> NDArray[Any]:
    """Round float32 to nearest, ties to even. A NaN stays quiet and keeps its sign and the upper bits of its payload.

    Returns float16, or uint16 bits for bfloat16.
    """
    bits = x.view(np.uint32)
    is_nan = np.isnan(x)
    sign = bits >> 16 & 0x8000
    if to == "bfloat16":
        rounded = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(is_nan, bits >> 16 | 0x40, rounded).astype(np.uint16)
    with np.errstate(over="ignore"):
        rounded = np.abs(x).astype(np.float16).view(np.uint16)
    return (sign | np.where(is_nan, 0x7E00 | bits >> 13 & 0x3FF, rounded)).astype(np.uint16).view(np.float16)


def canonical_nan(x: Floats) -> Floats:
    """``x`` with every NaN replaced by 0x7FC00000."""
    return np.where(np.isnan(x), np.float32(np.nan), x)


def pair_similarity(a: NDArray[Any], b: NDArray[Any], metric: Metric) -> Floats:
    """Similarity of each row of ``a`` with the same row of ``b``; larger is nearer.

    With dot, aa, bb the canonical sums of a * b, a * a, b * b as float64: ``cosine`` is dot / sqrt(aa * bb) clamped to
    [-1, 1], NaN unless 0 < aa * bb < inf; ``inner_product`` is dot; ``l2`` is -(aa + bb - 2 dot), at most 0. Rounded
    once to float32; whatever is not a finite number is NaN.
    """
    a, b = widen(a), widen(b)
    return similarity_of_sums(canonical_sum(a, b), canonical_sum(a, a), canonical_sum(b, b), metric)


def similarity_of_sums(dot: Doubles, aa: Doubles, bb: Doubles, metric: Metric) -> Floats:
    """Similarity from the canonical sums of a * b, a * a and b * b (broadcastable), as :func:`pair_similarity` says."""
    with np.errstate(all="ignore"):
        if metric == "cosine":
            product = aa * bb
            judged = np.isfinite(dot) & np.isfinite(product) & (product > 0)
            result = np.where(judged, np.clip(dot / np.sqrt(product), -1, 1), np.nan).astype(np.float32)
        elif metric == "l2":
            distance = np.where(np.isfinite(dot), np.maximum(aa + bb - 2 * dot, 0), np.nan)
            result = (0.0 - distance).astype(np.float32)
        else:
            result = dot.astype(np.float32)
    return np.where(np.isfinite(result), result, np.float32(np.nan))


def pair_similarity_float64(a: NDArray[Any], b: NDArray[Any], metric: Metric) -> Doubles:
    """The textbook definition in float64, without clamp or rounding; the canonical one approximates it."""
    x, y = widen(a).astype(np.float64), widen(b).astype(np.float64)
    similarity: Doubles = np.einsum("nd,nd->n", x, y)
    if metric == "l2":
        similarity = -np.square(x - y).sum(axis=-1)
    if metric == "cosine":
        similarity = similarity / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    return similarity


def norms(x: NDArray[Any]) -> Floats:
    """Euclidean norm of each row: the root of the canonical sum of squares, rounded once to float32."""
    wide = widen(x)
    with np.errstate(all="ignore"):
        return canonical_nan(np.sqrt(canonical_sum(wide, wide)).astype(np.float32))


def flags(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Per row ``NOT_FINITE`` where its squared norm is not a finite float32, ``ZERO`` where it is 0, else 0."""
    wide = widen(x)
    squares = canonical_sum(wide, wide)
    return np.where(~np.isfinite(squares), NOT_FINITE, np.where(squares == 0, ZERO, 0)).astype(np.uint8)


def head_scores(x: NDArray[Any], weights: Floats, bias: Floats) -> Floats:
    """(n, h) scores of linear heads: the canonical sum of x[i] * weights[k], plus bias[k] in float32."""
    wide = widen(x).astype(np.float32)
    sums = canonical_sum(wide[:, None, :], weights[None, :, :]).astype(np.float32)
    with np.errstate(all="ignore"):
        return canonical_nan(sums + bias)


def sum_by_cluster(
    x: Floats, lengths: Doubles | None, cluster: NDArray[np.int64], clusters: int, block_rows: int
) -> Doubles:
    """(clusters, d) float64 sums of the rows of each cluster, divided by their lengths: of a block of rows in order,
    and of blocks in order."""
    total = np.zeros((clusters, x.shape[1]))
    for start in range(0, len(x), block_rows):
        of_block: dict[int, Doubles] = {}
        for i in range(start, min(start + block_rows, len(x))):
            row = x[i].astype(np.float64) / (1.0 if lengths is None else lengths[i])
            c = int(cluster[i])
            of_block[c] = of_block[c] + row if c in of_block else row
        for c, added in of_block.items():
            total[c] += added
    return total
