"""Numbers for people, as the report and the terminal write them."""

from __future__ import annotations

_GAP = "\N{NO-BREAK SPACE}"  # a number stays on the line of its unit


def format_value(value: float | None, digits: int = 4) -> str:
    """A score for people: ``digits`` significant digits, thousands apart, no trailing zeros, a true minus sign."""
    if value is None:
        return "–"
    if abs(value) >= 1e15:
        text = f"{value:.{digits}g}"
    elif value == int(value):
        text = f"{int(value):,}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "−")


def format_share(part: int, whole: int) -> str:
    """A share in percent; what is there never reads 0 %, what is not all never 100 %."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return f"<{_GAP}0.1{_GAP}%"
    if 99.95 <= share < 100:
        return f">{_GAP}99.9{_GAP}%"
    return f"{share:.1f}{_GAP}%"


def format_bytes(count: int | None) -> str:
    """Bytes in decimal units, three digits."""
    if count is None:
        return "not measured"
    size, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.3g}{_GAP}{unit}" if size < 999.5 else f"{size:,.0f}{_GAP}{unit}"


def format_seconds(seconds: float) -> str:
    """A duration: 0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 59.95:
        return f"{seconds:.2f}{_GAP}s" if seconds < 9.995 else f"{seconds:.1f}{_GAP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_GAP}min {whole % 60:02d}{_GAP}s"
    return f"{whole // 3600}{_GAP}h {whole % 3600 // 60:02d}{_GAP}min"
