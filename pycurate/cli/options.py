"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pycurate.errors import InputError

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="Folder or URL of a pool.", show_default=False)]
RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A preset (see `pycurate recipes`) or a YAML file.", show_default=False)
]
LayoutOption = Annotated[
    str | None, typer.Option("--layout", help="datacomp, img2dataset, clip_retrieval or plain. Default: recognised.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the preset, such as fasttext_model=lid.176.bin."),
]
MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Memory cap, such as 600M or 8G. Default: half of what is allowed."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Tasks at a time. Default: the processors.")
]
ProcessesOption = Annotated[
    bool | None,
    typer.Option("--processes/--threads", help="Score in processes or threads. Default: what the recipe needs."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Where rows are compared: cpu (default), cuda, cuda:1, cuda:0,1 or auto. Nothing written depends on it.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)]
DuplicatesOption = Annotated[
    bool, typer.Option("--allow-duplicate-uids", help="Order equal uids by (shard, row) instead of refusing them.")
]


def parse_memory(text: str | None) -> int | None:
    """Bytes of ``600M``, ``1.5GiB``, ``8 GB``; units are powers of 1,024."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([BKMGT]?)(?:I?B)?\s*", text.upper())
    if match is None:
        raise InputError(f"--memory: expected a size such as 600M or 8G, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_parameters(pairs: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; values are read as YAML scalars, so that 0.3 is a number and true a truth value."""
    import yaml

    parameters: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--set: expected KEY=VALUE, got {pair!r}")
        parameters[key] = yaml.safe_load(value)
    return parameters
