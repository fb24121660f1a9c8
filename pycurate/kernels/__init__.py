"""Arrays in, arrays out: the compiled kernels with checked arguments. The only importer of ``_core``."""

from __future__ import annotations

try:
    from pycurate import _core
except ImportError as error:
    raise ImportError(
        "pycurate's compiled module was not found or does not load: this looks like a source folder that was not "
        f"installed; run 'pip install -e .' in it ({error})"
    ) from error

Isa = _core.Isa
active_isa = _core.active_isa
detected_isa = _core.detected_isa
set_active_isa = _core.set_active_isa
thread_count = _core.thread_count

__all__ = ["Isa", "active_isa", "detected_isa", "set_active_isa", "thread_count"]
