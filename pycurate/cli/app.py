"""The commands. Each imports what it needs when it is called, so that ``--help`` and completion stay quick."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pycurate.cli import options
from pycurate.cli.decontaminate import decontaminate, pack
from pycurate.cli.dedup import dedup_app
from pycurate.cli.index import index, search
from pycurate.cli.labels import labels_app
from pycurate.cli.options import (
    DeviceOption,
    DuplicatesOption,
    JsonOption,
    LayoutOption,
    MemoryOption,
    OutOption,
    PoolArgument,
    ProcessesOption,
    QuietOption,
    RecipeArgument,
    SetOption,
    WorkersOption,
    parse_memory,
    parse_parameters,
)
from pycurate.cli.subset import subset_app
from pycurate.cli.terminal import console, progress_bars, show
from pycurate.errors import InputError, PycurateError

if TYPE_CHECKING:
    from pycurate.io.pool import Pool
    from pycurate.report.manifest import Manifest

FINDINGS = 1
"""Exit code of a command that worked and found something wrong, such as a doctor with errors."""
INTERRUPTED = 130

app = typer.Typer(
    name="pycurate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Curate image-text pools: score, filter, explain, export.",
    epilog="Exit codes: 0 done, 1 findings or failure, 2 wrong usage or recipe, 3 bad pool, 4 disk, lock or memory, "
    "5 recall not reached, "
    "130 interrupted.",
)
app.add_typer(subset_app, name="subset")
app.add_typer(dedup_app, name="dedup")
app.add_typer(labels_app, name="labels")
app.command()(index)
app.command()(search)
app.command()(pack)
app.command()(decontaminate)
recipes_app = typer.Typer(help="Presets and what they do.", invoke_without_command=True)
app.add_typer(recipes_app, name="recipes")


def run_app() -> NoReturn:
    """Run the command line; every error raised on purpose becomes one sentence and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)  # a polite kill leaves the same resumable state as Ctrl-C
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # the option parser has caught Ctrl-C
            raise KeyboardInterrupt
    except PycurateError as error:
        _complain(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted; finished shards are kept: run the same command to continue")
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        code = FINDINGS
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()  # a usage error of the option parser
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _complain(sentence: str) -> None:
    console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escape(sentence)}", highlight=False)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_summary(manifest: Manifest, out: Path) -> None:
    from pycurate.report.summary import render_summary

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    print(render_summary(manifest, out, width=width, styled=terminal and "NO_COLOR" not in os.environ))


def _open(pool: str, layout: str | None) -> Pool:
    from pycurate.io.pool import open_pool

    return open_pool(pool, layout=layout)  # type: ignore[arg-type]


