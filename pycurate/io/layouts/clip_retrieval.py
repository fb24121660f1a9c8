"""clip-retrieval inference output: img_emb/, text_emb/ and metadata/, joined by part number.

The part number is zero-padded to a width that depends on the number of parts, so it is compared as a number.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from pycurate.io.layouts.part import Part

_FILE = re.compile(
    r"(?P<folder>(?:.*/)?)(?:img_emb/img_emb_|text_emb/text_emb_|metadata/metadata_)(?P<number>\d+)\.(?:npy|parquet)"
)
_KINDS = (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet"))


def matches(files: Collection[str]) -> bool:
    """True for a listing with at least one embedding part."""
    return any(_FILE.fullmatch(path) and path.endswith(".npy") for path in files)


def parts(files: Collection[str]) -> list[Part]:
    """One part per folder and number; a kind that some part has, every part must have."""
    groups: dict[tuple[str, int], dict[str, str]] = {}
    for path in files:
        match = _FILE.fullmatch(path)
        if match:
            kind = path[len(match["folder"]) :].split("/", 1)[0]
            groups.setdefault((match["folder"], int(match["number"])), {})[kind] = path
    present = [kind for kind, _ in _KINDS if any(kind in group for group in groups.values())]
    found = []
    for (folder, number), group in groups.items():
        missing = [kind for kind in present if kind not in group]
        problem = (
            f"part {number} of {folder or './'} has no {missing[0]} file, as other parts have" if missing else None
        )
        named_by = group.get("metadata") or group.get("img_emb") or group["text_emb"]
        npy = {name: group[kind] for name, kind in (("image", "img_emb"), ("text", "text_emb")) if kind in group}
        found.append(Part(named_by.rsplit(".", 1)[0], table=group.get("metadata"), npy=npy, problem=problem))
    return found
