"""``pycurate labels``: one command a module, each registered here."""

from __future__ import annotations

import typer

from pycurate.cli.labels_aggregate import aggregate
from pycurate.cli.labels_issues import issues
from pycurate.cli.labels_noise import noise
from pycurate.cli.labels_propagate import propagate
from pycurate.cli.labels_pseudo import pseudo
from pycurate.cli.labels_subsets import balance, coreset

labels_app = typer.Typer(no_args_is_help=True, help="Spread labels, find wrong ones, make missing ones.")
labels_app.command()(noise)
labels_app.command()(pseudo)
labels_app.command()(issues)
labels_app.command()(aggregate)
labels_app.command()(propagate)
labels_app.command("balance")(balance)
labels_app.command("coreset")(coreset)
