"""DataComp pools: ``<32 hex>.parquet`` with ``<same stem>.npz``, joined by row position only.

Any parquet beside an npz of the same stem counts too. The npz may be missing in the whole pool (metadata only). Tars
and parquets of downloaded images beside them are not rows of the pool.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from pycurate.io.layouts.part import Part, split_path

_HEX_STEM = re.compile(r"[0-9a-fA-F]{32}")


def matches(files: Collection[str]) -> bool:
    """True for a listing with at least one shard of this layout."""
    return any(part.table and not part.problem for part in parts(files))


def parts(files: Collection[str]) -> list[Part]:
    """One part per parquet or npz file."""
    stems = {path.removesuffix(suffix) for path in files for suffix in (".parquet", ".npz") if path.endswith(suffix)}
    with_arrays = any(f"{stem}.npz" in files for stem in stems)
    found = []
    for stem in stems:
        table, npz = f"{stem}.parquet", f"{stem}.npz"
        if table in files and npz in files:
            found.append(Part(stem, table=table, npz=npz))
        elif npz in files:
            found.append(Part(stem, npz=npz, problem=f"{npz} has no {table} beside it; copy or download it again"))
        elif _HEX_STEM.fullmatch(split_path(table)[1]):
            problem = f"{table} has no {npz} beside it, as other shards have; copy or download it again"
            found.append(Part(stem, table=table, problem=problem if with_arrays else None))
    return found
