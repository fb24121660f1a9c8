"""``pycurate demo``: the whole way from a flawed pool to a subset, on rows that the package makes itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule as Line
from rich.text import Text

from pycurate.api.doctor import doctor
from pycurate.api.out import claim_out
from pycurate.api.plan import plan
from pycurate.api.reshard import reshard
from pycurate.api.run import RunResult, run
from pycurate.demo import generate_demo_pool
from pycurate.engine import NoProgress, Progress
from pycurate.io.atomic import write_json_atomic
from pycurate.recipes import Recipe
from pycurate.report.summary import render_summary

RECIPE = """\
name: demo
description: English captions of their own image, readable pictures, the better 60 % of what the pool holds.
steps:
  - clip_score: {embeddings: l14, as: clip_l14}
  - image_rules: {min_side: 200, max_aspect: 3}
  - caption_rules: {min_words: 3, min_chars: 6}
  - filter: "url NOT LIKE '%.gif' AND caption NOT ILIKE 'img\\\\_%' ESCAPE '\\\\'"
  - language: {languages: [en], detector: py3langid}
  - frequency: {key: caption, max_rows: 10}
  - threshold: {score: clip_b32_similarity_score, minimum: 0.2}
  - top_fraction: {score: clip_l14, fraction: 0.6, of: survivors}
"""


def run_demo(
    out: Path, *, rows: int = 50_000, progress: Progress | None = None, console: Console | None = None
) -> RunResult:
    """Generate a pool under ``out``, look it over, plan, curate, and write the tars of what was kept.

    Everything is a function of ``rows``: a second call finds the pool and the finished run and reuses them.
    """
    console = console or Console()
    progress = progress or NoProgress()
    claim_out(out)
    made = out / "generated.json"
    pool, damaged = out / "pool", out / "damaged"
    if made.exists() and json.loads(made.read_text())["rows"] == rows:
        console.print(f"Using the pool generated before in {pool}")
    else:
        started = time.perf_counter()
        facts = generate_demo_pool(out, rows)
        write_json_atomic(made, {"rows": rows, "planted": dict(facts.planted)})
        took = time.perf_counter() - started
        console.print(f"Generated {rows:,} image-text rows ({facts.bytes / 1e6:,.0f} MB) in {took:.1f} s: {pool}")
    recipe = Recipe.from_yaml(RECIPE)
    console.print(Line("pycurate doctor: a pool with a shard cut short"))
    console.print(doctor(damaged, progress=progress).render())
    console.print(Line("pycurate doctor: the pool"))
    console.print(doctor(pool, recipe, progress=progress).render())
    console.print(Line("pycurate plan"))
    console.print(plan(recipe, pool, out=out / "curated").render())
    console.print(Line("pycurate run"))
    result = run(recipe, pool, out / "curated", progress=progress)
    summary = render_summary(result.manifest, result.out, width=console.width, styled=console.is_terminal)
    console.print(Text.from_ansi(summary))
    console.print(Line("pycurate reshard"))
    console.print("Only some rows of this pool have a picture; uids of the others are not found, as meant.")
    console.print(reshard(pool, result.subset, out / "shards", progress=progress).render())
    console.print(
        f"\nSubset   {result.subset}\nLedger   {result.out / 'ledger'}\nReport   {result.out / 'report.html'}"
    )
    return result
