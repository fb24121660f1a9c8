"""The embeddings of ``benchmarks/embeddings.py``, made on a GPU: float16 unit rows, near-duplicates planted."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = Any  # torch.Tensor

PLANTED_SHARE = 0.01


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def _plant(x: Tensor, threshold: float, random: Any) -> None:
    """Overwrite 1 % of the rows by near-duplicates of others, 1e-3 to 0.04 above or below the threshold."""
    count = int(len(x) * PLANTED_SHARE)
    rows = torch.randperm(len(x), generator=random, device=x.device)[: 2 * count].reshape(2, count)
    exponent = torch.rand(count, generator=random, device=x.device) * 1.6 - 3
    sign = torch.randint(0, 2, (count,), generator=random, device=x.device) * 2 - 1
    cosine = torch.clamp(threshold + sign * 10**exponent, max=0.9999)[:, None]
    source = x[rows[0]]
    beside = torch.randn(source.shape, generator=random, device=x.device)
    beside -= (beside * source).sum(1, keepdim=True) * source
    x[rows[1]] = _unit(cosine * source + torch.sqrt(1 - cosine**2) * _unit(beside))


def flat(n: int, d: int, threshold: float, seed: int = 0) -> Tensor:
    """(n, d) Gaussian rows."""
    random = torch.Generator("cuda").manual_seed(seed)
    x = _unit(torch.randn(n, d, generator=random, device="cuda"))
    _plant(x, threshold, random)
    return x.half()


def clip_like(n: int, d: int, threshold: float, seed: int = 0) -> Tensor:
    """(n, d) rows with a falling spectrum, the cone of one modality, four outlier coordinates and Zipf clusters."""
    random = torch.Generator("cuda").manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, device="cuda")

    basis = torch.linalg.qr(normal(d, d))[0]
    spread = torch.arange(1, d + 1, device="cuda") ** -0.5
    spread /= torch.linalg.vector_norm(spread)
    clusters = max(8, int(n**0.5))
    centres = (normal(clusters, d) * spread) @ basis.T
    share = 1 / torch.arange(1, clusters + 1, device="cuda")
    offset = normal(d)
    offset[torch.randperm(d, generator=random, device="cuda")[:4]] *= 8
    offset /= torch.linalg.vector_norm(offset)
    x = torch.empty(n, d, device="cuda")
    for start in range(0, n, 1 << 17):
        count = min(1 << 17, n - start)
        member = torch.multinomial(share, count, replacement=True, generator=random)
        own = (normal(count, d) * spread) @ basis.T
        x[start : start + count] = _unit(offset + 0.5**0.5 * (centres[member] + own))
    _plant(x, threshold, random)
    return x.half()


def noisy_copies(n: int, d: int, similarity: float = 0.97, seed: int = 0) -> Tensor:
    """One clump: copies of one row with Gaussian noise, any two at about the given cosine."""
    random = torch.Generator("cuda").manual_seed(seed)
    centre = _unit(torch.randn(1, d, generator=random, device="cuda"))
    noise = torch.randn(n, d, generator=random, device="cuda") / d**0.5
    return _unit(centre + (1 / similarity - 1) ** 0.5 * noise).half()
