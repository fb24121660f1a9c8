"""Data types shared by every layer. No logic beyond what keeps them consistent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

UID_DTYPE = np.dtype("u8,u8")
"""A 128-bit uid as DataComp's subset files store it: (first 16 hex digits, last 16), ordered lexicographically."""

UidArray: TypeAlias = NDArray[np.void]
"""(n,) array of ``UID_DTYPE``."""

ScoreArray: TypeAlias = NDArray[Any]
"""(n,) C-order array of float32, float64, int64, uint8, ``S<k>`` or ``UID_DTYPE``. Missing is NaN in floats."""

UnjudgedPolicy: TypeAlias = Literal["drop", "keep", "error"]
"""What happens to a row that a rule cannot judge (NaN, zero vector, missing value)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one shard, as one streamed read yields them; everything in it has ``rows`` rows."""

    shard: str
    start: int  # row of the shard at which the block begins
    rows: int
    uids: UidArray | None = None
    columns: Mapping[str, pa.Array] = field(default_factory=dict)  # by the name that was asked for
    embeddings: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (rows, d), C order, the dtype on disk
    scores: Mapping[str, ScoreArray] = field(default_factory=dict)  # score columns of earlier steps
    images: Iterable[bytes | None] | None = (
        None  # encoded, in order, each read when its turn comes; None: not asked for
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason for which a row can be dropped, as the ledger and the report name it."""

    name: str  # "<step>" or "<step>.<detail>"; the rows that cannot be judged go to "<step>.unjudged"
    description: str  # "clip_l14_similarity_score >= 0.2483", for people
    score: str | None = None  # the score column the value comes from
    threshold: float | None = None
    unjudged: bool = False
    drops: Literal["above", "below"] | None = None  # the side of the threshold that is dropped
    names_partner: bool = False  # each row it drops duplicates another one, which Verdict.partner names


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one deciding step says of each row of a shard, given the step's ``rules``.

    A row under an ``unjudged`` rule is dropped, kept and counted, or an error that names it, as the step's field
    ``unjudged`` says: the pipeline applies that policy, the step only says that it cannot judge the row.
    """

    code: NDArray[np.uint8]  # (n,) 0: passes; i > 0: rules[i - 1] applies
    value: NDArray[np.float64]  # (n,) the value that the rule looked at; NaN where there is none
    detail: NDArray[np.bytes_] | None = None  # (n,) "S<k>", UTF-8: a category, such as the language found
    partner: UidArray | None = None  # (n,) the row that it duplicates, under rules that name one; zeros elsewhere
