"""The record of a run: ``manifest.json`` and ``examples.json``, as the pipeline writes and the report reads them.

Counts are rows. A value that JSON cannot hold (NaN, infinity) is written as null. Models are frozen and refuse unknown
keys, so a manifest of another version is noticed and not half understood.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pycurate.errors import InputError
from pycurate.types import UnjudgedPolicy

MANIFEST_NAME = "manifest.json"
EXAMPLES_NAME = "examples.json"
GROUPS_NAME = "groups.parquet"

Side = Literal["above", "below"]
GroupChoice = Literal["largest", "least similar"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null", defer_build=True)


class RecipeRecord(_Record):
    """The recipe that ran; ``yaml`` is its whole text, ``hash`` names it in the workspace."""

    name: str
    description: str
    yaml: str
    hash: str


class PoolRecord(_Record):
    """The input; ``fingerprint`` covers every shard's path, size, time and contents as the pool defines it."""

    root: str
    layout: str
    shards: int
    rows: int
    uid_source: Literal["column", "path"]
    fingerprint: str


class Counts(_Record):
    """``rows`` = ``kept`` + ``dropped``; ``unjudged`` rows are those that some asked rule could not judge."""

    rows: int
    kept: int
    dropped: int
    unjudged: int


class RuleRecord(_Record):
    """One rule of a step, and how many rows have it as the first reason that dropped them.

    ``drops`` is the side of ``threshold`` that the rule drops, where there is one. ``policy`` is set for the rule of
    the rows that cannot be judged (``unjudged``).
    """

    name: str
    description: str
    score: str | None = None
    threshold: float | None = None
    unjudged: bool = False
    dropped: int = 0
    policy: UnjudgedPolicy | None = None
    drops: Side | None = None


class StepRecord(_Record):
    """One step of the recipe: rows ``entering`` it and ``kept`` by it. A step that only scores has no rules."""

    name: str
    kind: str
    entering: int
    rules: tuple[RuleRecord, ...] = ()
    kept: int


class HistogramRecord(_Record):
    """``counts[i]`` values lie between ``edges[i]`` and ``edges[i + 1]``; widths may differ."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class ScoreRecord(_Record):
    """One score column over the whole pool. Statistics are of the ``count`` finite values; ``missing`` are NaN."""

    name: str
    count: int
    missing: int
    infinite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    histogram: HistogramRecord | None = None
    thresholds: tuple[float, ...] = ()


class FirstPlace(_Record):
    """Where something was first seen: the row number counts within the shard, from 0."""

    shard: str
    row: int


class UnjudgedRecord(_Record):
    """Rows that ``rule`` could not judge for one ``reason``, and what the recipe does with them."""

    rule: str
    reason: str
    count: int
    policy: UnjudgedPolicy
    first: FirstPlace | None = None


class StageRecord(_Record):
    """One stage of the run (scan, fit, decide, write...); ``reused`` tasks came from the workspace as they were."""

    name: str
    seconds: float
    rows: int = 0
    bytes: int = 0
    reused: int = 0


class MemoryRecord(_Record):
    """The cap that was set and the peak that was measured over the process tree."""

    cap_bytes: int
    peak_bytes: int | None = None
    workers: int


class EnvironmentRecord(_Record):
    """Versions and machine: whatever a person needs to repeat the run."""

    python: str
    numpy: str
    pyarrow: str
    duckdb: str
    isa: str
    threads: int
    platform: str


class SubsetRecord(_Record):
    """The subset file, relative to the folder of the manifest where it lies in it."""

    path: str
    rows: int
    sha256: str | None = None


class GroupSizeRecord(_Record):
    """``groups`` groups have ``low`` to ``high`` rows, with the row kept."""

    low: int
    high: int
    groups: int


class DuplicatesRecord(_Record):
    """The groups of duplicates that one step found, and the rows it dropped from them."""

    step: str
    groups: int
    dropped: int
    largest: int
    sizes: tuple[GroupSizeRecord, ...] = ()


class GroupsRecord(_Record):
    """``groups.parquet``, relative to the folder of the manifest: a row for each row dropped and each row kept."""

    path: str
    rows: int
    sha256: str | None = None
    steps: tuple[DuplicatesRecord, ...] = ()


class Manifest(_Record):
    """Everything about a finished run but its rows; ``created`` is ISO 8601 in UTC."""

    pycurate: str
    created: str
    recipe: RecipeRecord
    pool: PoolRecord
    counts: Counts
    steps: tuple[StepRecord, ...]
    scores: tuple[ScoreRecord, ...] = ()
    unjudged: tuple[UnjudgedRecord, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    memory: MemoryRecord
    environment: EnvironmentRecord
    subset: SubsetRecord
    groups: GroupsRecord | None = None  # of runs with a step that drops duplicates


class ExampleRow(_Record):
    """One row near a threshold; ``image`` is a base64 JPEG thumbnail, ``image_note`` says why there is none."""

    uid: str
    shard: str
    row: int
    value: float | None
    caption: str | None = None
    url: str | None = None
    image: str | None = None
    image_note: str | None = None


class ExampleGroup(_Record):
    """Rows whose value lies nearest to the threshold of ``rule``, on one ``side`` of it, nearest first."""

    rule: str
    side: Side
    rows: tuple[ExampleRow, ...]


class DuplicateGroup(_Record):
    """One group of duplicates: the row that was kept, ``size`` rows with it, and some of those that were dropped.

    ``value`` of a dropped row is its similarity to the row in whose favour it was dropped.
    """

    step: str
    choice: GroupChoice
    size: int
    keeper: ExampleRow
    rows: tuple[ExampleRow, ...]


class Examples(_Record):
    """``examples.json``: kept apart from the manifest because pictures are large."""

    groups: tuple[ExampleGroup, ...] = ()
    duplicates: tuple[DuplicateGroup, ...] = ()


_RecordT = TypeVar("_RecordT", bound=_Record)


def read_manifest(out_dir: Path | str) -> Manifest:
    """The manifest of a finished run.

    Raises
    ------
    InputError
        Where the folder holds no manifest, or one that this version does not understand.
    """
    return _read(Path(out_dir) / MANIFEST_NAME, Manifest)


def read_examples(out_dir: Path | str) -> Examples:
    """The examples of a finished run; none where the file is absent."""
    path = Path(out_dir) / EXAMPLES_NAME
    return _read(path, Examples) if path.exists() else Examples()


def _read(path: Path, model: type[_RecordT]) -> _RecordT:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected the output folder of a finished `pycurate run`"
        ) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: {place}: {first['msg']}; it was written by another version or changed by hand: repeat the run"
        ) from error
