"""``pycurate labels propagate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pycurate.cli.options import DeviceOption, JsonOption, MemoryOption, OutOption, QuietOption, parse_memory
from pycurate.cli.terminal import progress_bars, show
from pycurate.errors import InputError

if TYPE_CHECKING:
    from pycurate.engine import Progress


def propagate(
    source: Annotated[
        Path, typer.Argument(metavar="GRAPH", help="Folder of a graph or of an index.", show_default=False)
    ],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", "-l", help=".npy, one a row; or .parquet or .csv with uid and label.", show_default=False
        ),
    ],
    out: OutOption,
    uids: Annotated[Path | None, typer.Option("--uids", help="Uids of the rows of a graph, .npy.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Neighbours a row, for an index. Default: 10.")] = None,
    graph_method: Annotated[str, typer.Option("--graph-method", help="exact, ivf or hnsw, for an index.")] = "exact",
    preset: Annotated[str | None, typer.Option("--preset", help="zhou, iscen or sklearn; options override it.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="spread, harmonic or vote. Default: spread.")] = None,
    solver: Annotated[
        str | None, typer.Option("--solver", help="power, chebyshev or cg. Default: what goes with the rest.")
    ] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="Share from the neighbours. Default: 0.9.")] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Labels a row keeps, for many classes. Default: all.")
    ] = None,
    weight: Annotated[
        str | None, typer.Option("--weight", help="Power of similarities, binary or exp. Default: 1.")
    ] = None,
    balance: Annotated[str | None, typer.Option("--balance", help="none, seeds or mass. Default: none.")] = None,
    sweeps: Annotated[int | None, typer.Option("--sweeps", min=1, help="At most. Default: 200.")] = None,
    tol: Annotated[float | None, typer.Option("--tol", help="Relative residual to reach. Default: 0.001.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option("--min-confidence", help="Also write subset.npy of rows as sure as this.")
    ] = None,
    memory: MemoryOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")] = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Spread the labels of some rows over all, along a graph of neighbours: labels.parquet with how sure each is.

    Killed or interrupted, the same command continues.
    """
    from pycurate.api.labels_propagate import propagate_label_file

    with progress_bars(quiet) as progress:
        told = _Sweeps(progress)
        result = propagate_label_file(
            source,
            labels,
            out,
            uids=uids,
            k=k,
            graph_method=graph_method,  # type: ignore[arg-type]  # checked there, with a sentence
            preset=preset,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            solver=solver,  # type: ignore[arg-type]
            alpha=alpha,
            top=top,
            weight=_weight(weight),  # type: ignore[arg-type]
            balance=balance,  # type: ignore[arg-type]
            sweeps=sweeps,
            tol=tol,
            min_confidence=min_confidence,
            memory_bytes=parse_memory(memory),
            threads=threads,
            device=device,
            progress=told,
        )
        told.finish()
    show(result, as_json)


class _Sweeps:
    """Tells bars of sweeps, whose number is not known before."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._begun = progress, False

    def __call__(self, number: int, change: float) -> None:
        if self._begun:
            self._progress.finish()
        self._progress.start(f"sweep {number}, change {change:.3g}", 1)
        self._begun = True

    def finish(self) -> None:
        """The last is done."""
        if self._begun:
            self._progress.finish()


def _weight(text: str | None) -> float | str | None:
    if text in (None, "binary", "exp"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--weight: expected a power such as 3, binary or exp, got {text!r}") from error
