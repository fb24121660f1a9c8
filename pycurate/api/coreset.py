"""``coreset``: the rows of a pool that represent all of them best, as a run of one step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pycurate.api.run import run
from pycurate.engine import Progress
from pycurate.errors import InputError
from pycurate.io.layouts import LayoutName
from pycurate.io.names import unknown_name
from pycurate.io.pool import Pool, open_pool
from pycurate.recipes import Recipe
from pycurate.steps import Coreset

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class CoresetResult:
    """What was kept, and how good that is.

    Attributes
    ----------
    rows, kept, unjudged
        Of the pool; in the subset; without an embedding that can be judged.
    description
        How they were chosen, with the certificate.
    out
        Folder with ``subset.npy``, the ledger and the report.
    """

    rows: int
    kept: int
    unjudged: int
    description: str
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "rows": self.rows, "kept": self.kept, "unjudged": self.unjudged, "description": self.description,
            "out": str(self.out),
        }  # fmt: skip

    def render(self) -> RenderableType:
        """For people."""
        from rich.text import Text

        told = f"{self.kept:,} of {self.rows:,} rows kept, {self.unjudged:,} cannot be judged\n"
        return Text(f"{told}{self.description}\nwritten to {self.out}")


def coreset(
    pool: Pool | str | os.PathLike[str],
    out: str | os.PathLike[str],
    embedding: str | None = None,
    *,
    rows: int | None = None,
    fraction: float | None = None,
    method: Literal["facility_location", "k_center"] = "facility_location",
    neighbors: int = 16,
    graph: Literal["exact", "ivf"] = "exact",
    parts: int | None = None,
    seed: int = 0,
    layout: LayoutName | None = None,
    memory_bytes: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> CoresetResult:
    """Keep the rows of a pool that represent all of them best: a run of the step ``coreset`` alone.

    Parameters
    ----------
    pool, out, memory_bytes, device, progress
        As `pycurate.run` takes them; ``out`` holds what a run writes.
    embedding
        Its name; not needed where the pool has one.
    rows, fraction, method, neighbors, graph, parts, seed
        As the step takes them.

    Raises
    ------
    InputError, RecipeError, PoolError, WorkspaceError, MemoryCapError
        As `pycurate.run`.
    """
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout=layout)
    names = opened.embeddings
    if embedding is None and len(names) != 1:
        listed = ", ".join(sorted(names)) or "none"
        raise InputError(f"embedding: expected the name of one, as the pool has {len(names)}: {listed}")
    chosen = next(iter(names)) if embedding is None else embedding
    if chosen not in names:
        raise unknown_name("embedding", chosen, names)
    step = Coreset(
        embedding=chosen, rows=rows, fraction=fraction, method=method, neighbors=neighbors, graph=graph, parts=parts,
        seed=seed,
    )  # fmt: skip
    recipe = Recipe(name="coreset", steps=[step])
    result = run(recipe, opened, out, memory_bytes=memory_bytes, device=device, progress=progress)
    manifest = result.manifest
    counts, rule = manifest.counts, manifest.steps[-1].rules[0]
    return CoresetResult(counts.rows, counts.kept, counts.unjudged, rule.description, result.out)
