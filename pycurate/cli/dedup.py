"""``pycurate dedup POOL``, ``pycurate dedup curve DIR`` and ``pycurate dedup groups DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pycurate.cli.options import (
    DeviceOption,
    JsonOption,
    MemoryOption,
    OutOption,
    PoolArgument,
    QuietOption,
    parse_memory,
)
from pycurate.cli.terminal import progress_bars, show
from pycurate.errors import InputError

if TYPE_CHECKING:
    from pycurate.pipeline.cluster_join import Clustering

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
    mode: Annotated[str | None, typer.Option("--mode", help="exact, clustered or index. Default: exact.")] = None,
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
    probes: Annotated[
        str | None, typer.Option("--probes", help="Clusters that a row near a border is compared with, or exact.")
    ] = None,
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
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep one of each group of rows that are alike."""
    from pycurate.api.dedup import dedup as run_dedup
    from pycurate.api.dedup_append import dedup_append
    from pycurate.api.dedup_plan import plan_dedup
    from pycurate.api.dedup_settings import dedup_preset

    given = {"mode": mode, "removal": removal, "floor": floor, "strict": strict, "priority": priority}
    given["min_recall"] = min_recall
    settings = {} if preset is None else dedup_preset(preset)
    if eps is not None or threshold is not None:
        settings = {name: value for name, value in settings.items() if name not in ("eps", "threshold")}
    settings |= {name: value for name, value in given.items() if value is not None}
    if clusters is not None or probes is not None:
        settings["clustering"] = _clustering(settings.get("clustering"), clusters, probes)
    if append is not None and (settings or plan):
        _refuse_with_append(settings)
    shared = {"embedding": embedding, "eps": eps, "threshold": threshold, "max_pairs": max_pairs, "threads": threads}
    settings |= {name: value for name, value in shared.items() if value is not None}
    settings["memory_bytes"] = parse_memory(memory)
    if plan and device is not None:
        raise InputError("--device: not with --plan, which measures this machine's CPU")
    if plan:
        show(plan_dedup(pool, **settings), as_json)
        return
    with progress_bars(quiet) as progress:
        if append is not None:
            result = dedup_append(pool, out, append, device=device, progress=progress, **settings)
        else:
            result = run_dedup(pool, out, device=device, progress=progress, **settings)
    show(result, as_json)


def _refuse_with_append(settings: dict[str, Any]) -> None:
    named = [f"--{name.replace('_', '-')}" for name in settings] or ["--plan"]
    raise InputError(f"{', '.join(named)}: not with --append, which goes on as the earlier run began")


def _clustering(preset: Clustering | None, clusters: int | None, probes: str | None) -> Clustering:
    """That of the preset, or the default, with what was given."""
    from dataclasses import replace

    from pycurate.pipeline.cluster_join import Clustering

    made = preset or Clustering()
    if clusters is not None:
        made = replace(made, clusters=clusters)
    if probes is None:
        return made
    if probes != "exact" and not probes.isdigit():
        raise InputError(f"--probes: expected a number of clusters or exact, got {probes!r}")
    return replace(made, probes="exact" if probes == "exact" else int(probes))


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
