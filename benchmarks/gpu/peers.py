"""What a user has without us: PyTorch, tuned, with the same answer; and cuVS where it is installed."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = Any  # torch.Tensor

# float16 products of unit rows are off by less: rounding of the rows' norms and of a result near 1.
FLOAT16_SLACK = 2e-3


def _exact(x: Tensor, rows: Tensor, cols: Tensor, threshold: float) -> int:
    """How many of some pairs reach the threshold in float32."""
    count = 0
    for start in range(0, len(rows), 1 << 20):
        a, b = x[rows[start : start + (1 << 20)]].float(), x[cols[start : start + (1 << 20)]].float()
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        count += int((cosine >= threshold).sum())
    return count


def triangular_float16(x: Tensor, threshold: float, block: int) -> int:
    """Pairs at or above a threshold: blocks of the upper triangle in float16, ``nonzero``, and what was found again in
    float32."""
    found = 0
    for i in range(0, len(x), block):
        left = x[i : i + block]
        for j in range(i, len(x), block):
            near = left @ x[j : j + block].T >= threshold - FLOAT16_SLACK
            if i == j:
                near = near.triu(1)
            rows, cols = near.nonzero(as_tuple=True)
            found += _exact(x, rows + i, cols + j, threshold)
    return found


def nearest_centroids_float32(x: Tensor, centroids: Tensor, block: int) -> Tensor:
    """(n,) of rows in pinned memory: moved block by block, multiplied in float32 (TF32 off), ``argmax``."""
    unit = centroids / centroids.norm(dim=1, keepdim=True)
    found = []
    for i in range(0, len(x), block):
        found.append((x[i : i + block].cuda(non_blocking=True).float() @ unit.T).argmax(1))
    return torch.cat(found)


def full_float32(x: Tensor, threshold: float, block: int) -> int:
    """What public code does: whole rows of the matrix in float32 (TF32 off), every pair twice."""
    wide = x.float()
    wide /= wide.norm(dim=1, keepdim=True)
    found = 0
    for i in range(0, len(x), block):
        near = wide[i : i + block] @ wide.T >= threshold
        found += int(near.count_nonzero())
    return (found - len(x)) // 2


def nearest_float16(x: Tensor, k: int, block: int) -> Tensor:
    """(n, k) nearest other rows by float16 products and ``topk``, not scored again."""
    result = []
    for i in range(0, len(x), block):
        products = x[i : i + block] @ x.T
        products.diagonal(offset=i).fill_(-torch.inf)
        result.append(products.topk(k, dim=1).indices)
    return torch.cat(result)


def cuvs_nearest(x: Tensor, k: int) -> Tensor | None:
    """(n, k) by cuVS' brute force; None where it is not installed."""
    try:
        from cuvs.neighbors import brute_force
    except ImportError:
        return None
    index = brute_force.build(x.float(), metric="inner_product")
    return torch.as_tensor(brute_force.search(index, x.float(), k + 1)[1], device="cuda")[:, 1:]
