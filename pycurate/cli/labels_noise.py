"""``pycurate labels noise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pycurate.cli.options import (
    DeviceOption,
    JsonOption,
    LayoutOption,
    MemoryOption,
    PoolArgument,
    QuietOption,
    parse_memory,
)
from pycurate.cli.terminal import progress_bars, show


def noise(
    pool: PoolArgument,
    embedding: Annotated[str, typer.Option("--embedding", "-e", help="Such as l14_img.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .parquet file to write.", show_default=False)],
    label: Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Column of POOL with labels.")] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Labels by row or uid: .npy, .parquet or .csv.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of a row.")] = 10,
    method: Annotated[str, typer.Option("--method", help="simifeat, simifeat-rank or vote.")] = "simifeat",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Of SimiFeat.")] = 21,
    fraction: Annotated[float, typer.Option("--fraction", help="Of the rows, in each round.")] = 0.9,
    seed: Annotated[int, typer.Option("--seed", help="Of the rounds.")] = 0,
    layout: LayoutOption = None,
    memory: MemoryOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")] = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find labels that the labels of similar rows refute, and what these say instead."""
    from pycurate.api.label_noise import label_noise

    with progress_bars(quiet) as progress:
        found = label_noise(
            pool,
            embedding,
            out,
            label=label,
            labels=labels,
            k=k,
            method=method,  # type: ignore[arg-type]  # checked there, with a sentence
            rounds=rounds,
            fraction=fraction,
            seed=seed,
            layout=layout,  # type: ignore[arg-type]
            memory_bytes=parse_memory(memory),
            threads=threads,
            device=device,
            progress=progress,
        )
    show(found, as_json)
