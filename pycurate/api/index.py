"""``index_pool``: an index over one embedding of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from pycurate.engine import NoProgress, Progress, default_memory_bytes
from pycurate.index import Kind, VectorIndex, build_index
from pycurate.index.kinds import plan_index
from pycurate.io.images import COMPUTED_TYPES
from pycurate.io.layouts import LayoutName
from pycurate.io.names import unknown_name
from pycurate.io.pool import Pool, open_pool
from pycurate.io.uids import UID_COLUMN
from pycurate.kernels.device import device_of
from pycurate.kernels.rowwise import Metric
from pycurate.types import Block


@dataclass(frozen=True, slots=True, eq=False)
class IndexReport:
    """What a finished `index_pool` wrote."""

    index: VectorIndex

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the folder and its manifest."""
        facts = {name: value for name, value in self.index.manifest.items() if name != "files"}
        return {"out": str(self.index.folder), "bytes": self._bytes, **facts}

    def render(self) -> str:
        """For people."""
        facts, unjudged = self.index.manifest, self.index.manifest["unjudged"]
        lists = f", {facts['nlist']:,} lists" if facts["nlist"] else ""
        prefix = f", by the first {facts['prefix']} coordinates" if facts["prefix"] else ""
        lines = [
            f"index    {facts['kind']}{lists}, {facts['metric']}{prefix}",
            f"rows     {facts['rows']:,} of {facts['dimension']} elements of {facts['element']}",
        ]
        if unjudged["rows"]:
            named = ", ".join(f"{row:,}" for row in unjudged["first"])
            more = ", ..." if unjudged["rows"] > len(unjudged["first"]) else ""
            lines.append(
                f"left out {unjudged['rows']:,} rows that cannot be judged (not finite or of length 0): {named}{more}"
            )
        if (made := facts.get("certificate")) is not None:
            lines.append(
                f"recall   @{made['k']} {made['recall']:.3f}, at least {made['lower_bound']:.3f} with "
                f"{made['confidence']:.0%} confidence, on {made['rows']:,} rows with default settings"
            )
        lines.append(f"columns  {', '.join(facts['columns']) or 'none'}")
        lines.append(f"to       {self.index.folder} ({self._bytes / (1 << 20):,.1f} MiB)")
        return "\n".join(lines)

    @property
    def _bytes(self) -> int:
        return sum(int(entry["bytes"]) for entry in self.index.manifest["files"].values())


def index_pool(
    pool: Pool | str | os.PathLike[str],
    embedding: str,
    out: str | os.PathLike[str],
    *,
    kind: Kind | Literal["auto"] = "auto",
    metric: Metric = "cosine",
    nlist: int | None = None,
    prefix: int | None = None,
    columns: Sequence[str] | None = None,
    seed: int = 0,
    layout: LayoutName | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Read one embedding, the uids and the attributes of a pool once, and build an index in a folder.

    Rows are numbered in the order of the pool's shards.

    Parameters
    ----------
    pool
        A pool, or its path or URL.
    embedding
        Name of the embedding, such as ``l14_img``.
    out
        A folder: new, empty, or of an earlier index.
    kind, metric, nlist, prefix, seed, threads, device
        As in `pycurate.build_index`.
    columns
        Columns to keep in the index, for filters and to show; by default all of numbers, texts, truth values and
        times, but not ``uid``, which is kept anyway, and not image sizes that would have to be looked up in tars.
    memory_bytes
        Memory cap; default half of what is allowed.
    progress
        Told of stored rows and of the stages after. Default: silence.

    Raises
    ------
    InputError, MemoryCapError, PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    device_of(device)  # that there is such a GPU, before anything is read
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout=layout)
    if embedding not in opened.embeddings:
        raise unknown_name("embedding", embedding, opened.embeddings)
    info = opened.embeddings[embedding]
    kept = _plain_columns(opened) if columns is None else [opened.stored_name(name) for name in columns]
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes
    indexed = min(prefix or info.dimension, info.dimension)
    plan_index(kind, opened.rows, indexed, element=info.dtype, memory_limit_bytes=limit, nlist=nlist)  # before reading
    told = progress or NoProgress()
    told.start("storing rows", len(opened.shards))

    def tell(stage: str) -> None:
        if stage != "storing rows":
            told.finish()
            told.start(stage, 1)

    index = build_index(
        _blocks(opened, embedding, kept, told),
        out,
        metric=metric,
        kind=kind,
        memory_limit_bytes=limit,
        nlist=nlist,
        prefix=prefix,
        seed=seed,
        source=_source(opened, embedding),
        threads=threads,
        dtype="bfloat16" if info.dtype == "bfloat16" else None,
        device=device,
        progress=tell,
    )
    told.finish()
    return IndexReport(index)


def _source(pool: Pool, embedding: str) -> dict[str, Any]:
    return {
        "pool": pool.root,
        "layout": pool.layout,
        "embedding": embedding,
        "shards": len(pool.shards),
        "uid_source": pool.uid_source,
    }


def _blocks(pool: Pool, embedding: str, columns: Sequence[str], progress: Progress) -> Iterator[Block]:
    for shard in pool.shards:
        yield from shard.blocks(columns, (embedding,))
        progress.advance(shard.rows)


def _plain_columns(pool: Pool) -> list[str]:
    """Columns of one value a row that an expression can use, as far as they are stored."""
    left_out = {UID_COLUMN} if pool.uid_source == "column" else set()
    stored = pool.shards[0].table.schema.names if pool.shards[0].table is not None else []
    left_out |= {name for name in COMPUTED_TYPES if name not in stored}
    types = pool.shards[0].types
    return [name for name in pool.columns if name not in left_out and _is_plain(types[name])]


def _is_plain(kind: pa.DataType) -> bool:
    is_one = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or any(test(kind) for test in is_one)
