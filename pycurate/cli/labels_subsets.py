"""``pycurate labels balance`` and ``pycurate labels coreset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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

SeedOption = Annotated[int, typer.Option("--seed", help="Of the draws.")]


def balance(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Labels as .npy, .parquet or .csv.", show_default=False)
    ],
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="POOL", help="The pool of the rows. Needed for a subset.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write. Default: print only.")] = None,
    cap: Annotated[int | None, typer.Option("--cap", help="The most rows of a class.")] = None,
    total: Annotated[
        int | None, typer.Option("--total", help="Rows in all: of each class equally many, or all it has.")
    ] = None,
    floor: Annotated[int, typer.Option("--floor", help="With --total: rows that a class keeps at least.")] = 0,
    repeat: Annotated[
        float | None,
        typer.Option("--repeat", metavar="SHARE", help="Take rows of rarer classes several times, such as 0.001."),
    ] = None,
    seed: SeedOption = 0,
    layout: LayoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """How unequal the classes of LABELS are; with a rule, a subset of POOL in which they are more equal."""
    from pycurate.api.balance_labels import balance_labels
    from pycurate.io.pool import open_pool

    opened: Any = None
    if pool is not None:
        opened = open_pool(pool, layout=layout)  # type: ignore[arg-type]  # checked there, with a sentence
    show(balance_labels(labels, opened, out, cap=cap, total=total, floor=floor, repeat=repeat, seed=seed), as_json)


def coreset(
    pool: PoolArgument,
    out: OutOption,
    embedding: Annotated[
        str | None, typer.Option("--embedding", "-e", help="Such as l14_img. Not needed where there is one.")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", "-k", help="Rows to keep.")] = None,
    fraction: Annotated[float | None, typer.Option("--fraction", help="Share of the rows to keep, instead.")] = None,
    method: Annotated[str, typer.Option("--method", help="facility_location or k_center.")] = "facility_location",
    neighbors: Annotated[int, typer.Option("--neighbors", min=1, help="Of facility location.")] = 16,
    graph: Annotated[str, typer.Option("--graph", help="exact or ivf.")] = "exact",
    parts: Annotated[
        int | None, typer.Option("--parts", min=1, help="Clusters that first choose on their own.")
    ] = None,
    seed: SeedOption = 0,
    layout: LayoutOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep the rows of POOL that represent all of them best."""
    from pycurate.api.coreset import coreset as choose

    with progress_bars(quiet) as progress:
        found = choose(
            pool,
            out,
            embedding,
            rows=rows,
            fraction=fraction,
            method=method,  # type: ignore[arg-type]  # checked there, with a sentence
            neighbors=neighbors,
            graph=graph,  # type: ignore[arg-type]
            parts=parts,
            seed=seed,
            layout=layout,  # type: ignore[arg-type]
            memory_bytes=parse_memory(memory),
            device=device,
            progress=progress,
        )
    show(found, as_json)
