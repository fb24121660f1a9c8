"""``pycurate index`` and ``pycurate search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pycurate.cli.options import (
    DeviceOption,
    JsonOption,
    LayoutOption,
    MemoryOption,
    OutOption,
    PoolArgument,
    QuietOption,
    parse_memory,
)
from pycurate.cli.terminal import progress_bars, show

ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the training sample.")]


def index(
    pool: PoolArgument,
    embedding: Annotated[str, typer.Option("--embedding", "-e", help="Such as l14_img.", show_default=False)],
    out: OutOption,
    kind: Annotated[str, typer.Option("--kind", help="auto, flat, ivf_flat, ivf_pq or hnsw.")] = "auto",
    metric: Annotated[str, typer.Option("--metric", help="cosine, inner_product or l2.")] = "cosine",
    nlist: Annotated[int | None, typer.Option("--nlist", min=1, help="Lists. Default: about sqrt(rows).")] = None,
    prefix: Annotated[int | None, typer.Option("--prefix", min=1, help="Index only the first coordinates.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Keep this column for --where. Default: all plain ones.")
    ] = None,
    seed: SeedOption = 0,
    layout: LayoutOption = None,
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build an index over an embedding of POOL, to be searched with `pycurate search`."""
    from pycurate.api.index import index_pool

    with progress_bars(quiet) as progress:
        result = index_pool(
            pool,
            embedding,
            out,
            kind=kind,  # type: ignore[arg-type]  # checked there, with a sentence
            metric=metric,  # type: ignore[arg-type]
            nlist=nlist,
            prefix=prefix,
            columns=column,
            seed=seed,
            layout=layout,  # type: ignore[arg-type]
            memory_bytes=parse_memory(memory),
            threads=threads,
            device=device,
            progress=progress,
        )
    show(result, as_json)


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index.", show_default=False)],
    uid: Annotated[str | None, typer.Option("--uid", metavar="HEX", help="Rows like this one.")] = None,
    vector: Annotated[
        Path | None, typer.Option("--vector", metavar="FILE", help="Rows like these: .npy of shape (d,) or (m, d).")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Rows to find.")] = 10,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help='Among these, such as "original_width > 300".')
    ] = None,
    nprobe: Annotated[int | None, typer.Option("--nprobe", min=1, help="Lists to look into.")] = None,
    ef: Annotated[int | None, typer.Option("--ef", min=1, help="Rows in view on the way through a graph.")] = None,
    prefix: Annotated[int | None, typer.Option("--prefix", min=1, help="Look by the first coordinates.")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the rows of an index most similar to a row or to vectors, nearest first."""
    from pycurate.api.search import search_index

    found = search_index(
        folder,
        uid=uid,
        vector=vector,
        k=k,
        where=where,
        nprobe=nprobe,
        ef=ef,
        prefix=prefix,
        threads=threads,
        device=device,
    )
    show(found, as_json)
