"""Label propagation and confident learning as PyTorch has them, and the graphs of the race."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pycurate.kernels.graph import SeedRows, SparseRows

CLUSTER_ROWS = 1_000


def random_graph(n: int, k: int, stay: float) -> SparseRows:
    """k neighbours a row, rising; a share ``stay`` of them in the row's cluster, the others anywhere."""
    random = torch.Generator("cuda").manual_seed(0)
    far = torch.randint(0, n, (n, k), generator=random, device="cuda", dtype=torch.int32)
    first = torch.arange(n, device="cuda", dtype=torch.int32)[:, None] // CLUSTER_ROWS * CLUSTER_ROWS
    near = first + torch.randint(0, CLUSTER_ROWS, (n, k), generator=random, device="cuda", dtype=torch.int32)
    local = torch.rand((n, k), generator=random, device="cuda") < stay
    chosen = torch.where(local, near.clamp(max=n - 1), far).sort(dim=1).values
    # A neighbour that came twice gives its place to one that did not.
    twice = torch.zeros_like(local)
    twice[:, 1:] = chosen[:, 1:] == chosen[:, :-1]
    keep = ~twice
    counts = keep.sum(dim=1).cpu().numpy()
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    indices = chosen[keep].cpu().numpy().astype(np.uint32)
    values = np.full(len(indices), 1 / k, np.float32)
    return SparseRows(indptr, indices, values)


def sweep_of_torch(
    matrix: SparseRows,
    seeds: SeedRows,
    state: NDArray[np.float32],
    alpha: float,
    timed: Callable[..., tuple[float, Any]],
) -> tuple[float, float]:
    """Milliseconds of the product by cuSPARSE, and of the sweep: what is added and the change, too."""
    n = len(matrix)
    rows = torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr.astype(np.int32)),
        torch.from_numpy(matrix.indices.astype(np.int32)),
        torch.from_numpy(matrix.values),
        (n, n),
        device="cuda",
    )
    values = torch.from_numpy(np.ascontiguousarray(state)).cuda()
    added = torch.zeros_like(values)
    owner = np.repeat(np.arange(n), np.diff(seeds.indptr).astype(np.int64))
    added[torch.from_numpy(owner).cuda(), torch.from_numpy(seeds.labels.astype(np.int64)).cuda()] = torch.from_numpy(
        seeds.values
    ).cuda()

    def sweep() -> Any:
        made = torch.addmm(added, rows, values, alpha=alpha)
        return made, float((made - values).abs().sum())

    product, _ = timed(lambda: rows @ values)
    whole, _ = timed(sweep)
    return product, whole


def pass_of_torch(name: str, p: Any, labels: NDArray[np.int64], bounds: NDArray[np.float64]) -> Any:
    """What a pass says of each row, in the CPU's memory as ours is."""
    if name == "entropies":
        return -torch.xlogy(p, p).sum(1, dtype=torch.float64).cpu()
    y = torch.from_numpy(labels).cuda()[:, None]
    own = p.gather(1, y)[:, 0]
    if name == "labels' own":
        return own.double().cpu()
    most = p.topk(2, dim=1)
    other = torch.where(most.indices[:, 0] == y[:, 0], most.values[:, 1], most.values[:, 0])
    above = p >= torch.from_numpy(bounds).to(p)
    count = above.sum(1)
    first = above.to(torch.uint8).argmax(1)
    guess = torch.where(count > 1, most.indices[:, 0], torch.where(count == 1, first, -1))
    answers = (
        own.double(),
        other.double(),
        most.indices[:, 0].int(),
        guess.int(),
        p.sum(1).double(),
        p.amin(1).double(),
    )
    return [answer.cpu() for answer in answers]
