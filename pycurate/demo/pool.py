"""The demo pool: a DataComp folder with everything in it that real pools have and should not have."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pycurate.demo.captions import COLOURS, REPEATED, SHORT, TOPICS, junk, sentences
from pycurate.demo.embeddings import ARCHES, EmbeddingSpace, cosines
from pycurate.demo.pictures import VARIANTS, jpeg
from pycurate.errors import InputError, WorkspaceError

VIRAL_PICTURES = 40
DAMAGED_ROWS = 200
PICTURES_BELOW = "08"  # uids are random: one row in 32
LIKELY_THRESHOLDS = {"b32": (0.2, 0.28), "l14": (0.229, 0.243)}
_SCHEMA = pa.schema(
    {
        "uid": pa.string(),
        "url": pa.string(),
        "text": pa.string(),
        "original_width": pa.int64(),
        "original_height": pa.int64(),
        "clip_b32_similarity_score": pa.float32(),
        "clip_l14_similarity_score": pa.float32(),
        "face_bboxes": pa.list_(pa.list_(pa.float64())),
        "sha256": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class DemoPool:
    """A generated pool; ``planted`` counts what was put into ``root`` on purpose (and the shard cut in ``damaged``)."""

    root: Path
    damaged: Path
    rows: int
    shards: int
    seed: int
    bytes: int
    planted: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is true of the rows of one shard before anything is computed; every array has n rows."""

    topics: NDArray[np.int64]
    colours: NDArray[np.int64]
    variants: NDArray[np.int64]
    viral: NDArray[np.int64]
    alteration: NDArray[np.float32]
    caption_of: NDArray[np.int64]
    quality: NDArray[np.float32]
    captions: list[str]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    broken: NDArray[np.int64]  # 1: the image embeddings are NaN, 2: the text embeddings are zero


