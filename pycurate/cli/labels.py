"""``pycurate labels``: one command a module, each registered here."""

from __future__ import annotations

import typer

from pycurate.cli.labels_propagate import propagate

labels_app = typer.Typer(no_args_is_help=True, help="Spread labels, find wrong ones, make missing ones.")
labels_app.command()(propagate)
