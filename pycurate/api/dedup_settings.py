"""What a run of `pycurate.dedup` is told, checked; its defaults, and published settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pycurate.api.dedup_rows import CLUSTER_ORDERS, UID
from pycurate.errors import InputError
from pycurate.io.names import unknown_name
from pycurate.kernels.arrays import float32_of, require_option
from pycurate.ops.dedup.removal import Removal

Mode: TypeAlias = Literal["exact", "clustered", "index"]
"""Where rows that are alike are looked for: everywhere; within clusters and across their borders; among the neighbours
that a vector index proposes."""

EPS = 0.07
"""Of Abbas et al. (2023), SemDeDup."""
MAX_PAIRS = 20_000_000
"""Of greedy removal: 800 MB of disk while they are found, 400 MB after, 240 MB of memory in a sweep."""


@dataclass(frozen=True, slots=True)
class Clustering:
    """Of clustered mode, as `pycurate.clustered_join` takes it.

    Parameters
    ----------
    clusters
        Default: the square root of the number of distinct rows.
    probes
        Clusters that a row near a border is compared with, or ``"exact"``: all that may hold a duplicate. 0: none but
        its own, as in SemDeDup.
    iterations, seed
        Of k-means.
    """

    clusters: int | None = None
    probes: int | Literal["exact"] = 4
    iterations: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings of a run.

    Attributes
    ----------
    floor
        None: the default, or that of the folder.
    """

    mode: Mode
    removal: Removal
    threshold: float
    floor: float | None
    strict: bool
    priority: str
    max_pairs: int
    clustering: Clustering
    min_recall: float | None

    @classmethod
    def checked(
        cls,
        mode: Mode,
        removal: Removal,
        eps: float | None,
        threshold: float | None,
        floor: float | None,
        strict: bool,
        priority: str,
        max_pairs: int,
        clustering: Clustering | None,
        min_recall: float | None,
    ) -> Settings:
        """InputError or ValueError where they do not go together; names the argument."""
        require_option("mode", mode, Mode)
        require_option("removal", removal, Removal)
        if mode != "clustered":
            for name, value in (("clustering", clustering), ("min_recall", min_recall)):
                if value is not None:
                    raise InputError(f"{name}: goes with clustered mode, not with {mode} mode")
            if priority in CLUSTER_ORDERS:
                raise InputError(
                    f"priority: {priority!r} orders rows by their distance to a centroid, and {mode} mode has none"
                )
        limit = threshold_of(eps, threshold)
        if floor is not None and not -1 <= float(floor) <= limit:
            raise InputError(f"floor: expected -1 to the threshold, {limit:g}, got {floor:g}")
        lowest = None if floor is None else float(floor)
        return cls(mode, removal, limit, lowest, strict, priority, max_pairs, clustering or Clustering(), min_recall)

    @property
    def default_floor(self) -> float:
        """1 - 2 eps, at least -1, where none was given."""
        return max(-1.0, 2 * self.threshold - 1) if self.floor is None else self.floor

    def question(self) -> dict[str, Any]:
        """JSON of all that decides what is found, but for thresholds."""
        facts: dict[str, Any] = {
            "mode": self.mode,
            "metric": "cosine",
            "removal": self.removal,
            "strict": self.strict,
            "priority": self.priority,
        }
        if self.mode == "clustered":
            facts |= {"clustering": asdict(self.clustering), "min_recall": self.min_recall}
        return facts


def threshold_of(eps: float | None, threshold: float | None) -> float:
    """The threshold that was given, by one of the two, or 0.93."""
    if eps is not None and threshold is not None:
        raise InputError("eps, threshold: expected one of the two; threshold is 1 - eps")
    limit = float(threshold) if threshold is not None else round(1 - float(EPS if eps is None else eps), 12)
    name = "threshold" if threshold is not None else "eps"
    if not -1 <= float32_of(name, limit) <= 1:
        raise InputError(f"{name}: expected a cosine from -1 to 1 (eps from 0 to 2), got a threshold of {limit:g}")
    return limit


DEDUP_PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Abbas et al. (2023): spherical k-means, farthest from the centroid first, any earlier row removes, > 1 - eps.
    "semdedup": {
        "mode": "clustered",
        "clustering": Clustering(clusters=50_000, probes=0, iterations=100, seed=1234),
        "priority": "hard",
        "removal": "published",
        "strict": True,
        "eps": 0.07,
    },
    # NVIDIA NeMo Curator's of the same: >= 1 - eps, a smaller eps, more rounds of k-means.
    "semdedup-nemo": {
        "mode": "clustered",
        "clustering": Clustering(probes=0, iterations=300),
        "priority": "hard",
        "removal": "published",
        "strict": False,
        "eps": 0.01,
    },
    # Components at a cosine of 0.94, every pair compared.
    "dedup-clip94": {"mode": "exact", "removal": "component", "strict": False, "threshold": 0.94, "priority": UID},
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
