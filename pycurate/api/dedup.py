"""``dedup``: semantic duplicates of a pool, removed at a threshold that can be chosen afterwards."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycurate.api.dedup_outputs import Outcome, write_manifest, write_outputs
from pycurate.api.dedup_rows import UID, RowInput, Rows
from pycurate.api.dedup_run import SEARCH, Run
from pycurate.api.dedup_settings import Mode, Settings
from pycurate.api.dedup_store import DuplicateStore
from pycurate.api.out import claim_out
from pycurate.engine import NoProgress, Progress
from pycurate.kernels.device import device_of
from pycurate.ops.dedup.removal import Duplicates, Removal
from pycurate.pipeline.cluster_join import Clustering
from pycurate.pipeline.workspace import Workspace
from pycurate.steps.duplicate_search import MAX_PAIRS


@dataclass(frozen=True, slots=True, eq=False)
class DedupResult:
    """What a finished `dedup` removed and wrote."""

    out: Path
    threshold: float
    store: DuplicateStore
    manifest: dict[str, Any]
    outcome: Outcome

    @property
    def duplicates(self) -> Duplicates:
        """For each row, in the order of the pool, the row in whose favour it is removed."""
        return self.store.at(self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"out": str(self.out), **self.manifest}

    def render(self) -> str:
        """For people."""
        facts, found = self.manifest, self.outcome
        sign = ">" if facts["strict"] else ">="
        rows = facts["rows"]
        lines = [
            f"rows     {rows:,}, {facts['mode']} mode, {facts['removal']} removal at cosine {sign} {self.threshold:g}",
            f"removed  {found.removed:,} ({100 * found.removed / max(rows, 1):.2f} %), kept {found.kept:,}",
            f"groups   {found.groups:,}, the largest of {found.largest_group:,} rows",
        ]
        if (chain := found.chain) is not None:
            lines.append(
                f"chains   {chain.rows:,} removed rows are below the threshold from the row that is kept; farthest is "
                f"{chain.uid}, {chain.similarity:.3f} from {chain.keeper_uid} by links of {chain.link:.3f} or more"
            )
        if (unjudged := facts["unjudged"])["rows"]:
            named = ", ".join(unjudged["first"]) + (", ..." if unjudged["rows"] > len(unjudged["first"]) else "")
            lines.append(f"unjudged {unjudged['rows']:,} rows are kept, not finite or of length 0: {named}")
        if certificate := facts.get("certificate"):
            lines.append(f"recall   {certificate['sentence']}")
        only = self.store.only_threshold
        answers = f"from {self.store.floor:g} on" if only is None else "at this threshold only: too many pairs"
        lines += [f"answers  {answers}, see `pycurate dedup curve`", f"to       {self.out}"]
        return "\n".join(lines)


def dedup(
    rows: Rows,
    out: str | os.PathLike[str],
    *,
    embedding: str | None = None,
    mode: Mode = "exact",
    removal: Removal = "published",
    eps: float | None = None,
    threshold: float | None = None,
    floor: float | None = None,
    strict: bool = False,
    priority: str = UID,
    clustering: Clustering | None = None,
    min_recall: float | None = None,
    max_pairs: int = MAX_PAIRS,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> DedupResult:
    """Keep one of each group of rows whose embeddings are alike by cosine, as SemDeDup (Abbas et al., 2023) does.

    What was found stays in ``out``: for another threshold from the floor on, nothing is compared again. A killed run
    goes on where it stopped, and writes the same bytes.

    Parameters
    ----------
    rows
        A pool, its path or URL; an (n, d) float16, bfloat16, float32 or int8 array; or the path of a .npy file of one,
        whose rows have their number as uid. Normalised or not. Copied to ``out`` unless plain bytes of a local file.
    out
        A folder: new, empty, or of an earlier run on the same rows with the same settings but for thresholds.
    embedding
        Its name; not needed where a pool has one.
    mode
        ``"exact"``: every pair is compared, by bounds that miss none. ``"clustered"``: rows of one cluster, and of the
        clusters beyond its borders; ``"index"``: 32 neighbours of each row; what these miss is measured and told.
    removal
        ``"published"``: a row goes if any earlier row reaches the threshold, even one that goes itself. ``"greedy"``:
        only if one that stays does. ``"component"``: of rows linked, directly or through others, the earliest stays.
    eps, threshold
        One of the two; threshold is 1 - eps. Default: eps = 0.07.
    floor
        The lowest threshold that can be asked for later. Default: 1 - 2 eps.
    strict
        Whether a pair must be above the threshold, or reaches it at the threshold.
    priority
        What comes first, and stays: ``"uid"``; a column of numbers, the largest; ``"image_area"``; in clustered mode
        ``"hard"`` or ``"easy"``, the farthest from its centroid or the nearest. Missing values come last, ties by uid.
    clustering, min_recall
        Of clustered mode: see `Clustering`; probes are raised until such a recall is certified at the floor.
    max_pairs
        Of greedy removal, which stores all pairs. Where there are more, exact mode goes through the rows by priority at
        the one threshold, in memory that grows with rows only.
    memory_bytes
        Cap on what the process takes, clean pages of files not counted; default half of what is allowed.
    threads, progress
        Processors by default; told of stages.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"cuda:0,1"`` or ``"auto"``: where rows are compared. The files are the
        same, and a run that was stopped may go on with another device.

    Returns
    -------
    DedupResult
        In ``out``: subset.npy (kept uids, sorted), removed.parquet, groups.parquet, manifest.json and store/.

    Raises
    ------
    InputError, MemoryCapError, PoolError, RecallError, WorkspaceError
        Each says what was expected, what came and what to do.
    """
    settings = Settings(mode, removal, eps, threshold, floor, strict, priority, clustering, min_recall, max_pairs)
    given = RowInput(rows, embedding)
    given.check_priority(priority)
    device_of(device)  # that there is such a GPU, before anything is written
    run = Run(claim_out(Path(out)), given, memory_bytes, threads, progress or NoProgress(), device)
    with Workspace(run.out).lock():
        run.require_question({"rows": given.facts(), **settings.question()})
        store = run.stored(settings.floor) or run.search(settings)
        return finish(run, store, settings.limit)


def finish(run: Run, store: DuplicateStore, threshold: float) -> DedupResult:
    """Drop what only the search needed, decide at a threshold and write the files."""
    shutil.rmtree(run.out / SEARCH, ignore_errors=True)
    store.require(threshold)
    outcome = write_outputs(store, threshold, f"{store.removal} by cosine", run.out, run.threads)
    manifest = write_manifest(store, outcome, threshold, run.out)
    return DedupResult(run.out, threshold, store, manifest, outcome)
