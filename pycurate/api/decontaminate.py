"""``decontaminate``: the rows of a pool that are near no item of any evaluation set."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pycurate.api.contamination_report import ContaminationReport, write_report_files
from pycurate.api.contamination_shards import Measure, ShardComparison
from pycurate.api.out import claim_out
from pycurate.engine import NoProgress, Progress, default_memory_bytes
from pycurate.errors import InputError
from pycurate.io.atomic import write_json_atomic
from pycurate.io.images import SHA256_COLUMN
from pycurate.io.layouts import LayoutName
from pycurate.io.names import find_column
from pycurate.io.pack import Pack, open_pack
from pycurate.io.pool import Pool, open_pool
from pycurate.ops.dedup.contamination import GRAM_LENGTHS
from pycurate.pipeline.external_sort import merge_runs
from pycurate.pipeline.workspace import Workspace, digest

DEFAULT_SIMILARITY = 0.95
"""Cosine of CLIP image embeddings from which on two photographs are usually altered copies of one."""
_FORMAT = 1  # bumped when the same input gives other files


def decontaminate(
    pool: Pool | str | os.PathLike[str],
    against: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    similarity: Mapping[str, float] | float | None = None,
    ngram: int | None = 8,
    captions: bool = True,
    models: Mapping[str, str] | None = None,
    layout: LayoutName | None = None,
    allow_duplicate_uids: bool = False,
    memory_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ContaminationReport:
    """Find the rows of a pool that are near any item of evaluation sets, and write the rest as a subset.

    A row is removed when, for any item of any pack: both have the same uid; the bytes of their images are equal
    (sha256); the cosine of an embedding that both have is at or above its threshold (exact, all pairs); their captions
    are equal once normalised, or share an n-gram of words. Every shard is read once; a killed call continues when it is
    repeated. Rows that a measure cannot judge (no caption, a zero or non-finite vector) are not removed by it and are
    counted.

    Parameters
    ----------
    pool
        A pool, or its path or URL.
    against
        Packs that `pycurate.build_pack` wrote; their embeddings are held in memory.
    out
        A folder: new, empty, or of an earlier call. Written are ``subset.npy``, the uids that remain;
        ``ledger/<shard>.parquet``, of every row whether it stays, and the first rule that removed it with pack, value,
        threshold and item; ``contamination.parquet``, everything that was found; ``items.parquet``, how many rows are
        near each item; ``report.json``.
    similarity
        Embedding -> least cosine of a removed row, rounded to float32; one number for every embedding that the pool
        shares with a pack; an empty mapping for none. Default 0.95 for all.
    ngram
        Words of an n-gram that a removed row has in common with an item, 3 to 8; None: n-grams are not compared. The
        default, 8, finds captions that were copied; sets of templates ("a photo of a ...") share shorter ones.
    captions
        False: captions are not compared at all.
    models
        Embedding -> what the pool's was made with; an error where a pack states another.
    allow_duplicate_uids
        Write a uid that occurs more than once as often as it remains, instead of refusing it.
    memory_bytes
        Memory cap of the sort of the uids that remain; default half of what is allowed.
    threads
        Threads to use; every processor by default. The result does not depend on it.

    Returns
    -------
    ContaminationReport

    Raises
    ------
    InputError
        A pack that cannot be read, another dimension or model, a pack with which nothing can be compared.
    PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout=layout)
    given = [against] if isinstance(against, str | os.PathLike) else list(against)
    if not given:
        raise InputError("against: expected at least one pack, got none; build one with 'pycurate pack'")
    packs = [open_pack(path) for path in given]
    _require_different_names(packs)
    measures = _measures(opened, packs, _thresholds(opened, packs, similarity), _length(ngram), captions)
    _require_alike(opened, packs, measures, models or {})
    folder = claim_out(Path(out).absolute())
    told = progress or NoProgress()
    with Workspace(folder / "workspace").lock():
        key = digest(
            _FORMAT,
            [opened.root, opened.layout, opened.uid_source],
            [[pack.checksum, pack.name] for pack in packs],
            [[m.pack, m.rule, float(np.float32(m.threshold))] for m in measures],
        )
        _forget_others(folder, key)
        comparison = ShardComparison(opened, packs, measures, folder, key, threads)
        shards = [shard for shard in opened.shards if shard.rows]
        told.start("comparing", len(shards))
        for shard in shards:
            comparison.run(shard)
            told.advance(shard.rows)
        told.finish()
        merge_runs(
            [comparison.run_path(shard) for shard in shards],
            folder / "subset.npy",
            default_memory_bytes() if memory_bytes is None else memory_bytes,
            unique=not allow_duplicate_uids,
        )
        found = ((shard, comparison.found(shard)) for shard in shards)
        return write_report_files(folder, packs, measures, found, _left_out(opened, packs, measures))


def _require_different_names(packs: Sequence[Pack]) -> None:
    for name, times in Counter(pack.name for pack in packs).items():
        if times > 1:
            first, second = [pack.path for pack in packs if pack.name == name][:2]
            raise InputError(
                f"against: {first} and {second} are both called {name!r}, so a report could not tell them apart; build "
                "one with another --name, or name each pack once"
            )


def _length(ngram: int | None) -> int | None:
    if ngram is not None and ngram not in GRAM_LENGTHS:
        raise InputError(f"ngram: expected {GRAM_LENGTHS[0]} to {GRAM_LENGTHS[-1]} words or None, got {ngram}")
    return ngram


