"""Published settings of semantic deduplication, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycurate.io.names import unknown_name

DEDUP_PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Abbas et al. (2023): spherical k-means, farthest from the centroid first, any earlier row removes, > 1 - eps.
    "semdedup": {
        "mode": "clustered",
        "clusters": 50_000,
        "iterations": 100,
        "seed": 1234,
        "probes": 0,
        "priority": "hard",
        "removal": "published",
        "strict": True,
        "eps": 0.07,
    },
    # NVIDIA NeMo Curator's settings of the same: >= 1 - eps with a smaller eps, more rounds of k-means.
    "semdedup-nemo": {
        "mode": "clustered",
        "iterations": 300,
        "probes": 0,
        "priority": "hard",
        "removal": "published",
        "strict": False,
        "eps": 0.01,
    },
    # Components of image embeddings at a cosine of 0.94, every pair compared.
    "dedup-clip94": {"mode": "exact", "removal": "component", "strict": False, "threshold": 0.94},
}


def dedup_preset(name: str) -> dict[str, Any]:
    """The arguments of `pycurate.dedup` for a published setting.

    Parameters
    ----------
    name
        ``semdedup``, ``semdedup-nemo`` or ``dedup-clip94``.

    Raises
    ------
    InputError
        There is no such preset.
    """
    if name not in DEDUP_PRESETS:
        raise unknown_name("preset", name, DEDUP_PRESETS)
    return dict(DEDUP_PRESETS[name])
