"""Output folders: this package writes only where it may."""

from __future__ import annotations

from pathlib import Path

import pycurate
from pycurate.errors import WorkspaceError
from pycurate.io.atomic import TEMPORARY_SUFFIX, write_json_atomic
from pycurate.io.store import RUN_MARKER


def claim_out(out: Path) -> Path:
    """``out`` as a folder this package may write in: new, empty, or marked by an earlier run."""
    marker = out / RUN_MARKER
    try:
        # A run killed while it wrote the marker leaves a temporary file and nothing else.
        others = [path for path in out.iterdir() if not path.name.endswith(TEMPORARY_SUFFIX)] if out.exists() else []
        if others and not marker.exists():
            raise WorkspaceError(
                f"out: {out} is not empty and is not from an earlier pycurate run; choose another folder or empty it"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"out: cannot use {out} as a folder ({error.strerror}); choose another") from error
    if not marker.exists():
        write_json_atomic(marker, {"made by": "pycurate", "version": pycurate.__version__})
    return out
