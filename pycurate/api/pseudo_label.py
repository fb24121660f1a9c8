"""``pseudo_label``: labels for the rows of a pool by the text embeddings of classes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.api.label_rows import gather_rows, label_array, scratch_parent, write_table
from pycurate.engine import NoProgress, Progress
from pycurate.errors import InputError
from pycurate.io.layouts import LayoutName
from pycurate.io.pool import Pool, open_pool
from pycurate.kernels.device import device_of
from pycurate.kernels.uid import format_hex
from pycurate.ops.labels.pseudo_labels import CLIP_SCALE, PseudoLabels, RankBy, zero_shot_labels

_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabelReport:
    """What `pseudo_label` chose, and where it is.

    Attributes
    ----------
    out
        The Parquet file.
    labels
        For every row of the pool in order of uid.
    class_names
        Where names were given.
    """

    out: Path
    labels: PseudoLabels
    class_names: tuple[str, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "out": str(self.out),
            "rows": len(self.labels.labels),
            "labelled": int(self.labels.counts.sum()),
            "unjudged": len(self.labels.unjudged),
            "short": [self._name(c) for c in self.labels.short.tolist()],
            "classes": [{"class": self._name(c), "rows": rows} for c, rows in enumerate(self.labels.counts.tolist())],
        }

    def render(self) -> str:
        """For people."""
        facts = self.to_dict()
        lines = [
            f"rows      {facts['rows']:,}",
            f"labelled  {facts['labelled']:,} rows with one of {len(facts['classes'])} classes",
        ]
        if facts["unjudged"]:
            lines.append(f"unjudged  {facts['unjudged']:,} rows whose embedding is zero or not finite")
        if facts["short"]:
            shown = ", ".join(str(name) for name in facts["short"][:_SHOWN])
            more = ", ..." if len(facts["short"]) > _SHOWN else ""
            lines.append(f"short     {len(facts['short'])} classes got fewer rows than asked: {shown}{more}")
        lines.append(f"to        {self.out}")
        return "\n".join(lines)

    def _name(self, c: int) -> Any:
        return c if self.class_names is None else self.class_names[c]


def pseudo_label(
    pool: Pool | str | os.PathLike[str],
    embedding: str,
    class_embeddings: NDArray[Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    k: int | None = None,
    spill: bool = False,
    rank_by: RankBy = "similarity",
    scale: float = CLIP_SCALE,
    minimum: float | None = None,
    layout: LayoutName | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> PseudoLabelReport:
    """Label rows of a pool by the text embeddings of classes, and write the labelled rows into a Parquet file.

    The file has ``uid``, ``label`` (class number, or name where there are names) and ``score``, by class, the highest
    score first; it can be read again as a file of labels.

    Parameters
    ----------
    pool
        A pool, or its path or URL.
    embedding
        Name of the image embedding.
    class_embeddings
        (K, d) float32 or float16, or a ``.npy`` file of it: the text embedding of each class, of the same model.
    out
        A file ``*.parquet``; a copy of the embedding lies beside it until the end.
    class_names
        K names, or a text file with one a line.
    k, spill, rank_by, scale, minimum, threads, device
        As `zero_shot_labels` takes them.
    progress
        Told of stored rows; default silence.

    Raises
    ------
    InputError, PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    device_of(device)  # that there is such a GPU, before anything is written
    classes = _class_embeddings(class_embeddings)
    names = _names(class_names, len(classes))
    opened = pool if isinstance(pool, Pool) else open_pool(pool, layout=layout)
    with tempfile.TemporaryDirectory(prefix=".pseudo-label-", dir=scratch_parent(out)) as scratch:
        rows = gather_rows(opened, embedding, Path(scratch), progress or NoProgress())
        found = zero_shot_labels(
            rows.x, classes, k, spill=spill, rank_by=rank_by, scale=scale, minimum=minimum, threads=threads,
            dtype=rows.dtype, device=device,
        )  # fmt: skip
        chosen = found.selected
        table = pa.table(
            {
                "uid": format_hex(rows.uids[chosen]).astype(str),
                "label": label_array(found.labels[chosen], names),
                "score": found.scores[chosen],
            }
        )
        facts = {
            "pool": opened.root,
            "embedding": embedding,
            "classes": len(classes),
            "k": k,
            "spill": spill,
            "rank_by": rank_by,
            "scale": scale,
            "minimum": minimum,
        }
        return PseudoLabelReport(write_table(table, out, facts), found, names)


def _class_embeddings(given: NDArray[Any] | str | os.PathLike[str]) -> NDArray[Any]:
    if isinstance(given, np.ndarray):
        return given
    try:
        found: NDArray[Any] = np.load(given, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"class_embeddings: {given}: not a readable .npy file ({error})") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype not in (np.float32, np.float16):
        raise InputError(
            f"class_embeddings: {given}: expected (K, d) float32 or float16, one row for each class, got "
            f"{np.shape(found)} of {getattr(found, 'dtype', type(found).__name__)}"
        )
    return found


def _names(given: Sequence[str] | str | os.PathLike[str] | None, count: int) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        try:
            lines = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"class_names: {given}: not a readable text file ({error})") from error
        names = tuple(line.strip() for line in lines if line.strip())
    else:
        names = tuple(given)
    if len(names) != count or len(set(names)) != count:
        raise InputError(
            f"class_names: expected {count} different names, one for each class embedding, got {len(names)} "
            f"({len(set(names))} different)"
        )
    return names
