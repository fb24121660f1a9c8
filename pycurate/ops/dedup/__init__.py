"""Duplicates: which rows are alike, and which row of those alike survives."""

from __future__ import annotations
