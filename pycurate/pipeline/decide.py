"""The fit and decide passes: from stored score columns to a reason for every row.

No pool file is read, but by the fits of steps that say so (``Step.fit_needs``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.io.atomic import naming_a_full_disk
from pycurate.io.pool import Pool
from pycurate.pipeline.pool_rows import shard_starts
from pycurate.pipeline.scan import UID_COLUMN, ColumnSet
from pycurate.pipeline.step import Artefact, Pairs, Step
from pycurate.pipeline.workspace import Workspace, digest
from pycurate.types import UID_DTYPE, Block, Rule, ScoreArray, UidArray, UnjudgedPolicy, Verdict

T = TypeVar("T")
ThreadMap = Callable[[Callable[[str], T], Sequence[str]], Iterator[T]]
"""Calls a function of a shard's name on several threads and yields results in the order given."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What all steps together say of one shard; arrays have one entry a row."""

    reason: NDArray[np.uint16]  # 0: kept; i > 0: dropped by Decider.rules[i - 1]
    value: NDArray[np.float64]
    detail: NDArray[np.bytes_] | None
    entering: tuple[int, ...]  # rows that reached each deciding step
    unjudged_kept: tuple[int, ...]  # rows a step could not judge and kept, by its policy
    partner: UidArray | None = None  # of rows whose reason is a rule with ``names_partner``: what they duplicate

    @property
    def keep(self) -> NDArray[np.bool_]:
        return np.asarray(self.reason == 0)


@dataclass(frozen=True, slots=True)
class FittedStep:
    """A deciding step with what its fit found; ``Decider`` asks these in order."""

    step: Step
    artefact: Artefact
    key: str  # changes whenever the step's decisions may
    rules: tuple[Rule, ...]
    first_reason: int  # reason = first_reason + code - 1

    @property
    def policy(self) -> UnjudgedPolicy:
        """What happens to rows under the step's ``unjudged`` rule."""
        policy: UnjudgedPolicy = getattr(self.step, "unjudged", "drop")
        return policy


