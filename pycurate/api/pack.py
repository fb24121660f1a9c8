"""``build_pack``: an evaluation set as a pack, for comparing any number of pools with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import pycurate
from pycurate.api.out import claim_out
from pycurate.arrow import arrow_texts
from pycurate.engine import NoProgress, Progress
from pycurate.errors import InputError
from pycurate.io.atomic import atomic_write
from pycurate.io.evaluation_items import EvaluationSet, Items, open_evaluation_set
from pycurate.io.layouts import LayoutName
from pycurate.io.pack import ITEMS, PACK_NAME, Pack, finish_pack, pack_array
from pycurate.io.pool import EmbeddingInfo, Pool
from pycurate.kernels.fused_similarity import unjudged_rows
from pycurate.kernels.uid import format_hex
from pycurate.ops.dedup.contamination import GRAM_LENGTHS, caption_grams, caption_keys
from pycurate.ops.dedup.exact import missing_keys
from pycurate.ops.dedup.perceptual import PerceptualHashes, perceptual_hashes
from pycurate.pipeline.image_index import images_at_hand
from pycurate.types import UID_DTYPE


@dataclass(frozen=True, slots=True, eq=False)
class PackReport:
    """What a finished `build_pack` wrote."""

    pack: Pack

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"out": str(self.pack.path), "checksum": self.pack.checksum, **self.pack.facts}

    def render(self) -> str:
        """For people."""
        pack = self.pack
        lines = [f"pack        {pack.name}", f"items       {pack.rows:,}"]
        for name, info in pack.embeddings.items():
            model = info.model or "a model that was not stated"
            left_out = f", {info.unjudged:,} zero or not finite" if info.unjudged else ""
            lines.append(f"embedding   {name}: {info.dimension} of {info.dtype}, of {model}{left_out}")
        captions = pack.facts["captions"]
        lines.append(f"captions    {captions:,}" if captions else "captions    none")
        also = [
            what
            for what, there in (
                ("uids", pack.has_uids),
                ("sha256 of images", pack.has_sha256),
                ("perceptual hashes", pack.has_phash),
            )
            if there
        ]
        lines.append(f"also        {', '.join(also) or 'nothing'}")
        lines.append(f"to          {pack.path}")
        return "\n".join(lines)


def build_pack(
    evalset: Pool | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    embeddings: Mapping[str, str] | Sequence[str] | None = None,
    models: Mapping[str, str] | None = None,
    caption: str | None = None,
    id_column: str | None = None,
    layout: LayoutName | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Build a pack from an evaluation set, once, to compare pools with (`pycurate.decontaminate`).

    A pack holds the embeddings as they are stored, the captions with the hashes of their n-grams of 3 to 8 words, the
    sha256 and the 64-bit perceptual hash of images that are there, and the uids of items, as far as the evaluation set
    has them. Captions, their n-grams and ids are held in memory, about 1 kB an item; embeddings are streamed.

    Parameters
    ----------
    evalset
        A pool, or its path or URL, in any layout: embeddings, captions in parquet, a user's own test split; or a local
        folder of images (captions in a ``.txt`` of the same stem), or tars of samples.
    out
        A folder: new, empty, or of an earlier pack, which is replaced.
    name
        What reports call it; default the name of the evaluation set's folder or file.
    embeddings
        Names of embeddings to hold, or name in the pack -> stored name, where pools call the same thing otherwise;
        default all.
    models
        Embedding -> what it was made with, such as ``"ViT-L-14 openai"``. Compared with what is stated for a pool.
    caption
        Column of captions; default ``caption`` or an alias, where there is one.
    id_column
        Column that items are called by in reports; default the uid, the key of an img2dataset sample, the path of an
        image, or the place of a row.

    Raises
    ------
    InputError, PoolError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    source = open_evaluation_set(evalset, embeddings=embeddings, caption=caption, id_column=id_column, layout=layout)
    stated = dict(models or {})
    strangers = sorted(set(stated) - set(source.embeddings))
    if strangers:
        has = ", ".join(sorted(source.embeddings)) or "none"
        raise InputError(f"models: the pack has no embedding {strangers[0]!r}; it has {has}")
    folder = claim_out(Path(out).absolute())
    for path in (folder / PACK_NAME, *folder.glob("*.npy"), *folder.glob("*.parquet")):
        path.unlink(missing_ok=True)
    with ExitStack() as stack:
        if source.pool is not None:
            source = replace(source, pool=stack.enter_context(images_at_hand(source.pool)))
        made = _Gathered(source, folder)
        files, facts = made.write(progress or NoProgress())
    facts |= {"name": name or Path(source.root.rstrip("/")).stem, "source": source.root}
    return PackReport(finish_pack(folder, files, facts | {"embeddings": made.embedding_facts(stated)}))


class _Gathered:
    """The items of an evaluation set: embeddings go to files as they come, the rest is held."""

    def __init__(self, source: EvaluationSet, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.rows = 0
        self.unjudged: Counter[str] = Counter()
        self.table: list[pa.Table] = []
        self.hashes: list[PerceptualHashes] = []

    def write(self, told: Progress) -> tuple[list[str], dict[str, Any]]:
        """Write every file but ``pack.json``; returns their names, and facts of the pack."""
        told.start("packing", 1)
        with ExitStack() as stack:
            self._read(stack)
        told.advance(self.rows)
        told.finish()
        if not self.rows:
            raise InputError(f"evalset: {self.source.root} has no item")
        files = [f"embedding-{number}.npy" for number in range(len(self.source.embeddings))]
        return files, self._write_held(files)

    def embedding_facts(self, models: Mapping[str, str]) -> dict[str, Any]:
        """What the pack says of each embedding."""
        return {
            name: {
                "dimension": info.dimension,
                "dtype": info.dtype,
                "model": models.get(name),
                "unjudged": self.unjudged[name],
            }
            for name, (_, info) in self.source.embeddings.items()
        }

    def _read(self, stack: ExitStack) -> None:
        pool = self.source.pool
        appends = {
            name: stack.enter_context(_matrix_file(self.folder, f"embedding-{number}.npy", pool.rows, info))
            for number, (name, (_, info)) in enumerate(self.source.embeddings.items())
            if pool is not None
        }
        for items in self.source.items():
            for name, append in appends.items():
                x = items.embeddings[name]
                append(x)
                bits = "bfloat16" if self.source.embeddings[name][1].dtype == "bfloat16" else None
                self.unjudged[name] += len(unjudged_rows(x, dtype=bits))  # type: ignore[arg-type]
            if items.images is not None:
                self.hashes.append(perceptual_hashes(items.images))
            self.table.append(_table(items))
            self.rows += len(items.ids)

    def _write_held(self, files: list[str]) -> dict[str, Any]:
        """Write all but the embeddings; adds the names of files, returns facts of the pack."""
        table = pa.concat_tables(self.table).combine_chunks()
        with atomic_write(self.folder / "items.parquet", "file") as file:
            pq.write_table(table, file, compression="zstd")
        files.append("items.parquet")
        captions = table["caption"].combine_chunks() if table.num_rows else pa.array([], pa.large_string())
        keys = caption_keys(captions)
        judged = int(np.count_nonzero(~missing_keys(keys)))
        if judged:
            self._array(files, "captions.npy", keys)
            for n in GRAM_LENGTHS:
                grams = caption_grams(captions, keys, n)
                self._array(files, f"grams-{n}.npy", grams.hashes)
                self._array(files, f"grams-{n}-items.npy", grams.items)
        hashed = bool(self.hashes) and any((found.flags == 0).any() for found in self.hashes)
        if hashed:
            self._array(files, "phash.npy", np.concatenate([found.codes for found in self.hashes]))
            self._array(files, "phash-flags.npy", np.concatenate([found.flags for found in self.hashes]))
        return {
            "made by": f"pycurate {pycurate.__version__}",
            "rows": self.rows,
            "phash": hashed,
            "images": sum(int(np.count_nonzero(found.flags == 0)) for found in self.hashes),
            "captions": judged,
            "grams": list(GRAM_LENGTHS) if judged else [],
            "uids": table["uid"].null_count < table.num_rows,
            "sha256": table["sha256"].null_count < table.num_rows,
        }

    def _array(self, files: list[str], name: str, values: NDArray[Any]) -> None:
        with pack_array(self.folder, name, values.dtype, values.shape) as file:
            file.write(np.ascontiguousarray(values).view(np.uint8).data)
        files.append(name)


@contextmanager
def _matrix_file(folder: Path, name: str, rows: int, info: EmbeddingInfo) -> Iterator[Callable[[NDArray[Any]], object]]:
    dtype = np.dtype("uint16" if info.dtype == "bfloat16" else info.dtype)
    with pack_array(folder, name, dtype, (rows, info.dimension)) as file:
        yield lambda x: file.write(np.ascontiguousarray(x).view(np.uint8).data)


def _table(items: Items) -> pa.Table:
    n, none = len(items.ids), pa.nulls(len(items.ids), pa.large_string())
    uids = none
    if items.uids is not None:
        uids = arrow_texts([text.decode() for text in format_hex(np.asarray(items.uids, UID_DTYPE))])
    captions = none if items.captions is None else items.captions.cast(pa.large_string())
    sha256 = none if items.sha256 is None else items.sha256.cast(pa.large_string())
    assert len(captions) == len(sha256) == n
    return pa.Table.from_arrays([arrow_texts(list(items.ids)), captions, uids, sha256], schema=ITEMS)
