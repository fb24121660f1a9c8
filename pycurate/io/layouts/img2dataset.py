"""img2dataset output: ``00000.tar`` with ``00000.parquet``; the parquet also lists the rows that failed.

The rows of the pool are the rows of the parquet; images are found in the tar by key.
"""

from __future__ import annotations

from collections.abc import Collection

from pycurate.io.layouts.part import Part, split_path


def matches(files: Collection[str]) -> bool:
    """True for a listing with at least one tar and its parquet, both named by a number."""
    return any(not part.problem for part in parts(files))


def parts(files: Collection[str]) -> list[Part]:
    """One part per number, in whatever folder."""
    stems = set()
    for path in files:
        folder, stem, suffix = split_path(path)
        if stem.isdecimal() and suffix in (".tar", ".parquet"):
            stems.add(folder + stem)
    found = []
    for name in stems:
        table, tar = f"{name}.parquet", f"{name}.tar"
        missing = [path for path in (table, tar) if path not in files]
        problem = f"{missing[0]} is missing; run img2dataset again with incremental mode" if missing else None
        found.append(Part(name, table=table, tar=tar, problem=problem))
    return found
