"""The layouts that pools come in. Each module looks at a listing only and says which files belong together.

A layout module has ``matches(files) -> bool`` and ``parts(files) -> list[Part]``; reading is the same for all. They are
asked in the order of ``LAYOUTS``: the folder of a downloaded DataComp pool holds img2dataset shards too.
"""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType

from pycurate.errors import InputError, PoolError
from pycurate.io.layouts import clip_retrieval, datacomp, images, img2dataset, plain
from pycurate.io.layouts.part import LayoutName, Part, split_path

LAYOUTS: dict[LayoutName, ModuleType] = {
    "clip_retrieval": clip_retrieval,
    "datacomp": datacomp,
    "img2dataset": img2dataset,
    "plain": plain,
    "images": images,
}

__all__ = ["LAYOUTS", "LayoutName", "Part", "detect_layout", "parts_of"]


def detect_layout(files: Collection[str], root: str) -> LayoutName:
    """The first layout that the listing fits; a PoolError that says what was seen when none does."""
    for name, module in LAYOUTS.items():
        if module.matches(files):
            return name
    raise PoolError(f"pool: no layout fits {root!r}: {_seen(files)}. {_EXPECTED}")


def parts_of(layout: LayoutName, files: Collection[str], root: str) -> list[Part]:
    """The parts of a pool of the given layout, sorted by name."""
    if layout not in LAYOUTS:
        raise InputError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    found: list[Part] = sorted(LAYOUTS[layout].parts(files), key=lambda part: part.name)
    if not found:
        raise PoolError(f"pool: {root!r} holds no shard of the layout {layout}: {_seen(files)}. {_EXPECTED}")
    return found


_EXPECTED = (
    "Expected <32 hex>.parquet with .npz (datacomp), 00000.tar with 00000.parquet (img2dataset), img_emb/ and "
    "text_emb/ with metadata/ (clip_retrieval), .npy and .parquet files (plain), or image files alone (images); if it "
    "is one of these, pass layout="
)


def _seen(files: Collection[str]) -> str:
    if not files:
        return "it has no .parquet, .npy, .npz, .tar or image file"
    count: dict[str, int] = {}
    for path in files:
        suffix = split_path(path)[2] or path
        count[suffix] = count.get(suffix, 0) + 1
    counts = ", ".join(f"{number} {suffix}" for suffix, number in sorted(count.items()))
    return f"it has {counts}, such as {min(files)!r}"
