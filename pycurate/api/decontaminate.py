"""``decontaminate``: the rows of a pool that are near no item of any evaluation set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pycurate.api.contamination_report import ContaminationReport, write_report_files
from pycurate.api.contamination_shards import ShardComparison
from pycurate.api.out import claim_out
from pycurate.engine import NoProgress, Progress, default_memory_bytes
from pycurate.errors import InputError
from pycurate.io.atomic import write_json_atomic
from pycurate.io.layouts import LayoutName
from pycurate.io.pack import Pack, open_pack
from pycurate.io.pool import Pool, open_pool
from pycurate.kernels.device import device_of
from pycurate.pipeline.external_sort import merge_runs
from pycurate.pipeline.image_index import images_at_hand
from pycurate.pipeline.workspace import Workspace, digest
from pycurate.steps.contamination import Measure, find_measures, left_out

_FORMAT = 1  # bumped when the same input gives other files


def decontaminate(
    pool: Pool | str | os.PathLike[str],
    against: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    similarity: Mapping[str, float] | float | None = None,
    ngram: int | None = 8,
    captions: bool = True,
    radius: int | None = None,
    models: Mapping[str, str] | None = None,
    layout: LayoutName | None = None,
    allow_duplicate_uids: bool = False,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> ContaminationReport:
    """Find the rows of a pool that are near any item of evaluation sets, and write the rest as a subset.

    A row is removed when, for any item of any pack: both have the same uid; the bytes of their images are equal
    (sha256) or, where that is asked for, their perceptual hashes are near; the cosine of an embedding that both have is
    at or above its threshold (exact, all pairs); their captions are equal once normalised, or share an n-gram of words.
    Rows that a measure cannot judge (no caption, a zero or non-finite vector) are not removed by it and are counted.
    Every shard is read once; a killed call continues when it is repeated.

    Parameters
    ----------
    pool
        A pool, or its path or URL.
    against
        Packs that `pycurate.build_pack` wrote; their embeddings are held in memory.
    out
        A folder: new, empty, or of an earlier call; ``docs/decontamination.md`` lists the files.
    similarity
        Embedding -> least cosine of a removed row; one number for every embedding that the pool shares with a pack;
        an empty mapping for none. Default 0.95 for all.
    ngram
        Words of an n-gram that a removed row has in common with an item, 3 to 8; None: n-grams are not compared.
    captions
        False: captions are not compared at all.
    radius
        Most bits in which the 64-bit perceptual hashes of a removed row's image and of an item's differ; 10 is usual.
        Reads and decodes every image of the pool. None (default): they are not compared.
    models
        Embedding -> what the pool's was made with; an error where a pack states another.
    allow_duplicate_uids
        Write a uid that occurs more than once as often as it remains, instead of refusing it.
    memory_bytes
        Memory cap of the sort of the uids that remain; default half of what is allowed.
    device
        Where embeddings are compared, as in `pycurate.pairs_above`; captions and hashes are on the CPU. The files are
        the same, and a call that was stopped may go on with another device.

    Raises
    ------
    InputError
        A pack that cannot be read, another dimension or model, a pack with which nothing can be compared.
    PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    device_of(device)  # that there is such a GPU, before anything is written
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout=layout)
    given = [against] if isinstance(against, str | os.PathLike) else list(against)
    if not given:
        raise InputError("against: expected at least one pack, got none; build one with 'pycurate pack'")
    packs = [open_pack(path) for path in given]
    measures = find_measures(opened, packs, similarity, ngram, captions, radius, models or {})
    folder = claim_out(Path(out).absolute())
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes
    with Workspace(folder / "workspace").lock():
        with ExitStack() as stack:
            if any(measure.kind == "phash" for measure in measures):
                opened = stack.enter_context(images_at_hand(opened))
            comparison = _compare(opened, packs, measures, folder, threads, device, progress or NoProgress())
        shards = [shard for shard in opened.shards if shard.rows]
        runs = [comparison.run_path(shard) for shard in shards]
        merge_runs(runs, folder / "subset.npy", limit, unique=not allow_duplicate_uids)
        found = ((shard, comparison.found(shard)) for shard in shards)
        return write_report_files(folder, packs, measures, found, left_out(opened, packs, measures))


def _compare(
    pool: Pool,
    packs: Sequence[Pack],
    measures: Sequence[Measure],
    folder: Path,
    threads: int | None,
    device: str | None,
    told: Progress,
) -> ShardComparison:
    """Compare the shards that an earlier call has not compared."""
    key = digest(
        _FORMAT,
        [pool.root, pool.layout, pool.uid_source],
        [[pack.checksum, pack.name] for pack in packs],
        [[m.pack, m.rule, float(np.float32(m.threshold))] for m in measures],
        pool.images_fingerprint if any(m.kind == "phash" for m in measures) else "",
    )
    _forget_others(folder, key)
    comparison = ShardComparison(pool, packs, measures, folder, key, threads, device)
    shards = [shard for shard in pool.shards if shard.rows]
    told.start("comparing", len(shards))
    for shard in shards:
        comparison.run(shard)
        told.advance(shard.rows)
    told.finish()
    return comparison


def _forget_others(folder: Path, key: str) -> None:
    """Remove what a call about another pool, other packs or other thresholds left."""
    path = folder / "workspace" / "call.json"
    if not path.exists() or path.read_text() != f'{{\n  "key": "{key}"\n}}\n':
        for stale in (folder / "ledger", folder / "workspace" / "runs", folder / "workspace" / "found"):
            shutil.rmtree(stale, ignore_errors=True)
        for name in ("subset.npy", "contamination.parquet", "items.parquet", "report.json"):
            (folder / name).unlink(missing_ok=True)
        write_json_atomic(path, {"key": key})
