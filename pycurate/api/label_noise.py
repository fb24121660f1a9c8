"""``label_noise``: which labels of a pool the labels of similar rows refute."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.api.label_rows import gather_rows, label_array, scratch_parent, write_table
from pycurate.engine import NoProgress, Progress, default_memory_bytes
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.io.layouts import LayoutName
from pycurate.io.pool import Pool, open_pool
from pycurate.kernels.arrays import require_option, thread_count_of
from pycurate.kernels.device import device_of
from pycurate.kernels.uid import format_hex
from pycurate.ops.labels import simifeat
from pycurate.ops.labels.label_codes import label_codes
from pycurate.ops.labels.label_noise import LabelNoise, Method, noise_of
from pycurate.pipeline.neighbor_lists import joined_lists
from pycurate.types import UidArray

_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class LabelNoiseReport:
    """What `label_noise` found, and where it is.

    Attributes
    ----------
    out
        The Parquet file.
    noise
        For every row in order of uid.
    labels
        (n,) int32 in the same order.
    class_names
        Where the labels were names.
    """

    out: Path
    noise: LabelNoise
    labels: NDArray[np.int32]
    class_names: tuple[str, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        labelled = self.labels[self.labels >= 0]
        totals = np.bincount(labelled, minlength=self.noise.n_classes)
        refuted = np.bincount(self.labels[self.noise.is_issue], minlength=self.noise.n_classes)
        made: dict[str, Any] = {
            "out": str(self.out),
            "rows": len(self.labels),
            "labelled": len(labelled),
            "issues": int(self.noise.is_issue.sum()),
            "unjudged": len(self.noise.unjudged),
            "classes": [
                {"class": self._name(c), "rows": int(totals[c]), "issues": int(refuted[c])} for c in range(len(totals))
            ],
        }
        if self.noise.transition is not None:
            made["noise_rate"] = self.noise.transition.noise_rate
            made["transition"] = self.noise.transition.transition.tolist()
        return made

    def render(self) -> str:
        """For people."""
        facts = self.to_dict()
        share = facts["issues"] / max(facts["labelled"], 1)
        lines = [
            f"rows      {facts['rows']:,}, {facts['labelled']:,} with a label of {len(facts['classes'])} classes",
            f"issues    {facts['issues']:,} labels ({share:.1%}) are refuted by their neighbours",
        ]
        if facts["unjudged"]:
            lines.append(f"unjudged  {facts['unjudged']:,} labels: no neighbour has one, or the embedding is unusable")
        if "noise_rate" in facts:
            lines.append(f"estimate  {facts['noise_rate']:.1%} of labels are wrong, by agreement of neighbours")
        worst = sorted(facts["classes"], key=lambda c: (-c["issues"] / max(c["rows"], 1), str(c["class"])))[:_SHOWN]
        for c in worst:
            if c["issues"]:
                lines.append(
                    f"          {c['class']}: {c['issues']:,} of {c['rows']:,} ({c['issues'] / c['rows']:.1%})"
                )
        lines.append(f"to        {self.out}")
        return "\n".join(lines)

    def _name(self, c: int) -> Any:
        return c if self.class_names is None else self.class_names[c]


def label_noise(
    pool: Pool | str | os.PathLike[str],
    embedding: str,
    out: str | os.PathLike[str],
    *,
    label: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    k: int = 10,
    method: Method = "simifeat",
    rounds: int = simifeat.ROUNDS,
    fraction: float = simifeat.FRACTION,
    seed: int = 0,
    layout: LayoutName | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> LabelNoiseReport:
    """Find wrong labels of a pool and write what its rows' neighbours say into a Parquet file.

    The file has a row for each of the pool, in order of uid: ``uid``, ``label``, ``is_issue``, ``quality`` (share of
    the neighbours' votes for the label, null where there are none), ``suggested`` (the label with the most votes) and
    ``confidence`` (its share). Every pair of distinct rows is compared, out of core.

    Parameters
    ----------
    pool
        A pool, or its path or URL.
    embedding
        Name of the embedding by which rows are similar.
    out
        A file ``*.parquet``; scratch files lie beside it until the end.
    label, labels
        One of them: a column of the pool (integers from 0, or names; null or -1 for none), or a file of labels by row
        or uid (``.npy``, ``.parquet``, ``.csv``; see ``pycurate.io.label_files``).
    k, method, rounds, fraction, seed
        As `knn_label_noise` takes them.
    memory_bytes
        Memory cap; default half of what is allowed.
    threads, device, progress
        Threads (default: the processors), the device as in `pycurate.nearest`, and what is told of progress.

    Raises
    ------
    InputError, MemoryCapError, PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    if (label is None) == (labels is None):
        raise InputError("label, labels: expected exactly one, a column of the pool or a file")
    check_count("k", k, 1 if method == "vote" else 2)
    require_option("method", method, Method)
    simifeat.check_rounds(rounds, fraction)
    device_of(device)  # that there is such a GPU, before anything is written
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout=layout)
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes
    told = progress or NoProgress()
    with tempfile.TemporaryDirectory(prefix=".label-noise-", dir=scratch_parent(out)) as scratch:
        folder = Path(scratch)
        rows = gather_rows(opened, embedding, folder, told, label=label, labels=labels)
        assert rows.labels is not None
        names = rows.labels.class_names
        codes, classes = label_codes(rows.labels.labels, len(rows.uids), None if names is None else max(len(names), 1))
        width = k if method == "vote" else max(k, simifeat.list_width(k, fraction))
        told.start("comparing rows", 1)
        lists = joined_lists(
            rows.x, width, folder, memory_bytes=limit - BASE_BYTES, threads=thread_count_of(threads), device=device
        )
        found = noise_of(lists, codes, max(classes, 1), k, method, rounds, fraction, seed, threads)
        told.advance(len(rows.uids))
        told.finish()
        facts = {
            "pool": opened.root,
            "embedding": embedding,
            "labels": label or str(labels),
            "k": k,
            "method": method,
            "rounds": rounds,
            "fraction": fraction,
            "seed": seed,
        }
        return LabelNoiseReport(write_table(_table(rows.uids, codes, found, names), out, facts), found, codes, names)


def _table(uids: UidArray, labels: NDArray[np.int32], found: LabelNoise, names: tuple[str, ...] | None) -> pa.Table:
    return pa.table(
        {
            "uid": format_hex(uids).astype(str),
            "label": label_array(labels, names),
            "is_issue": found.is_issue,
            "quality": pa.array(found.quality, from_pandas=True),
            "suggested": label_array(found.suggested, names),
            "confidence": found.confidence,
        }
    )
