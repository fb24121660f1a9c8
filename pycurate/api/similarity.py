"""``similarity_join``: pairs, components, counts and neighbours of rows that do not fit in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pycurate.engine.memory import BASE_BYTES, default_memory_bytes
from pycurate.kernels.arrays import require_option, thread_count_of
from pycurate.kernels.device import device_of
from pycurate.kernels.join import Precision
from pycurate.kernels.rowwise import Metric
from pycurate.pipeline.block_join import RowSource, SimilarityJoin, Source
from pycurate.pipeline.block_join.sweep import Progress


def similarity_join(
    source: Source,
    out: str | os.PathLike[str],
    y: Source = None,
    metric: Metric = "cosine",
    *,
    memory_bytes: int | None = None,
    precision: Precision = "exact",
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> SimilarityJoin:
    """Open or continue a join of rows that may be larger than memory; its methods ask the questions.

    Reads all rows once, unless the folder knows them already, to find those that cannot be judged and those with the
    same bits.

    Parameters
    ----------
    source
        (n, d) float16, bfloat16, float32 or int8: an array, a memory map, a tensor in CPU memory, the path of a .npy
        file, or a sequence of these, which is one matrix whose rows are numbered through. Memory maps and paths are
        copied into memory block by block.
    out
        A folder: new, or of an earlier join of the same rows. What was found stays there: a killed question goes on
        where it stopped, an answered one is read back. A folder of other rows is refused. Rows are told apart by shape,
        dtype, and of a file by its size, time of modification and 256 of its rows, else by all bytes.
    y
        (m, d) likewise, to join the source with; by default it is joined with itself.
    metric, precision, threads, dtype
        As in `pycurate.pairs_above`. Neither precision nor threads changes an answer.
    device
        ``"cpu"``, the default; ``"cuda"``, ``"cuda:1"`` or ``"auto"``: blocks are compared on a GPU, whose memory must
        hold two of them. No answer changes.
    memory_bytes
        Cap on what the process takes, clean pages of files not counted; by default half of what is allowed. 160 MiB of
        it are the interpreter's and its libraries', and 128 bytes are held for every row.
    progress
        Called with the fraction of a question that is done, in [0, 1], rising.

    Returns
    -------
    SimilarityJoin
        With ``pairs_above``, ``components_above``, ``count_above``, ``most_similar_earlier`` and ``nearest``.

    Raises
    ------
    TypeError, ValueError
        An array is not as above, or the shards differ.
    InputError
        A path is not that of a .npy file with a matrix.
    MemoryCapError
        The cap is too small; says the least that is enough.
    WorkspaceError
        The folder holds answers about other rows, is in use by another process, or cannot be written.
    KeyboardInterrupt
        Ctrl-C, within about a second; finished tasks are kept.
    """
    require_option("metric", metric, Metric)
    require_option("precision", precision, Precision)
    rows = RowSource("source", source, dtype)
    other = None if y is None else RowSource("y", y, dtype)
    if other is not None and (other.element, other.d) != (rows.element, rows.d):
        raise ValueError(
            f"y: expected {rows.d} columns of {rows.element} to match source, got {other.d} of {other.element}; "
            "convert one of them on purpose"
        )
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes
    count, place = thread_count_of(threads), device_of(device)
    return SimilarityJoin(rows, other, Path(out), metric, precision, limit - BASE_BYTES, count, progress, place)
