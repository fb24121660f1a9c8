"""The Step protocol: what a recipe step needs, makes and decides.

A step makes at most three of the four moves: it may *score* (rows in, columns out), *fit* (a whole pool in, a small
artefact out) and *decide* (columns in, a reason per row out). Writing belongs to the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict

T = TypeVar("T")
Artefact = Mapping[str, Any]
"""What ``fit`` returns: JSON values and NumPy arrays by name; kept in the workspace, arrays memory-mapped."""


Pairs: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.uint32]]
"""(m,) keys and the (m,) rows that have them: any number of keys a row, such as a hash of each of its words."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a step reads: stored columns, embeddings and images of the pool, score columns of earlier steps."""

    columns: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    uids: bool = False
    images: bool = False


class FitView(Protocol):
    """A whole pool as ``fit`` sees it: stored score columns, shard by shard, never all at once."""

    shards: Sequence[str]
    scratch: Path
    memory_bytes: int
    device: str | None  # where kernels run that a GPU may run, as in `pycurate.nearest`; no artefact depends on it

    def rows(self, shard: str) -> int: ...
    def column(self, shard: str, name: str) -> ScoreArray: ...
    def uids(self, shard: str) -> UidArray: ...
    def survivors(self, shard: str) -> NDArray[np.bool_]:
        """True where no earlier step of the recipe dropped the row."""
        ...

    def embedding_blocks(self, shard: str, name: str) -> Iterator[Block]:
        """The shard's blocks in order, each with its uids and the embedding ``name``, in one streamed read of the pool.

        Two blocks of at most 16 MiB are held. The embedding is one of the step's ``fit_needs``.
        """
        ...

    def column_blocks(self, shard: str, name: str) -> Iterator[Block]:
        """The shard's blocks in order, each with the stored column ``name``, one of those that the step scores."""
        ...

    def exchanged(self, shard: str) -> Sequence[Pairs]:
        """What the step's ``exchange`` gave for the shard, in segments sorted by key; rows are those of the shard."""
        ...

    def map(self, function: Callable[[str], T]) -> Iterator[T]:
        """``function(shard)`` on several threads; results in the order of ``shards``."""
        ...


class Step(BaseModel):
    """Base of every recipe step: a frozen, validated configuration and the op it calls.

    ``version`` is bumped whenever the same input and parameters give other columns or decisions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # a run builds the steps it uses
    kind: ClassVar[str]
    version: ClassVar[int] = 1
    python_bound: ClassVar[bool] = False  # True: score() holds the GIL, so worker processes pay
    stays_in_process: ClassVar[bool] = False  # True: holds what only this process has, such as a lambda

    name: str = ""  # unique in a recipe; the recipe fills it from ``kind`` when left empty

    def score_needs(self) -> Needs:
        """What ``score`` reads."""
        return Needs()

    def decide_needs(self) -> Needs:
        """The score columns (and uids) that ``fit`` and ``decide`` read. Stored pool columns named here in ``columns``
        are numeric; the pipeline copies them into the workspace as score columns of the same name."""
        return Needs()

    def produces(self) -> tuple[str, ...]:
        """Names of the score columns that ``score`` returns."""
        return ()

    def score_parameters(self) -> dict[str, Any]:
        """JSON values of every parameter on which the score columns depend, and no other."""
        return {}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        """Score columns of one block; must not depend on where the blocks are cut."""
        return {}

    def score_on(self, block: Block, device: str | None) -> dict[str, ScoreArray]:
        """The same, by kernels on a GPU where a step has such and ``device`` names one (as in `pycurate.nearest`)."""
        return self.score(block)

    exchanges: ClassVar[bool] = False

    def exchange(self, block: Block) -> Pairs:
        """Keys of a block's rows, for a fit that brings equal keys of the pool together (``exchange.key_ranges``).

        Keys are 64-bit hashes, spread evenly; rows count from the block's beginning. Depends on what ``score`` depends
        on; the step makes a score column, too.
        """
        raise AssertionError(f"step {self.name!r} does not exchange")

    def fit_parameters(self) -> dict[str, Any]:
        """JSON values of every parameter on which the artefact depends; ``fits`` is False without a fit."""
        return {}

    def fit_needs(self) -> Needs:
        """Embeddings that ``fit`` reads from the pool itself (``FitView.embedding_blocks``): named here, they are
        checked before anything runs and counted in a plan."""
        return Needs()

    fits: ClassVar[bool] = False
    artefact_row_bytes: ClassVar[int] = 0  # of each row of the pool, at most: what the fit leaves in the workspace
    scratch_row_bytes: ClassVar[int] = 0  # and what it writes to its scratch folder, gone after it
    scratch_embeddings: ClassVar[int] = 0  # how often besides the embeddings of fit_needs; may be a property
    resumes: ClassVar[bool] = False  # fit goes on from what one that was stopped left in view.scratch
    fits_survivors: ClassVar[bool] = False  # may be overridden by a property: fit looks at view.survivors

    def fit(self, view: FitView) -> Artefact:
        """A small artefact of the whole pool."""
        return {}

    decides: ClassVar[bool] = False

    def rules(self, artefact: Artefact) -> list[Rule]:
        """The rules that ``decide`` may give as a reason, in the order of its codes."""
        return []

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        """A reason for each row of one shard."""
        raise AssertionError(f"step {self.name!r} does not decide")
