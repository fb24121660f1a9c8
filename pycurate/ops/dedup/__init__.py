"""Deduplication: functions of arrays, one published idea per module."""

from __future__ import annotations