def generate_demo_pool(
    path: Path | str, rows: int = 50_000, seed: int = 0, shards: int = 5, images: bool = True
) -> DemoPool:
    """Write a pool in DataComp's layout to ``path/pool``, and a damaged one of 400 rows to ``path/damaged``.

    The pool has embeddings of both models, scores that agree with them, captions in eight languages, and: copied
    images, captions of other images, captions that many rows share, file names and single words for captions, tiny and
    very long images, NaN and zero embeddings. Of the two shards of the damaged pool one is cut short. The default size
    takes 0.29 GB. The same arguments give the same bytes.

    Parameters
    ----------
    rows, shards : int
        Rows of the pool and the number of files they are spread over.
    images : bool
        Also write a tar of small pictures per shard, in img2dataset's layout, for some rows.

    Raises
    ------
    InputError
        Where ``shards`` is not in [1, rows].
    WorkspaceError
        Where ``path/pool`` or ``path/damaged`` is not empty.
    """
    if not 1 <= shards <= rows:
        raise InputError(f"shards: expected a number from 1 to rows = {rows}, got {shards}")
    root, damaged = Path(path) / "pool", Path(path) / "damaged"
    for folder in (root, damaged):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise WorkspaceError(f"{folder}: is not empty; remove it or choose another folder")
    viral = np.random.default_rng([seed, 1 << 31]).integers(0, len(TOPICS) * len(COLOURS) * VARIANTS, VIRAL_PICTURES)
    spaces = [EmbeddingSpace(arch, seed, len(TOPICS) * len(COLOURS), viral // VARIANTS) for arch in ARCHES]
    captions: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    for shard, part in enumerate(np.array_split(np.empty(rows, np.void), shards)):
        rng = np.random.default_rng([seed, shard])
        table = _plan_rows(rng, len(part), viral)
        planted += _write_shard(root, shard, rng, table, spaces, images)
        captions.update(table.captions)
    planted["repeated_captions"] = sum(count for count in captions.values() if count > 10)
    for shard in (shards, shards + 1):
        rng = np.random.default_rng([seed, shard])
        _write_shard(damaged, shard, rng, _plan_rows(rng, DAMAGED_ROWS, viral), spaces, images=False)
    cut = min(damaged.glob("*.npz"))
    with cut.open("rb+") as file:
        file.truncate(cut.stat().st_size * 3 // 5)
    planted["truncated_shards"] = 1
    size = sum(file.stat().st_size for folder in (root, damaged) for file in folder.iterdir())
    return DemoPool(root, damaged, rows, shards, seed, size, dict(sorted(planted.items())))


def _plan_rows(rng: np.random.Generator, n: int, viral_pictures: NDArray[np.int64]) -> _Rows:
    popularity = 1 / np.arange(6, len(TOPICS) * len(COLOURS) + 6)
    clusters = rng.choice(len(popularity), n, p=popularity / popularity.sum()) * 31 % len(popularity)
    picture = clusters * VARIANTS + rng.integers(0, VARIANTS, n)
    viral = np.where(rng.random(n) < 0.03, rng.zipf(1.6, n) % len(viral_pictures), -1)
    picture = np.where(viral >= 0, viral_pictures[viral], picture)
    alteration = np.where(rng.random(n) < 0.5, 0, rng.uniform(0.05, 0.25, n)).astype(np.float32)
    caption_of = np.arange(n)
    mismatched = np.flatnonzero(rng.random(n) < 0.12)
    caption_of[mismatched] = np.roll(mismatched, 1)
    topics, colours = picture // VARIANTS // len(COLOURS), picture // VARIANTS % len(COLOURS)
    captions, languages = sentences(rng, topics[caption_of], colours[caption_of])
    quality = rng.beta(2.6, 2.8, n)
    quality[languages != "en"] *= 0.75  # the models were trained on English above all
    kind = rng.choice(4, n, p=(0.89, 0.04, 0.03, 0.04))
    ranks = 1 / np.arange(1, len(REPEATED) + 1)
    shared = rng.choice(len(REPEATED), n, p=ranks / ranks.sum())
    short = rng.integers(0, len(SHORT), n)
    names = junk(rng, n)
    captions = [
        (caption, REPEATED[shared[i]], SHORT[short[i]], names[i])[kind[i]] for i, caption in enumerate(captions)
    ]
    quality[kind > 0] *= 0.25
    width, height = _sizes(rng, n)
    broken = rng.choice(3, n, p=(0.998, 0.001, 0.001))
    return _Rows(
        topics, colours, picture % VARIANTS, viral, alteration, caption_of, quality.astype(np.float32), captions,
        width, height, broken,
    )  # fmt: skip


def _sizes(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Widths and heights in pixels: mostly common photographs, some icons, some banners."""
    width = np.rint(np.exp(rng.normal(6.3, 0.55, n)))
    shapes = np.array([1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3])
    height = np.rint(width / rng.choice(shapes, n, p=(0.3, 0.25, 0.2, 0.1, 0.1, 0.05)))
    kind = rng.choice(3, n, p=(0.95, 0.03, 0.02))
    icon = rng.integers(1, 65, n)
    banner = np.rint(2 * width / rng.uniform(2.2, 14, n)) + 1
    width, height = np.where(kind == 1, icon, width), np.where(kind == 1, icon, height)
    width, height = np.where(kind == 2, 2 * width, width), np.where(kind == 2, banner, height)
    return width.astype(np.int64), height.astype(np.int64)


def _write_shard(
    folder: Path, shard: int, rng: np.random.Generator, rows: _Rows, spaces: list[EmbeddingSpace], images: bool
) -> Counter[str]:
    n = len(rows.captions)
    clusters = rows.topics * len(COLOURS) + rows.colours
    arrays: dict[str, NDArray[np.float16]] = {}
    scores: dict[str, NDArray[np.float32]] = {}
    for arch, space in zip(ARCHES, spaces, strict=True):
        pictures, texts = space.pairs(rng, clusters, rows.viral, rows.alteration, rows.caption_of, rows.quality)
        pictures[rows.broken == 1] = np.nan
        texts[rows.broken == 2] = 0
        arrays |= {f"{arch.name}_img": pictures, f"{arch.name}_txt": texts}
        scores[arch.name] = cosines(pictures, texts)
    stem, *uids = _hex_names(rng, n + 1)
    encoded = _encode_pictures(rows, uids)
    table = {
        "uid": uids,
        "url": [_url(uid) for uid in uids],
        "text": rows.captions,
        "original_width": rows.width,
        "original_height": rows.height,
        "clip_b32_similarity_score": scores["b32"],
        "clip_l14_similarity_score": scores["l14"],
        "face_bboxes": _faces(rng, n),
        "sha256": [hashlib.sha256(data).hexdigest() for data in encoded],
    }
    np.savez(folder / f"{stem}.npz", **arrays)  # type: ignore[arg-type]
    pq.write_table(pa.table(table, schema=_SCHEMA), folder / f"{stem}.parquet")
    shown = _rows_with_pictures(uids, scores) if images else np.empty(0, np.int64)
    if images:
        _write_tar(folder / f"{shard:05d}.tar", shard, shown.tolist(), table, encoded)
    side = np.sort(np.stack([rows.width, rows.height]), axis=0)
    return Counter(
        copied_images=int((rows.viral >= 0).sum()),
        captions_of_other_images=int((rows.caption_of != np.arange(n)).sum()),
        nan_embeddings=int((rows.broken == 1).sum()),
        zero_embeddings=int((rows.broken == 2).sum()),
        captions_under_three_words=sum(len(caption.split()) < 3 for caption in rows.captions),
        images_under_200_pixels=int((side[0] < 200).sum()),
        images_over_aspect_3=int((side[1] > 3 * side[0]).sum()),
        pictures=len(shown),
    )


def _url(uid: str) -> str:
    extension = "gif" if uid.endswith("0") else "jpg"
    return f"https://pictures.example/{uid[:2]}/{uid[2:12]}.{extension}"


def _hex_names(rng: np.random.Generator, n: int) -> list[str]:
    digits = rng.bytes(16 * n).hex()
    return [digits[start : start + 32] for start in range(0, 32 * n, 32)]


def _encode_pictures(rows: _Rows, uids: list[str]) -> list[bytes]:
    """Every row's picture. Unaltered copies are the same bytes, all others differ in a comment."""
    exact = (rows.viral >= 0) & (rows.alteration == 0)
    marks = np.where(exact, [f"copy of {number}" for number in rows.viral.tolist()], uids).tolist()
    kinds = zip(rows.topics.tolist(), rows.colours.tolist(), rows.variants.tolist(), marks, strict=True)
    return [jpeg(topic, colour, variant, mark.encode()) for topic, colour, variant, mark in kinds]


def _faces(rng: np.random.Generator, n: int) -> list[list[list[float]]]:
    counts = rng.choice(3, n, p=(0.85, 0.12, 0.03))
    corners = np.sort(rng.random((n, 2, 2)), axis=1).round(4).reshape(n, 4).tolist()
    return [[corners[i]] * count for i, count in enumerate(counts.tolist())]


def _rows_with_pictures(uids: list[str], scores: Mapping[str, NDArray[np.float32]]) -> NDArray[np.int64]:
    """The rows that a report is likely to show: those near the usual thresholds, and of the others the lowest uids."""
    shown = np.array([uid < PICTURES_BELOW for uid in uids])
    for name, thresholds in LIKELY_THRESHOLDS.items():
        for threshold in thresholds:
            shown |= np.abs(scores[name] - threshold) < 0.001
    return np.flatnonzero(shown)


def _write_tar(path: Path, shard: int, rows: list[int], table: Mapping[str, Any], encoded: list[bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, row in enumerate(rows):
            key = f"{shard:05d}{number:04d}"
            record = {
                "uid": table["uid"][row],
                "url": table["url"][row],
                "caption": table["text"][row],
                "key": key,
                "status": "success",
                "original_width": int(table["original_width"][row]),
                "original_height": int(table["original_height"][row]),
                "sha256": table["sha256"][row],
            }
            members = {
                "jpg": encoded[row],
                "json": json.dumps(record, ensure_ascii=False).encode(),
                "txt": table["text"][row].encode(),
            }
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
