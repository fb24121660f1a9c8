"""Measures and keys of captions: Arrow columns in, arrays out."""

from __future__ import annotations
