"""What the top package re-exports: each name opens, inspects, plans or runs, and says nothing to the terminal."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycurate.api.doctor import doctor
    from pycurate.api.plan import plan
    from pycurate.api.run import run
    from pycurate.io.pool import open_pool

_HOME = {
    "doctor": "pycurate.api.doctor",
    "open_pool": "pycurate.io.pool",
    "plan": "pycurate.api.plan",
    "run": "pycurate.api.run",
}
__all__ = ["doctor", "open_pool", "plan", "run"]


def __getattr__(name: str) -> Any:
    # The functions doctor, plan and run live in modules of the same names; once loaded, the function takes the name.
    if name not in _HOME:
        raise AttributeError(f"module 'pycurate.api' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
