"""``pycurate dedup POOL``, ``pycurate dedup curve DIR`` and ``pycurate dedup groups DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pycurate.cli.options import JsonOption, MemoryOption, OutOption, PoolArgument, QuietOption, parse_memory
from pycurate.cli.terminal import progress_bars, show

_RUN = "run"


class _PoolOrCommand(TyperGroup):
    """A group whose command is ``run`` where the first argument names none of the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


dedup_app = typer.Typer(
    cls=_PoolOrCommand,
    no_args_is_help=True,
    help="Remove rows whose embeddings are alike: `pycurate dedup POOL --out DIR`, then look at the curve.",
)
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.", show_default=False)]


@dedup_app.command(_RUN, help="Keep one of each group of rows that are alike. The word `run` may be left out.")
def dedup(
    pool: PoolArgument,
    out: OutOption,
    embedding: Annotated[
        str | None, typer.Option("--embedding", "-e", help="Such as l14_img. Not needed where there is one.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="semdedup, semdedup-nemo or dedup-clip94; options override it.")
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="exact or clustered. Default: exact.")] = None,
    removal: Annotated[
        str | None, typer.Option("--removal", help="published, greedy or component. Default: published.")
    ] = None,
    eps: Annotated[float | None, typer.Option("--eps", help="1 - similarity. Default: 0.07.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Similarity, instead of --eps.")] = None,
    floor: Annotated[
        float | None, typer.Option("--floor", help="Lowest threshold to answer later. Default: 1 - 2 eps.")
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict/--inclusive", help="Above the threshold, or also at it (default).")
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option("--priority", help="Stays first: a column, largest first; image_area; uid (default); hard, easy."),
    ] = None,
    clusters: Annotated[int | None, typer.Option("--clusters", min=1, help="Of clustered mode.")] = None,
    min_recall: Annotated[
        float | None, typer.Option("--min-recall", help="Of clustered mode: probe until it is certified.")
    ] = None,
    max_pairs: Annotated[int | None, typer.Option("--max-pairs", min=0, help="Of greedy removal.")] = None,
    append: Annotated[
        Path | None, typer.Option("--append", metavar="DIR", help="An earlier run, whose rows all come before these.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it takes and stop.")] = False,
    memory: MemoryOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep one of each group of rows that are alike."""
    from pycurate.api.dedup import dedup as run
    from pycurate.api.dedup_plan import plan_dedup
    from pycurate.api.dedup_presets import dedup_preset

    given = {
        "embedding": embedding, "mode": mode, "removal": removal, "eps": eps, "threshold": threshold, "floor": floor,
        "strict": strict, "priority": priority, "clusters": clusters, "min_recall": min_recall,
        "max_pairs": max_pairs, "append": append,
    }  # fmt: skip
    settings = {} if preset is None else dedup_preset(preset)
    if eps is not None or threshold is not None:
        settings = {name: value for name, value in settings.items() if name not in ("eps", "threshold")}
    settings |= {name: value for name, value in given.items() if value is not None}
    settings |= {"memory_bytes": parse_memory(memory), "threads": threads}
    if plan:
        show(plan_dedup(pool, **settings), as_json)
        return
    with progress_bars(quiet) as progress:
        result = run(pool, out, progress=progress, **settings)
    show(result, as_json)


@dedup_app.command("curve")
def curve(
    folder: Dir,
    eps: Annotated[list[float] | None, typer.Option("--eps", help="Show these. Default: 8 steps to the floor.")] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Pairs to show at each.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Kept rows against eps, with the least similar pairs that each eps still joins; writes curve.html."""
    from pycurate.api.dedup_curve import dedup_curve

    show(dedup_curve(folder, None if eps is None else [1 - value for value in eps], examples=examples), as_json)


@dedup_app.command("groups")
def groups(
    folder: Dir,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Groups to show, largest first.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """The largest groups of the last run: the row that is kept and those that are like it."""
    from pycurate.api.dedup_groups import dedup_groups

    show(dedup_groups(folder, count), as_json)
