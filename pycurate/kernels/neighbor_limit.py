"""How many neighbours of a row a GPU looks for."""

from __future__ import annotations

MOST_NEIGHBORS = 128
"""Of each row in one call of the CUDA kernels, as ``csrc/cuda/fused_similarity.h`` has it."""

__all__ = ["MOST_NEIGHBORS", "device_for_neighbors"]


def device_for_neighbors(device: str | None, k: int) -> str | None:
    """``device``, or the CPU where ``k`` is more than a GPU looks for."""
    return "cpu" if device is not None and k > MOST_NEIGHBORS else device
