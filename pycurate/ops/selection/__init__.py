"""Which rows of a pool to keep: exact top fractions over any number of shards."""

from __future__ import annotations
