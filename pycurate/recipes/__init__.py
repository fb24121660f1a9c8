"""Recipes: lists of steps, in YAML or Python, and the presets that the field knows by name."""

from __future__ import annotations

from pycurate.recipes.presets import preset_descriptions
from pycurate.recipes.recipe import Recipe

__all__ = ["Recipe", "preset_descriptions"]
