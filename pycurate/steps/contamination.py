"""How rows are compared with packs: by which measures, and a block at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.io.images import SHA256_COLUMN
from pycurate.io.names import find_column
from pycurate.io.pack import Pack
from pycurate.io.pool import Pool
from pycurate.ops.dedup.contamination import (
    GRAM_LENGTHS,
    CaptionGrams,
    ItemHashes,
    Near,
    SortedKeys,
    caption_keys,
    near_by_embedding,
    near_by_grams,
    near_by_hash,
    near_by_key,
    widened,
)
from pycurate.ops.dedup.exact import missing_keys, text_keys
from pycurate.ops.dedup.perceptual import perceptual_hashes
from pycurate.types import Block, UidArray

Kind: TypeAlias = Literal["uid", "sha256", "phash", "embedding", "caption", "gram"]
DEFAULT_SIMILARITY = 0.95
"""Cosine of CLIP image embeddings from which on two photographs are usually altered copies of one."""
PHASH_BITS = 64


@dataclass(frozen=True, slots=True)
class Measure:
    """One way in which rows are compared with the items of one pack. Of several that find a row, the first counts."""

    pack: int  # which pack
    kind: Kind
    rule: str  # as the ledger calls it: uid, sha256, phash, the name of an embedding, caption, or 8-gram
    threshold: float  # least cosine, least 1 - distance / bits, or least number of n-grams in common
    size: int = 0  # words of an n-gram, or most bits in which hashes differ


class BlockComparison:
    """Compares blocks of rows with packs by some measures; embeddings on a device, as in `pycurate.pairs_above`.

    Attributes
    ----------
    columns, embeddings
        What a block must have, beside its uids.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        measures: Sequence[Measure],
        columns: Collection[str],
        threads: int | None,
        device: str | None,
    ) -> None:
        self._packs, self._measures, self._threads, self._device = packs, measures, threads, device
        kinds = {measure.kind for measure in measures}
        self._caption = find_column("caption", columns) if kinds & {"caption", "gram"} else None
        sha256 = SHA256_COLUMN if "sha256" in kinds else None
        self.columns = tuple(name for name in (self._caption, sha256) if name is not None)
        self.embeddings = tuple(dict.fromkeys(m.rule for m in measures if m.kind == "embedding"))
        self._prepared: list[Any] = [self._prepare(measure) for measure in measures]

    def compare(
        self, block: Block, images: Iterable[bytes | None] | None = None
    ) -> tuple[list[Near], dict[str, NDArray[np.bool_]]]:
        """What is near by each measure; and by rule, (n,) the rows that it cannot judge.

        ``images`` are those of the block's rows, for measures of kind ``phash``.
        """
        keys: dict[str, UidArray] = {}
        unjudged: dict[str, NDArray[np.bool_]] = {}
        if any(measure.kind == "uid" for measure in self._measures):
            assert block.uids is not None
            keys["uid"] = block.uids
        if self._caption is not None:
            keys["caption"] = caption_keys(block.columns[self._caption])
            unjudged["caption"] = missing_keys(keys["caption"])
        if SHA256_COLUMN in self.columns:
            keys["sha256"] = text_keys(block.columns[SHA256_COLUMN], None)
            unjudged["sha256"] = missing_keys(keys["sha256"])
        hashes = None
        if any(measure.kind == "phash" for measure in self._measures):
            assert images is not None
            hashes = perceptual_hashes(images, threads=self._threads)
            unjudged["phash"] = hashes.flags != 0
        found = []
        for number, measure in enumerate(self._measures):
            if measure.kind == "phash":
                assert hashes is not None
                near = near_by_hash(
                    hashes.codes, hashes.flags == 0, self._prepared[number], measure.size, threads=self._threads
                )
            elif measure.kind == "embedding":
                near, bad = self._near_embedding(block, number)
                unjudged[measure.rule] = np.zeros(block.rows, np.bool_)
                unjudged[measure.rule][bad] = True
            elif measure.kind == "gram":
                assert self._caption is not None
                near = near_by_grams(block.columns[self._caption], self._prepared[number], threads=self._threads)
            else:
                near = near_by_key(keys[measure.kind], self._prepared[number])
            found.append(near)
        return found, unjudged

    def _prepare(self, measure: Measure) -> Any:
        """The items of a measure as they are compared."""
        pack = self._packs[measure.pack]
        if measure.kind == "gram":
            return CaptionGrams(measure.size, *pack.gram_items(measure.size))
        if measure.kind == "caption":
            return SortedKeys.of(pack.caption_keys())
        if measure.kind == "sha256":
            return SortedKeys.of(text_keys(pack.items["sha256"].combine_chunks(), None))
        if measure.kind == "uid":
            return SortedKeys.of(pack.uids())
        if measure.kind == "phash":
            codes, flags = pack.phash()
            items = np.flatnonzero(flags == 0)
            return ItemHashes(np.ascontiguousarray(codes[items]), items)
        return pack.embedding(measure.rule)

    def _near_embedding(self, block: Block, number: int) -> tuple[Near, NDArray[np.int64]]:
        measure, y = self._measures[number], self._prepared[number]
        x, kept = block.embeddings[measure.rule], self._packs[measure.pack].embeddings[measure.rule].dtype
        own = "bfloat16" if x.dtype == np.uint16 else x.dtype.name
        if own != kept:  # both as float32, exactly
            if y.dtype != np.float32:
                y = self._prepared[number] = widened(y, kept)
            return near_by_embedding(widened(x, own), y, measure.threshold, threads=self._threads, device=self._device)
        bits: Literal["bfloat16"] | None = "bfloat16" if own == "bfloat16" else None
        return near_by_embedding(x, y, measure.threshold, dtype=bits, threads=self._threads, device=self._device)


