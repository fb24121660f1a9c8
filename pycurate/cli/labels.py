"""``pycurate labels``: one command a module, each registered here."""

from __future__ import annotations

import typer

from pycurate.cli.labels_subsets import balance, coreset

labels_app = typer.Typer(no_args_is_help=True, help="Spread labels, find wrong ones, make missing ones.")
labels_app.command("balance")(balance)
labels_app.command("coreset")(coreset)
