"""Folders of image files, without any table: a row an image, in the order of their paths.

Asked last, and only where a folder has no table, matrix or tar: pools often have pictures beside them.
"""

from __future__ import annotations

from collections.abc import Collection

from pycurate.io.images import IMAGE_SUFFIXES
from pycurate.io.layouts.part import Part, split_path

PART_IMAGES = 8192
"""A folder of more is several parts, so that several workers share it: a few seconds of decoding each."""


def matches(files: Collection[str]) -> bool:
    """True for a listing with any image."""
    return any(path.endswith(IMAGE_SUFFIXES) for path in files)


def parts(files: Collection[str]) -> list[Part]:
    """One part for so many images of a folder."""
    folders: dict[str, list[str]] = {}
    for path in sorted(files):
        if path.endswith(IMAGE_SUFFIXES):
            folders.setdefault(split_path(path)[0], []).append(path)
    return [
        Part(f"{folder}images-{number:05d}", images=tuple(paths[begin : begin + PART_IMAGES]))
        for folder, paths in folders.items()
        for number, begin in enumerate(range(0, len(paths), PART_IMAGES))
    ]
