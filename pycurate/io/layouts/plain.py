"""Plain embedding folders: .npy matrices, parquet tables, or both.

Files of one folder with the same part number at the end of the name (``image_03.npy``, ``text_03.npy``,
``metadata_03.parquet``), or without any number, hold the same rows; each .npy is an embedding named by what precedes
the number. Where that would join two parquet files, files are joined by their whole stem instead, so ``a.npy`` goes
with ``a.parquet`` and ``b.npy`` with ``b.parquet``. If the shards' matrices then have different names, or none, all are
called ``embedding``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from pycurate.io.layouts.part import Part, split_path

_NUMBERED = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d+)(?:-of-\d+)?")


def matches(files: Collection[str]) -> bool:
    """True for a listing with any .npy or .parquet file."""
    return any(path.endswith((".npy", ".parquet")) for path in files)


def parts(files: Collection[str]) -> list[Part]:
    """One part per folder and part number, or per stem."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in files:
        folder, stem, suffix = split_path(path)
        if suffix in (".npy", ".parquet"):
            groups.setdefault((folder, _split_stem(stem)[1]), []).append(path)
    joined = [group for paths in groups.values() for group in _unambiguous(paths)]
    names = {tuple(sorted(_embedding_name(path) for path in group if path.endswith(".npy"))) for group in joined}
    names.discard(())
    one_name = len(names) == 1
    with_arrays = bool(names)
    return [_part(sorted(group), one_name, with_arrays) for group in joined]


def _part(group: list[str], one_name: bool, with_arrays: bool) -> Part:
    table = next((path for path in group if path.endswith(".parquet")), None)
    arrays = [path for path in group if path.endswith(".npy")]
    alone = len(arrays) == 1 and not one_name
    npy = {"embedding" if alone else _embedding_name(path): path for path in arrays}
    problem = None
    if with_arrays and not arrays:
        problem = f"{table} has no .npy file of the same stem or part number, as other files have; rename or move it"
    elif len(npy) != len(arrays):
        problem = f"{arrays[0]} and {arrays[1]} have the same name and part number; rename one"
    return Part((table or arrays[0]).rsplit(".", 1)[0], table=table, npy=npy, problem=problem)


def _unambiguous(paths: list[str]) -> list[list[str]]:
    if sum(path.endswith(".parquet") for path in paths) < 2:
        return [paths]
    by_stem: dict[str, list[str]] = {}
    for path in paths:
        by_stem.setdefault(path.rsplit(".", 1)[0], []).append(path)
    return list(by_stem.values())


def _split_stem(stem: str) -> tuple[str, str]:
    match = _NUMBERED.fullmatch(stem)
    return (match["name"], str(int(match["number"]))) if match else (stem, "")


def _embedding_name(path: str) -> str:
    return _split_stem(split_path(path)[1])[0].rstrip("-_.") or "embedding"