def _thresholds(
    pool: Pool, packs: Sequence[Pack], similarity: Mapping[str, float] | float | None
) -> Mapping[str, float]:
    """The least cosine of each embedding that is compared."""
    shared = [name for name in pool.embeddings if any(name in pack.embeddings for pack in packs)]
    if not isinstance(similarity, Mapping):
        one = DEFAULT_SIMILARITY if similarity is None else similarity
        similarity = dict.fromkeys(shared, one)
    for name, value in similarity.items():
        if name not in shared:
            where = "the pool" if name not in pool.embeddings else "any pack"
            raise InputError(
                f"similarity: {name!r} is no embedding of {where}; the pool shares {', '.join(shared) or 'none'} with "
                "the packs. A pack can call an embedding as the pool does: pycurate pack --embedding NAME=STORED"
            )
        if not -1 <= value <= 1:
            raise InputError(f"similarity: expected a cosine in [-1, 1] for {name!r}, got {value}")
    return similarity


def _measures(
    pool: Pool, packs: Sequence[Pack], thresholds: Mapping[str, float], ngram: int | None, captions: bool
) -> list[Measure]:
    """Everything that is compared, surest first: of several that find a row the first is its reason."""
    caption = find_column("caption", pool.columns) if captions else None
    numbered = list(enumerate(packs))
    measures = []
    if pool.uid_source == "column":  # uids made from a row's place say nothing about its contents
        measures += [Measure(number, "uid", "uid", 1.0) for number, pack in numbered if pack.has_uids]
    if SHA256_COLUMN in pool.columns:
        measures += [Measure(number, "sha256", "sha256", 1.0) for number, pack in numbered if pack.has_sha256]
    for name, least in thresholds.items():
        measures += [Measure(n, "embedding", name, float(least)) for n, pack in numbered if name in pack.embeddings]
    if caption is not None:
        having = [number for number, pack in numbered if pack.has_captions]
        measures += [Measure(number, "caption", "caption", 1.0) for number in having]
        if ngram is not None:
            measures += [Measure(number, "gram", f"{ngram}-gram", 1.0, ngram) for number in having]
    for number, pack in numbered:
        if not any(measure.pack == number for measure in measures):
            has = [*pack.embeddings, *(["captions"] if pack.has_captions else [])]
            raise InputError(
                f"against: nothing of pack {pack.name!r} can be compared with the pool: the pack holds "
                f"{', '.join(has) or 'hashes of images'}, the pool {', '.join(pool.embeddings) or 'no embedding'} and "
                f"{'captions' if caption else 'no caption that is compared'}; a pack can call an embedding as the pool "
                "does: pycurate pack --embedding NAME=STORED"
            )
    return measures


def _require_alike(pool: Pool, packs: Sequence[Pack], measures: Sequence[Measure], models: Mapping[str, str]) -> None:
    """Refuse embeddings of another dimension or model than the pool's."""
    for name in models:
        if name not in pool.embeddings:
            raise InputError(f"models: the pool has no embedding {name!r}; it has {', '.join(pool.embeddings)}")
    stated: dict[str, tuple[str, str]] = {name: (model, "the pool") for name, model in models.items()}
    for measure in measures:
        if measure.kind != "embedding":
            continue
        pack, name = packs[measure.pack], measure.rule
        info, own = pack.embeddings[name], pool.embeddings[name]
        if info.dimension != own.dimension:
            raise InputError(
                f"pack {pack.name!r}: embedding {name!r} has {info.dimension} dimensions, the pool's has "
                f"{own.dimension}; build the pack from embeddings of the pool's model, or leave it out of similarity"
            )
        if (info.dtype == "int8") != (own.dtype == "int8"):
            raise InputError(
                f"pack {pack.name!r}: embedding {name!r} is {info.dtype}, the pool's {own.dtype}; int8 rows are only "
                "compared with int8 rows"
            )
        if info.model is None:
            continue
        model, whose = stated.setdefault(name, (info.model, f"pack {pack.name!r}"))
        if model != info.model:
            raise InputError(
                f"pack {pack.name!r}: embedding {name!r} was made with {info.model!r}, that of {whose} with {model!r}; "
                "vectors of two models cannot be compared: build the pack again with the pool's model"
            )


def _left_out(pool: Pool, packs: Sequence[Pack], measures: Sequence[Measure]) -> list[str]:
    """What packs hold and the pool lacks or is not asked for, and models that nobody stated."""
    compared = {(measure.pack, measure.kind, measure.rule) for measure in measures}
    said = []
    for number, pack in enumerate(packs):
        for name, info in pack.embeddings.items():
            if (number, "embedding", name) not in compared:
                said.append(f"embedding {name!r} of pack {pack.name!r} was not compared")
            elif info.model is None:
                said.append(
                    f"pack {pack.name!r} does not state the model of {name!r}: that it is the pool's is assumed"
                )
            if info.unjudged:
                said.append(f"{info.unjudged:,} items of pack {pack.name!r} have no usable {name!r}")
        if pack.has_captions and (number, "caption", "caption") not in compared:
            said.append(f"captions of pack {pack.name!r} were not compared")
        if pack.has_sha256 and SHA256_COLUMN not in pool.columns:
            said.append(f"images of pack {pack.name!r}: the pool has no column sha256")
    return said


def _forget_others(folder: Path, key: str) -> None:
    """Remove what a call about another pool, other packs or other thresholds left."""
    path = folder / "workspace" / "call.json"
    if not path.exists() or path.read_text() != f'{{\n  "key": "{key}"\n}}\n':
        for stale in (folder / "ledger", folder / "workspace" / "runs", folder / "workspace" / "found"):
            shutil.rmtree(stale, ignore_errors=True)
        for name in ("subset.npy", "contamination.parquet", "items.parquet", "report.json"):
            (folder / name).unlink(missing_ok=True)
        write_json_atomic(path, {"key": key})
