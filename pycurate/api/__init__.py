"""What the command line calls and the top package re-exports: one function a module, silent on the terminal."""

from __future__ import annotations