def find_measures(
    pool: Pool,
    packs: Sequence[Pack],
    similarity: Mapping[str, float] | float | None,
    ngram: int | None,
    captions: bool,
    radius: int | None,
    models: Mapping[str, str],
) -> list[Measure]:
    """Everything by which a pool can be compared with packs; parameters as in `pycurate.decontaminate`.

    Raises
    ------
    InputError
        An option is wrong, a pack is of another dimension or model, or nothing of a pack can be compared.
    """
    require_different_names(packs)
    measures = _measures(pool, packs, _thresholds(pool, packs, similarity), _length(ngram), captions, radius)
    require_alike(pool, packs, measures, models)
    return measures


def require_different_names(packs: Sequence[Pack]) -> None:
    """Raise InputError where a report could not tell two packs apart."""
    for name, times in Counter(pack.name for pack in packs).items():
        if times > 1:
            first, second = [pack.path for pack in packs if pack.name == name][:2]
            raise InputError(
                f"against: {first} and {second} are both called {name!r}, so a report could not tell them apart; build "
                "one with another --name, or name each pack once"
            )


def left_out(pool: Pool, packs: Sequence[Pack], measures: Sequence[Measure]) -> list[str]:
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
    pool: Pool,
    packs: Sequence[Pack],
    thresholds: Mapping[str, float],
    ngram: int | None,
    captions: bool,
    radius: int | None,
) -> list[Measure]:
    """Everything that is compared, surest first: of several that find a row the first is its reason."""
    caption = find_column("caption", pool.columns) if captions else None
    numbered = list(enumerate(packs))
    measures = []
    if pool.uid_source == "column":  # uids made from a row's place say nothing about its contents
        measures += [Measure(number, "uid", "uid", 1.0) for number, pack in numbered if pack.has_uids]
    if SHA256_COLUMN in pool.columns:
        measures += [Measure(number, "sha256", "sha256", 1.0) for number, pack in numbered if pack.has_sha256]
    if radius is not None:
        _require_images(pool, packs, radius)
        alike = float(np.float32(1 - radius / PHASH_BITS))
        measures += [Measure(number, "phash", "phash", alike, radius) for number, pack in numbered if pack.has_phash]
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


def _require_images(pool: Pool, packs: Sequence[Pack], radius: int) -> None:
    if not 0 <= radius <= PHASH_BITS:
        raise InputError(f"radius: expected 0 to {PHASH_BITS} bits or None, got {radius}")
    if not pool.has_images:
        raise InputError(
            f"radius: perceptual hashes are compared where the pool has its images, in tars or in files; this pool is "
            f"{pool.layout}, without"
        )
    if not any(pack.has_phash for pack in packs):
        raise InputError("radius: no pack has perceptual hashes; build one from images, tars or a pool with images")


def require_alike(pool: Pool, packs: Sequence[Pack], measures: Sequence[Measure], models: Mapping[str, str]) -> None:
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
