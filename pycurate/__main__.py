"""``python -m pycurate``."""

from __future__ import annotations

from pycurate.cli import main

if __name__ == "__main__":
    main()
