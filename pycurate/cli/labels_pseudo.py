"""``pycurate labels pseudo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pycurate.cli.options import DeviceOption, JsonOption, LayoutOption, PoolArgument, QuietOption
from pycurate.cli.terminal import progress_bars, show


def pseudo(
    pool: PoolArgument,
    embedding: Annotated[str, typer.Option("--embedding", "-e", help="Of images, as l14_img.", show_default=False)],
    classes: Annotated[
        Path, typer.Option("--classes", metavar="FILE", help=".npy (K, d): text embeddings.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .parquet file to write.", show_default=False)],
    names: Annotated[
        Path | None, typer.Option("--names", metavar="FILE", help="A text file with the name of a class a line.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Rows of each class. Default: label all rows.")] = None,
    spill: Annotated[bool, typer.Option("--spill", help="Rows that lose go to their next class.")] = False,
    rank_by: Annotated[str, typer.Option("--rank-by", help="similarity or probability.")] = "similarity",
    scale: Annotated[float, typer.Option("--scale", help="Of similarities in the probability.")] = 100.0,
    minimum: Annotated[float | None, typer.Option("--minimum", help="Least score of a labelled row.")] = None,
    layout: LayoutOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")] = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Label rows by the class whose text embedding is most similar to their image (zero-shot)."""
    from pycurate.api.pseudo_label import pseudo_label

    with progress_bars(quiet) as progress:
        found = pseudo_label(
            pool,
            embedding,
            classes,
            out,
            class_names=names,
            k=k,
            spill=spill,
            rank_by=rank_by,  # type: ignore[arg-type]  # checked there, with a sentence
            scale=scale,
            minimum=minimum,
            layout=layout,  # type: ignore[arg-type]
            threads=threads,
            device=device,
            progress=progress,
        )
    show(found, as_json)
