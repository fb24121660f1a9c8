from __future__ import annotations

import io

from rich.console import Console

from pycurate.engine.bars import RichProgress


def test_bars_tell_stage_shards_and_rate() -> None:
    screen = io.StringIO()
    with RichProgress(Console(file=screen, force_terminal=True, width=120)) as progress:
        progress.start("scan", 2)
        progress.advance(1_000, 5_000_000)
        progress.advance(1_000)
        progress.finish()
        progress.start("fit", 1)
        progress.finish()
    printed = screen.getvalue()
    assert "scan" in printed
    assert "2/2" in printed
    assert "rows/s" in printed
    assert "MB/s" in printed
    assert "1/1" in printed
