"""Kinds of index, the memory each takes, and the rule that chooses among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pycurate.errors import InputError, MemoryCapError
from pycurate.index.rows import BLOCK_BYTES

Kind: TypeAlias = Literal["flat", "ivf_flat", "ivf_pq", "hnsw"]
KINDS: tuple[Kind, ...] = ("flat", "ivf_flat", "ivf_pq", "hnsw")

FLAT_ROWS = 50_000
"""Up to so many rows brute force answers in some milliseconds, exactly, and there is nothing to build or to tune."""
PQ_ROWS = 256
"""Codewords of each part of a product quantiser, so the least rows it can be trained on."""
PQ_WIDTHS = (8, 16, 32)
"""Coordinates that share a byte, finest first."""
MAX_LISTS = 65_536
HNSW_LINKS = 32
SAMPLE_PER_LIST, LEAST_SAMPLE = 64, 16_384
"""Rows that lists and quantisers are trained on. On 10,000 web captions, 16 of 100 lists hold 0.890 to 0.899 of the ten
nearest rows with 32 a list, 0.903 to 0.910 with 64 and 0.899 to 0.909 with all; a quantiser has 256 codewords."""
BASE_BYTES = 8 * BLOCK_BYTES
"""Blocks in work: rows as read, widened, scaled, quantised to be assigned, and what FAISS keeps beside its lists."""


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What will be built: ``pq_width`` and ``nlist`` are 0 where they do not apply."""

    kind: Kind
    nlist: int
    pq_width: int
    memory_bytes: int


def default_nlist(rows: int) -> int:
    """About sqrt(rows): a search then compares as many centroids as rows of one list."""
    return max(1, min(MAX_LISTS, round(math.sqrt(rows))))


def training_rows(nlist: int) -> int:
    """Rows to draw to train so many lists."""
    return max(SAMPLE_PER_LIST * nlist, LEAST_SAMPLE)


def default_nprobe(nlist: int) -> int:
    """A sixteenth of the lists, at least 16."""
    return min(nlist, max(16, nlist // 16))


def index_memory(kind: Kind, rows: int, dimension: int, *, element: str = "float32", nlist: int | None = None) -> int:
    """Bytes that building an index takes at most, beyond the process: lists or graph, training sample and blocks.

    Parameters
    ----------
    kind
        ``ivf_pq`` is taken at its coarsest, 32 coordinates a byte.
    rows, dimension
        Of what is indexed (the prefix, where one is).
    element
        Rows of float32 are held in 4 bytes an element, others in 2.
    nlist
        Lists; default about sqrt(rows).

    Returns
    -------
    An upper estimate. An opened index takes less: its lists are memory-mapped.
    """
    return _needed(kind, rows, dimension, element, nlist or default_nlist(rows), PQ_WIDTHS[-1])


def plan_index(
    kind: Kind | Literal["auto"],
    rows: int,
    dimension: int,
    *,
    element: str,
    memory_limit_bytes: int | None,
    nlist: int | None = None,
) -> IndexPlan:
    """The kind to build under a memory limit (None: no limit).

    ``auto`` is ``flat`` up to 50,000 rows; above, the first that fits of ``ivf_flat`` and ``ivf_pq`` with 8, 16 or 32
    coordinates a byte. ``hnsw`` is built only by name: it takes some twenty times as long to build (150,000 rows of 512
    elements: 277 s, lists 5 to 19 s), and what it finds depends on the timing of its threads.

    Raises
    ------
    InputError
        Unknown kind, or too few rows for it.
    MemoryCapError
        Nothing that was asked for fits; says what is needed, what is allowed and what to do.
    """
    if kind not in ("auto", *KINDS):
        raise InputError(f"kind: expected auto, {', '.join(KINDS)}, got {kind!r}")
    lists = min(default_nlist(rows) if nlist is None else nlist, max(rows, 1))
    if kind == "ivf_pq" and rows < PQ_ROWS:
        raise InputError(f"kind: ivf_pq is trained on at least {PQ_ROWS} rows, got {rows}; use kind 'flat'")
    candidates: list[tuple[Kind, int]]
    if kind == "auto":
        finer: list[tuple[Kind, int]] = [("ivf_pq", width) for width in PQ_WIDTHS]
        candidates = [("flat", 0)] if rows <= FLAT_ROWS else [("ivf_flat", 0), *finer]
    else:
        candidates = [(kind, width) for width in (PQ_WIDTHS if kind == "ivf_pq" else (0,))]
    needed = 0
    for chosen, width in candidates:
        needed = _needed(chosen, rows, dimension, element, lists, width)
        if memory_limit_bytes is None or needed <= memory_limit_bytes:
            has_lists = chosen in ("ivf_flat", "ivf_pq")
            return IndexPlan(chosen, lists if has_lists else 0, width, needed)
    assert memory_limit_bytes is not None
    fits = [
        f"use kind {other!r} ({_mib(least)})"
        for other in KINDS
        if other not in (chosen for chosen, _ in candidates) and not (other == "ivf_pq" and rows < PQ_ROWS)
        if (least := index_memory(other, rows, dimension, element=element, nlist=lists)) <= memory_limit_bytes
    ]
    way_out = ", or ".join(["give more memory", *fits])
    raise MemoryCapError(
        f"memory: an index of kind {candidates[-1][0]!r} of {rows:,} rows of {dimension} elements needs about "
        f"{_mib(needed)}, {_mib(memory_limit_bytes, up=False)} are allowed; {way_out}"
    )


def _needed(kind: Kind, rows: int, dimension: int, element: str, nlist: int, pq_width: int) -> int:
    if kind == "flat":
        return BASE_BYTES
    stored = dimension * (4 if element == "float32" else 2)
    if kind == "hnsw":
        # On the ground floor 2 M links of 4 bytes a row, above it 1/(M - 1) of the rows a floor of M links each.
        links = 4 * (2 * HNSW_LINKS + 2) + 16
        return BASE_BYTES + rows * (stored + links)
    trained = 2 * 4 * dimension * min(rows, training_rows(nlist))  # the sample and the room a pass over it takes
    code = stored if kind == "ivf_flat" else -(-dimension // pq_width)
    return BASE_BYTES + trained + 4 * dimension * nlist + rows * (code + 8)


def _mib(count: int, up: bool = True) -> str:
    return f"{-(-count // (1 << 20)) if up else count >> 20:,} MiB"
