"""What the commands print, and their progress bars."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from pycurate.engine import Progress


def console(**settings: Any) -> Console:
    """A console of rich; ``settings`` are its arguments."""
    from rich.console import Console  # here: 50 ms with what it draws, also for commands that print JSON

    return Console(**settings)


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Progress]:
    """Bars on standard error where a person sees them, else silence."""
    if quiet or not sys.stderr.isatty():
        from pycurate.engine.progress import NoProgress

        yield NoProgress()
    else:
        from pycurate.engine.bars import RichProgress

        with RichProgress() as bars:
            yield bars


def show(value: Any, as_json: bool) -> None:
    """Print what the API returned: ``to_dict()`` as JSON, else its ``render()``."""
    if as_json:
        print(json.dumps(value.to_dict(), indent=1))
    else:
        console().print(value.render())
