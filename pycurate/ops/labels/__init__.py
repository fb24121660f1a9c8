"""Labels: spread few over many rows, find the wrong ones, make and weigh the missing ones."""

from __future__ import annotations
