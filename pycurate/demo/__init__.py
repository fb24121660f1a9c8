"""A pool made by code alone, so that anybody can try pycurate without data or network."""

from __future__ import annotations

from pycurate.demo.pool import DemoPool, generate_demo_pool

__all__ = ["DemoPool", "generate_demo_pool"]
