"""Column names: the same thing under the names that different tools give it."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from pycurate.errors import InputError

ALIASES: dict[str, tuple[str, ...]] = {
    "caption": ("text", "TEXT", "alt_text"),
    "text": ("caption", "TEXT", "alt_text"),
    "url": ("URL", "image_url"),
    "original_width": ("width", "WIDTH"),
    "original_height": ("height", "HEIGHT"),
    "width": ("original_width", "WIDTH"),
    "height": ("original_height", "HEIGHT"),
}
"""Other stored names of a column, tried in order when the pool has no column of the name itself."""


def find_column(column: str, available: Collection[str]) -> str | None:
    """The stored name of a column: itself, or its first alias that is there; None when there is none."""
    if column in available:
        return column
    return next((name for name in ALIASES.get(column, ()) if name in available), None)


def unknown_name(kind: str, name: str, available: Collection[str], note: str = "") -> InputError:
    """The InputError for a column or embedding that the pool does not have: names what it has and the likely one."""
    close = difflib.get_close_matches(name, [*available, *ALIASES], n=1) if kind == "column" else []
    close = close or difflib.get_close_matches(name, list(available), n=1)
    guessed = bool(close) and (kind != "column" or find_column(close[0], available) is not None)
    then = f"; did you mean {close[0]!r}? It has" if guessed else "; it has"
    return InputError(f"{kind}: the pool has no {kind} {name!r}{note}{then}: {', '.join(sorted(available)) or 'none'}")