@app.command()
def run(
    recipe: RecipeArgument,
    pool: PoolArgument,
    out: OutOption,
    set_: SetOption = None,
    layout: LayoutOption = None,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
    processes: ProcessesOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Fingerprint whole files, not only their ends.")] = False,
    allow_duplicate_uids: DuplicatesOption = False,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Curate POOL by RECIPE: write subset.npy, ledger/, manifest.json and report.html into --out.

    Killed or interrupted, the same command continues. With another recipe in the same folder, what still holds is
    reused: a changed threshold reads no pool file.
    """
    from pycurate.api.run import run as run_recipe
    from pycurate.recipes import Recipe

    made = Recipe.load(recipe, **parse_parameters(set_))
    with progress_bars(quiet) as progress:
        result = run_recipe(
            made,
            _open(pool, layout),
            out,
            memory_bytes=parse_memory(memory),
            workers=workers,
            processes=processes,
            verify=verify,
            allow_duplicate_uids=allow_duplicate_uids,
            report=report,
            device=device,
            progress=progress,
        )
    if as_json:
        print(result.manifest.model_dump_json(indent=1))
    else:
        _print_summary(result.manifest, result.out)
        if result.reused:
            print("Nothing to do: this run was already finished here.")


@app.command()
def doctor(
    pool: PoolArgument,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Check what this recipe needs, too.")] = None,
    set_: SetOption = None,
    layout: LayoutOption = None,
    uniqueness: Annotated[bool, typer.Option(help="Look for repeated uids: 16 bytes a row of disk.")] = True,
    allow_duplicate_uids: DuplicatesOption = False,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Look a pool over before work: broken files, mismatched rows, bad rows, repeated uids. Exit code 1 on errors."""
    from pycurate.api.doctor import doctor as examine
    from pycurate.recipes import Recipe

    made = None if recipe is None else Recipe.load(recipe, **parse_parameters(set_))
    with progress_bars(quiet) as progress:
        report = examine(
            pool,
            made,
            layout=layout,  # type: ignore[arg-type]  # checked there, with a sentence
            uniqueness=uniqueness,
            allow_duplicate_uids=allow_duplicate_uids,
            memory_bytes=parse_memory(memory),
            workers=workers,
            progress=progress,
        )
    show(report, as_json)
    if not report.ok:
        raise typer.Exit(FINDINGS)


@app.command()
def plan(
    recipe: RecipeArgument,
    pool: PoolArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Count what an earlier run there can give.")] = None,
    set_: SetOption = None,
    layout: LayoutOption = None,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would read, hold, write and take, before anything runs."""
    from pycurate.api.plan import plan as make_plan
    from pycurate.recipes import Recipe

    made = Recipe.load(recipe, **parse_parameters(set_))
    show(
        make_plan(
            made,
            _open(pool, layout),
            out=out,
            memory_bytes=parse_memory(memory),
            workers=workers,
            processes=processes,
        ),
        as_json,
    )


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the presets."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from pycurate.recipes import preset_descriptions

    found = preset_descriptions()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("preset", style="bold", no_wrap=True)
    table.add_column("what it keeps")
    for name, description in found.items():
        table.add_row(_escape(name), _escape(description))
    console().print(table)


@recipes_app.command("show")
def recipesshow(name: Annotated[str, typer.Argument(help="A preset.")], set_: SetOption = None) -> None:
    """Print a preset as YAML: a start for a recipe of your own."""
    from pycurate.recipes import Recipe

    print(Recipe.load(name, **parse_parameters(set_)).to_yaml(), end="")


@app.command()
def reshard(
    pool: PoolArgument,
    subset: Annotated[Path, typer.Option("--subset", "-s", help="Uid file; repeated uids are written as copies.")],
    out: OutOption,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Samples in one tar.")] = 10_000,
    allow_duplicate_uids: DuplicatesOption = False,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the tars of a subset, every member's bytes untouched."""
    from pycurate.api.reshard import reshard as write_tars

    with progress_bars(quiet) as progress:
        result = write_tars(
            pool,
            subset,
            out,
            samples_per_shard=samples_per_shard,
            allow_duplicate_uids=allow_duplicate_uids,
            memory_bytes=parse_memory(memory),
            workers=workers,
            progress=progress,
        )
    show(result, as_json)


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(metavar="POOL", help="A pool; with --scores the folder of a run.", show_default=False)
    ],
    out: OutOption,
    subset: Annotated[Path | None, typer.Option("--subset", "-s", help="Uid file.")] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Write the scores of a run, keyed by uid.")] = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the metadata of a subset: the pool's parquet files with only the kept rows, every column as it was.

    With --scores, POOL is the output folder of a finished run, and its score columns are written by shard, for all rows
    or those of --subset.
    """
    from pycurate.api.export import export_parquet
    from pycurate.api.export_scores import export_scores

    if subset is None and not scores:
        raise InputError("--subset: expected the uid file of the rows to write; only --scores goes without")
    with progress_bars(quiet) as progress:
        if scores:
            show(export_scores(source, out, subset=subset, workers=workers, progress=progress), as_json)
        else:
            assert subset is not None
            show(export_parquet(source, subset, out, workers=workers, progress=progress), as_json)


@app.command()
def report(out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a finished run.")]) -> None:
    """Write report.html again and print the summary of a finished run."""
    from pycurate.report import read_manifest, write_report

    manifest = read_manifest(out)
    path = write_report(out)
    _print_summary(manifest, out)
    print(path)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("demo"),
    rows: Annotated[int, typer.Option(min=100, help="Rows of the generated pool.")] = 50_000,
    quiet: QuietOption = False,
) -> None:
    """Generate a pool of flawed image-text rows, look it over, curate it and say what was kept and why."""
    from pycurate.api.demo import run_demo

    with progress_bars(quiet) as progress:
        run_demo(out, rows=rows, progress=progress, console=console())


@app.command()
def bench(
    group: Annotated[str | None, typer.Argument(help="rowwise, uid, threshold, recipe ... Default: all.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Run the speed bars: fail where one is missed.")] = False,
) -> None:
    """Run the benchmark suite of a source checkout."""
    from pycurate.cli.bench import run_benchmarks

    raise typer.Exit(run_benchmarks(group, gate))


@app.command()
def info(as_json: JsonOption = False) -> None:
    """Versions, instruction sets, threads and default memory cap of this installation."""
    from pycurate.api.info import info as describe

    facts = describe()
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            print(f"{name:<18}{value}")


__all__ = ["app", "options", "run_app"]
