"""``pycurate labels``: one command a module, each registered here."""

from __future__ import annotations

import typer

from pycurate.cli.labels_noise import noise
from pycurate.cli.labels_pseudo import pseudo

labels_app = typer.Typer(no_args_is_help=True, help="Spread labels, find wrong ones, make missing ones.")
labels_app.command()(noise)
labels_app.command()(pseudo)
