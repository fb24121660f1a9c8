"""``pycurate subset``: algebra of uid files, streamed, so that neither side is ever loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pycurate.cli.options import JsonOption

subset_app = typer.Typer(no_args_is_help=True, help="Combine and compare uid subset files; repeats count as copies.")

A = Annotated[Path, typer.Argument(metavar="A", show_default=False)]
B = Annotated[Path, typer.Argument(metavar="B", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.", show_default=False)]


def _write(operation: str, a: Path, b: Path, out: Path) -> None:
    from pycurate.io.subset import subset_algebra

    rows = subset_algebra(operation, a, b, out)  # type: ignore[arg-type]
    print(f"{out}: {rows:,} rows")


@subset_app.command("and")
def intersect(a: A, b: B, out: Out) -> None:
    """Rows in both; a repeated uid as often as in the side that has it least."""
    _write("and", a, b, out)


@subset_app.command("or")
def union(a: A, b: B, out: Out) -> None:
    """Rows in either; a repeated uid as often as in the side that has it most."""
    _write("or", a, b, out)


@subset_app.command("plus")
def add(a: A, b: B, out: Out) -> None:
    """Rows of both, copies added up."""
    _write("plus", a, b, out)


@subset_app.command("minus")
def minus(
    a: A,
    b: B,
    out: Out,
    all_copies: Annotated[bool, typer.Option("--all-copies", help="Drop every copy of a uid that B has.")] = False,
) -> None:
    """Rows of A without those of B; copies count down one by one unless --all-copies."""
    _write("without" if all_copies else "minus", a, b, out)


@subset_app.command("info")
def info(a: A, as_json: JsonOption = False) -> None:
    """Rows, distinct uids, copies."""
    from pycurate.io.subset import Subset

    facts = Subset.load(a).info()
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            print(f"{name:<14}{value:,}" if isinstance(value, int) else f"{name:<14}{value}")


@subset_app.command("diff")
def diff(a: A, b: B, as_json: JsonOption = False) -> None:
    """How two subsets differ. Exit code 1 where they do."""
    from pycurate.io.subset import Subset
    from pycurate.io.subset import diff as compare

    found = compare(Subset.load(a), Subset.load(b))
    if as_json:
        print(json.dumps({"only_a": found.only_a, "only_b": found.only_b, "both": found.both}, indent=1))
    else:
        print(f"only in {a}: {found.only_a:,}\nonly in {b}: {found.only_b:,}\nin both: {found.both:,}")
    if found.only_a or found.only_b:
        raise typer.Exit(1)
