"""``pycurate labels aggregate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pycurate.cli.options import JsonOption, OutOption
from pycurate.cli.terminal import show


def aggregate(
    votes: Annotated[
        Path,
        typer.Argument(
            metavar="VOTES", help=".npy, or a .parquet or .csv with a column an annotator.", show_default=False
        ),
    ],
    out: OutOption,
    method: Annotated[str, typer.Option("--method", help="majority, dawid-skene or label-model.")] = "dawid-skene",
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B,C", help="Of a table. Default: all but uid.")
    ] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Columns are classes and hold numbers of votes.")] = False,
    classes: Annotated[int | None, typer.Option("--classes", min=2, help="Default: as many as are voted for.")] = None,
    ties: Annotated[str, typer.Option("--ties", help="Of majority: lowest, rarest or abstain.")] = "lowest",
    as_json: JsonOption = False,
) -> None:
    """Make one label of the votes of many annotators or labelling functions: labels, soft labels and a report."""
    from pycurate.api.label_aggregate import aggregate_labels

    found = aggregate_labels(
        votes,
        out,
        method=method,  # type: ignore[arg-type]  # checked there, with a sentence
        columns=None if columns is None else columns.split(","),
        counts=counts,
        num_classes=classes,
        ties=ties,  # type: ignore[arg-type]
    )
    show(found, as_json)
