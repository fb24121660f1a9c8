"""Fused similarity out of core: pairs of blocks of rows are tasks, and what a task finds is kept on disk."""

from __future__ import annotations

from pycurate.pipeline.block_join.join import SimilarityJoin
from pycurate.pipeline.block_join.source import RowSource, Source

__all__ = ["RowSource", "SimilarityJoin", "Source"]
