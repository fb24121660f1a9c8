"""What a run of `pycurate.dedup` is told, checked; its defaults, and published settings by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pycurate.api.dedup_rows import UID
from pycurate.errors import InputError
from pycurate.io.names import unknown_name
from pycurate.kernels.arrays import float32_of, require_option
from pycurate.ops.dedup.removal import Removal
from pycurate.pipeline.cluster_join import Clustering
from pycurate.recipes.presets import build_preset
from pycurate.steps.duplicate_search import MAX_PAIRS
from pycurate.steps.semantic_dedup import CLUSTER_ORDERS, SemanticDedup

Mode: TypeAlias = Literal["exact", "clustered", "index"]
"""Where rows that are alike are looked for: everywhere; within clusters and across their borders; among the neighbours
that a vector index proposes."""

EPS = 0.07
"""Of Abbas et al. (2023), SemDeDup."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `pycurate.dedup` and `pycurate.plan_dedup` are told of the search, by the names that the first describes.

    Raises
    ------
    InputError, ValueError
        They do not go together, or one is not what it may be; names it.
    """

    mode: Mode = "exact"
    removal: Removal = "published"
    eps: float | None = None
    threshold: float | None = None
    floor: float | None = None
    strict: bool = False
    priority: str = UID
    clustering: Clustering | None = None
    min_recall: float | None = None
    max_pairs: int = MAX_PAIRS

    def __post_init__(self) -> None:
        require_option("mode", self.mode, Mode)
        require_option("removal", self.removal, Removal)
        if self.mode != "clustered":
            for name, value in (("clustering", self.clustering), ("min_recall", self.min_recall)):
                if value is not None:
                    raise InputError(f"{name}: goes with clustered mode, not with {self.mode} mode")
            if self.priority in CLUSTER_ORDERS:
                raise InputError(
                    f"priority: {self.priority!r} orders rows by their distance to a centroid, and {self.mode} mode "
                    "has none"
                )
        if self.min_recall is not None and not 0 <= self.min_recall <= 1:
            raise InputError(f"min_recall: expected a share from 0 to 1, got {self.min_recall:g}")
        limit = self.limit  # which checks it
        if self.floor is not None and not -1 <= float(self.floor) <= limit:
            raise InputError(f"floor: expected -1 to the threshold, {limit:g}, got {self.floor:g}")

    @property
    def limit(self) -> float:
        """The threshold, whichever way it was given."""
        return threshold_of(self.eps, self.threshold)

    @property
    def default_floor(self) -> float:
        """1 - 2 eps, at least -1, where none was given."""
        return max(-1.0, 2 * self.limit - 1) if self.floor is None else float(self.floor)

    @property
    def clusters(self) -> Clustering:
        """Of clustered mode, the default where none was given."""
        return self.clustering or Clustering()

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
            facts |= {"clustering": asdict(self.clusters), "min_recall": self.min_recall}
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


DEDUP_PRESETS = ("semdedup", "semdedup-nemo", "dedup-clip94")


def dedup_preset(name: str) -> dict[str, Any]:
    """The arguments of `pycurate.dedup` for a published setting, which is that of the recipe of this name.

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
    recipe = build_preset(name, {"embedding": "any"})
    assert recipe is not None
    (step,) = recipe.steps
    assert isinstance(step, SemanticDedup)
    chosen: dict[str, Any] = {"mode": step.mode, "removal": step.removal, "strict": step.strict, "eps": step.eps}
    chosen["priority"] = UID if step.keep == "lowest_uid" else step.keep
    return {**chosen, "clustering": step.clustering} if step.mode == "clustered" else chosen
