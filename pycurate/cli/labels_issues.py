"""``pycurate labels issues``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pycurate.cli.options import DeviceOption, JsonOption, LayoutOption, OutOption
from pycurate.cli.terminal import show


def issues(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help=".npy, .parquet or .csv.", show_default=False)],
    pred_probs: Annotated[
        Path, typer.Argument(metavar="PROBS", help=".npy (rows, classes), or a folder of them.", show_default=False)
    ],
    out: OutOption,
    classes: Annotated[
        int | None, typer.Option("--classes", min=1, help="Where PROBS has the largest few of each row only.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="POOL", help="The rows' pool: matches uids, shows captions.")
    ] = None,
    graph: Annotated[
        Path | None, typer.Option("--graph", metavar="DIR", help="Neighbours to show: a folder of pycurate.knn_graph.")
    ] = None,
    filter_by: Annotated[
        str,
        typer.Option(
            "--filter",
            help="prune_by_noise_rate, prune_by_class, both, confident_learning, predicted_neq_given, "
            "low_normalized_margin or low_self_confidence.",
        ),
    ] = "prune_by_noise_rate",
    rank_by: Annotated[
        str,
        typer.Option("--rank-by", help="self_confidence, normalized_margin or confidence_weighted_entropy."),
    ] = "self_confidence",
    frac_noise: Annotated[float, typer.Option("--frac-noise", help="Share of the issues that pruning takes.")] = 1.0,
    layout: LayoutOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: the processors.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find labels that out-of-sample class probabilities refute: scores, suggestions and a report."""
    from pycurate.api.label_issues import label_issues

    found = label_issues(
        labels,
        pred_probs,
        out,
        num_classes=classes,
        pool=pool,
        layout=layout,
        graph=graph,
        filter_by=filter_by,  # type: ignore[arg-type]  # checked there, with a sentence
        rank_by=rank_by,  # type: ignore[arg-type]
        frac_noise=frac_noise,
        threads=threads,
        device=device,
    )
    show(found, as_json)
