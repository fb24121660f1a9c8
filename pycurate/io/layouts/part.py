"""What a layout says of a pool: which files hold the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

LayoutName: TypeAlias = Literal["datacomp", "img2dataset", "clip_retrieval", "plain", "images"]


@dataclass(frozen=True, slots=True)
class Part:
    """The files of one row range; ``name`` is the path, without extension, that its uids and shards are named by."""

    name: str
    table: str | None = None
    npz: str | None = None
    npy: Mapping[str, str] = field(default_factory=dict)  # embedding name -> path
    tar: str | None = None
    images: tuple[str, ...] = ()  # files that are rows
    problem: str | None = None  # what is wrong with the part, as the listing shows it


def split_path(path: str) -> tuple[str, str, str]:
    """Folder ("" or ending in a slash), stem and suffix of a relative path."""
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    return folder + "/" if folder else "", stem, suffix
