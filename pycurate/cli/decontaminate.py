"""``pycurate pack`` and ``pycurate decontaminate``."""

from __future__ import annotations

from typing import Annotated

import typer

from pycurate.cli.options import (
    DeviceOption,
    DuplicatesOption,
    JsonOption,
    LayoutOption,
    MemoryOption,
    OutOption,
    PoolArgument,
    QuietOption,
    parse_memory,
)
from pycurate.cli.terminal import progress_bars, show
from pycurate.errors import InputError

ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME=TEXT", help="What an embedding was made with, such as l14_img=ViT-L-14."),
]


def pack(
    evalset: Annotated[
        str,
        typer.Argument(
            metavar="EVALSET", help="A pool, a folder of images, or tars: what pools must not hold.", show_default=False
        ),
    ],
    out: OutOption,
    name: Annotated[str | None, typer.Option("--name", help="As reports call it. Default: the folder's name.")] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option("--embedding", "-e", metavar="NAME[=STORED]", help="Hold this embedding, as NAME. Default: all."),
    ] = None,
    model: ModelOption = None,
    caption: Annotated[str | None, typer.Option("--caption", help="Column of captions. Default: recognised.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Column that items are called by. Default: the uid.")] = None,
    layout: LayoutOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a pack from an evaluation set, once, to compare pools with: `pycurate decontaminate`."""
    from pycurate.api.pack import build_pack

    named = None if embedding is None else dict(_named(text) for text in embedding)
    with progress_bars(quiet) as progress:
        made = build_pack(
            evalset,
            out,
            name=name,
            embeddings=named,
            models=_pairs("--model", model),
            caption=caption,
            id_column=id_,
            layout=layout,  # type: ignore[arg-type]  # checked there, with a sentence
            progress=progress,
        )
    show(made, as_json)


def decontaminate(
    pool: PoolArgument,
    against: Annotated[
        list[str], typer.Option("--against", metavar="PACK", help="A pack; more than once for several.")
    ],
    out: OutOption,
    similarity: Annotated[
        list[str] | None,
        typer.Option(
            "--similarity",
            metavar="[NAME=]COSINE",
            help="Remove rows from this cosine on, for one embedding or for all. Default: 0.95 for all.",
        ),
    ] = None,
    ngram: Annotated[
        int, typer.Option("--ngram", help="Remove captions that share so many words in a row, 3 to 8; 0: do not.")
    ] = 8,
    captions: Annotated[bool, typer.Option(help="Compare captions.")] = True,
    radius: Annotated[
        int | None,
        typer.Option("--radius", help="Compare perceptual hashes of images too: bits that may differ, such as 10."),
    ] = None,
    model: ModelOption = None,
    allow_duplicate_uids: DuplicatesOption = False,
    layout: LayoutOption = None,
    memory: MemoryOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")] = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the rows of POOL that are near any item of evaluation sets; write what remains as subset.npy.

    Killed or interrupted, the same command continues.
    """
    from pycurate.api.decontaminate import decontaminate as compare

    with progress_bars(quiet) as progress:
        found = compare(
            pool,
            against,
            out,
            similarity=_similarity(similarity),
            ngram=ngram or None,
            captions=captions,
            radius=radius,
            models=_pairs("--model", model),
            layout=layout,  # type: ignore[arg-type]  # checked there, with a sentence
            allow_duplicate_uids=allow_duplicate_uids,
            memory_bytes=parse_memory(memory),
            threads=threads,
            device=device,
            progress=progress,
        )
    show(found, as_json)


def _named(text: str) -> tuple[str, str]:
    name, _, stored = text.partition("=")
    return name, stored or name


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option}: expected NAME=TEXT, got {text!r}")
        pairs[name] = value
    return pairs


def _similarity(texts: list[str] | None) -> dict[str, float] | float | None:
    if not texts:
        return None
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            cosine = float(value)
        except ValueError:
            raise InputError(f"--similarity: expected COSINE or NAME=COSINE, got {text!r}") from None
        if not equals:
            if len(texts) > 1:
                raise InputError(f"--similarity: {text!r} is for all embeddings; give it alone, or each with its NAME=")
            return cosine
        found[name] = cosine
    return found
