"""Every error that pycurate raises on purpose, and the exit code the command line gives it."""

from __future__ import annotations


class PycurateError(Exception):
    """Base of all errors raised on purpose; its text is a sentence a user can act on."""

    exit_code = 1


class InputError(PycurateError, ValueError):
    """An argument or a value is not what was expected; names it, what was expected, what came and what to do."""

    exit_code = 2


class TooManyPairsError(InputError):
    """More pairs than ``max_pairs`` allows."""


class RecipeError(InputError):
    """A recipe does not fit its model or the pool: unknown key, missing column, undefined score."""


class PoolError(PycurateError):
    """A pool on disk is wrong: unreadable, truncated, mismatched; names the shard and, where known, the row."""

    exit_code = 3

    def __init__(self, message: str, *, shard: str | None = None, row: int | None = None) -> None:
        place = "" if shard is None else f"shard {shard}" + ("" if row is None else f", row {row}") + ": "
        super().__init__(place + message)
        self.message, self.shard, self.row = message, shard, row

    def __reduce__(self) -> tuple[object, ...]:
        return (_pool_error, (type(self), self.message, self.shard, self.row))


def _pool_error(kind: type[PoolError], message: str, shard: str | None, row: int | None) -> PoolError:
    return kind(message, shard=shard, row=row)


class WorkspaceError(PycurateError):
    """The output or workspace cannot be used: not empty, in use by another run, unwritable, disk full."""

    exit_code = 4


class MemoryCapError(PycurateError):
    """The memory cap is too small for the work; says the least that is enough."""

    exit_code = 4


class RecallError(PycurateError):
    """An approximate join does not reach the recall that was asked for, or cannot be shown to; says which."""

    exit_code = 5


class MissingDependencyError(PycurateError):
    """A plug-in that the recipe names is not installed, or its model file is not where it was said to be."""

    exit_code = 2