class Decider:
    """Fits the deciding steps of a recipe in order, then decides shard by shard.

    Parameters
    ----------
    fingerprints
        Shard name -> fingerprint, for every shard with rows, in the pool's order.
    pool
        What fits read embeddings from; may be left out where no step has ``fit_needs``.
    device
        What fits find as ``FitView.device``; changes no key.
    """

    def __init__(
        self,
        workspace: Workspace,
        steps: Sequence[Step],
        sets: Sequence[ColumnSet],
        fingerprints: Mapping[str, str],
        shard_rows: Mapping[str, int],
        thread_map: ThreadMap[Any],
        memory_bytes: int,
        pool: Pool | None = None,
        device: str | None = None,
    ) -> None:
        self.workspace = workspace
        self.pool = pool
        self.shards = tuple(fingerprints)
        self.memory_bytes = memory_bytes
        self.device = device
        self._rows = shard_rows
        self._map = thread_map
        self._folders = {name: s.folder for s in sets for name in s.columns}
        self._exchanges = {s.step.name: s.folder for s in sets if s.step.exchanges}
        self._pool_key = digest(sorted(fingerprints.items()))
        self._pending = [step for step in steps if step.decides]
        self.fitted: list[FittedStep] = []
        self.rules: list[Rule] = []

    @property
    def key(self) -> str:
        """Changes whenever any decision may."""
        return digest(self._pool_key, [fitted.key for fitted in self.fitted])

    def fit(self, on_step: Callable[[Step, bool], None] = lambda step, reused: None) -> None:
        """Fit every deciding step in order, each seeing the survivors of those before; reuses stored artefacts."""
        for step in self._pending:
            needs = step.decide_needs()
            columns = [self._folders[name] for name in (*needs.columns, *needs.scores)]
            artefact: Mapping[str, Any] = {}
            artefact_key = ""
            if step.fits:
                earlier = [fitted.key for fitted in self.fitted] if step.fits_survivors else []
                artefact_key = digest(step.kind, step.version, step.fit_parameters(), columns, self._pool_key, earlier)
                folder = f"{step.kind}-{artefact_key}"
                stored = self.workspace.read_artefact(folder)
                on_step(step, stored is not None)
                if stored is None:
                    with (
                        self.workspace.scratch(folder, resumes=step.resumes) as scratch,
                        naming_a_full_disk(scratch),
                    ):
                        self.workspace.write_artefact(
                            folder, step.fit(_View(self, scratch, self._exchanges.get(step.name)))
                        )
                    stored = self.workspace.read_artefact(folder)
                    assert stored is not None
                artefact = stored
            rules = tuple(step.rules(artefact))
            key = digest(step.kind, step.version, step.model_dump(mode="json"), columns, artefact_key)
            self.fitted.append(FittedStep(step, artefact, key, rules, len(self.rules) + 1))
            self.rules.extend(rules)

    def columns(self, shard: str, names: Sequence[str]) -> dict[str, ScoreArray]:
        """Stored score columns of one shard, memory-mapped."""
        found: dict[str, ScoreArray] = {}
        for name in names:
            if name not in found:
                found |= self.workspace.read_columns(self._folders[name], shard)
        return {name: found[name] for name in names}

    def uids(self, shard: str) -> UidArray:
        return self.columns(shard, [UID_COLUMN])[UID_COLUMN]

    def rows(self, shard: str) -> int:
        return self._rows[shard]

    @property
    def starts(self) -> dict[str, int]:
        """The row of the pool at which each shard begins."""
        return shard_starts(self)[0]

    def decide(self, shard: str) -> Decision:
        """Ask the fitted steps in order; the first rule that drops a row is its reason."""
        rows = self.rows(shard)
        reason = np.zeros(rows, np.uint16)
        value = np.full(rows, np.nan)
        detail: NDArray[np.bytes_] | None = None
        partner: UidArray | None = None
        entering: list[int] = []
        unjudged_kept: list[int] = []
        for fitted in self.fitted:
            alive = reason == 0
            entering.append(int(np.count_nonzero(alive)))
            verdict = self._verdict(shard, fitted)
            kept_anyway = self._apply_policy(shard, fitted, verdict, alive)
            unjudged_kept.append(int(np.count_nonzero(kept_anyway)))
            dropped = alive & (verdict.code > 0) & ~kept_anyway
            reason[dropped] = fitted.first_reason - 1 + verdict.code[dropped].astype(np.uint16)
            value[dropped] = verdict.value[dropped]
            if verdict.detail is not None and dropped.any():
                width = max(verdict.detail.dtype.itemsize, 0 if detail is None else detail.dtype.itemsize)
                detail = np.zeros(rows, f"S{width}") if detail is None else detail.astype(f"S{width}")
                detail[dropped] = verdict.detail[dropped]
            if verdict.partner is not None and dropped.any():
                partner = np.zeros(rows, UID_DTYPE) if partner is None else partner
                partner[dropped] = verdict.partner[dropped]
        return Decision(reason, value, detail, tuple(entering), tuple(unjudged_kept), partner)

    def _verdict(self, shard: str, fitted: FittedStep) -> Verdict:
        needs = fitted.step.decide_needs()
        columns = self.columns(shard, (*needs.columns, *needs.scores))
        uids = self.uids(shard) if needs.uids else None
        return fitted.step.decide(shard, columns, uids, fitted.artefact)

    def _apply_policy(
        self, shard: str, fitted: FittedStep, verdict: Verdict, alive: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Rows that the step could not judge and its policy keeps."""
        kept = np.zeros(len(alive), np.bool_)
        for code, rule in enumerate(fitted.rules, start=1):
            if not rule.unjudged or fitted.policy == "drop":
                continue
            unjudged = alive & (verdict.code == code)
            if fitted.policy == "error" and unjudged.any():
                row = int(np.argmax(unjudged))
                why = "" if verdict.detail is None else f" ({verdict.detail[row].decode()})"
                raise InputError(
                    f"shard {shard}, row {row}: step {fitted.step.name!r} cannot judge this row{why}, the first of "
                    f"{int(unjudged.sum()):,} in the shard, and its policy is unjudged: error. Set unjudged: drop or "
                    "keep, or mend the rows"
                )
            kept |= unjudged
        return kept


class _View:
    """The FitView of one fit: everything stored, and who survived the steps before."""

    def __init__(self, decider: Decider, scratch: Path, exchange: str | None) -> None:
        self._decider = decider
        self._exchange = exchange
        self.shards: Sequence[str] = decider.shards
        self.scratch = scratch
        self.memory_bytes = decider.memory_bytes
        self.device = decider.device

    def rows(self, shard: str) -> int:
        return self._decider.rows(shard)

    def column(self, shard: str, name: str) -> ScoreArray:
        return self._decider.columns(shard, [name])[name]

    def uids(self, shard: str) -> UidArray:
        return self._decider.uids(shard)

    def survivors(self, shard: str) -> NDArray[np.bool_]:
        return self._decider.decide(shard).keep

    def embedding_blocks(self, shard: str, name: str) -> Iterator[Block]:
        assert self._decider.pool is not None, "a fit that reads the pool needs a Decider that has it"
        uids = self.uids(shard)
        for block in self._decider.pool.shard(shard).blocks((), (name,), uids=False):
            yield replace(block, uids=uids[block.start : block.start + block.rows])

    def column_blocks(self, shard: str, name: str) -> Iterator[Block]:
        assert self._decider.pool is not None, "a fit that reads the pool needs a Decider that has it"
        return self._decider.pool.shard(shard).blocks((name,), uids=False)

    def exchanged(self, shard: str) -> Sequence[Pairs]:
        assert self._exchange is not None, "this step does not exchange"
        return self._decider.workspace.read_pairs(self._exchange, shard)

    def map(self, function: Callable[[str], T]) -> Iterator[T]:
        return self._decider._map(function, self.shards)
