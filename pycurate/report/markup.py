"""Pieces of HTML that the sections of a report share. Whatever comes from a pool is escaped: it is hostile input."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path


def page(title: str, body: str) -> str:
    """A page without network, scripts or links to outside; ``body`` is HTML."""
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def text(value: object) -> str:
    """Text that stays text, between tags and in a quoted attribute."""
    return escape(str(value))


def count(number: int, noun: str) -> str:
    """``"1 row"``, ``"2,000 rows"``."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def description_rows(pairs: Iterable[tuple[str, str]]) -> str:
    """Rows of a description list; the values are HTML."""
    return "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>\n" for name, value in pairs)


def shortened(value: str, chars: int) -> str:
    """At most ``chars`` characters, cut at the last space among them where there is one."""
    if len(value) <= chars:
        return value
    return value[: chars - 1].rsplit(" ", 1)[0] + "…"


def picture(image: str | None, note: str | None, pixels: int) -> str:
    """A thumbnail (base64 JPEG), or a box of its size that says why there is none."""
    if image:
        return f'<img src="data:image/jpeg;base64,{text(image)}" alt="" width="{pixels}" height="{pixels}">'
    return f'<span class="no-image">{text(note or "no picture")}</span>'
