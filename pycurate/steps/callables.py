"""Python functions that users bring: found by name, told apart by version."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from pycurate.errors import MissingDependencyError, RecipeError


def resolve_callable(function: str | Callable[..., Any], key: str) -> Callable[..., Any]:
    """The function itself, or the one that ``"module:name"`` names.

    Raises
    ------
    MissingDependencyError
        The module cannot be imported.
    RecipeError
        The text is not of that form, or the module has no such function.
    """
    return _import(function, key) if isinstance(function, str) else function


@cache
def _import(reference: str, key: str) -> Callable[..., Any]:
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise RecipeError(f"{key}: expected 'module:function', got {reference!r}")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingDependencyError(f"{key}: module {module_name!r} cannot be imported ({error})") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise RecipeError(f"{key}: module {module_name!r} has no function {name!r}")
    function: Callable[..., Any] = found
    return function


def is_importable(function: str | Callable[..., Any]) -> bool:
    """True where another process can find the function under its name: not a lambda, nor one made inside another."""
    if isinstance(function, str):
        return True
    module_name, _, name = callable_name(function).partition(":")
    found: Any = sys.modules.get(module_name)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is function and module_name != "__main__"


def callable_name(function: str | Callable[..., Any]) -> str:
    """``module:name`` of a function: how YAML and the workspace call it."""
    if isinstance(function, str):
        return function
    kind = type(function)
    module = getattr(function, "__module__", kind.__module__)
    return f"{module}:{getattr(function, '__qualname__', kind.__qualname__)}"
