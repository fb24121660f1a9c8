"""What each shard's decisions contribute to the manifest and the report: counts, statistics, rows near thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.uid import format_hex
from pycurate.ops.score_statistics import ScoreStatistics, score_statistics
from pycurate.pipeline.decide import Decider, Decision
from pycurate.pipeline.groups import StepGroups
from pycurate.pipeline.workspace import digest
from pycurate.report.manifest import (
    DuplicatesRecord,
    FirstPlace,
    GroupSizeRecord,
    HistogramRecord,
    RuleRecord,
    ScoreRecord,
    Side,
    StepRecord,
    UnjudgedRecord,
)
from pycurate.types import Rule, UidArray

EXAMPLES_PER_SIDE = 6
EXAMPLE_SHARDS = 4
"""Shards that examples come from. Their captions are read again, 5 to 10 ms a shard: it must not grow with the pool."""
EXAMPLE_ROWS = 1 << 14
"""First rows of such a shard that examples come from, where these have enough: what is read again stays one block."""


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A row that may be shown beside a rule; the smallest are shown."""

    distance: float  # from the rule's threshold; 0 where the rule has none
    uid: str
    shard: str
    row: int
    value: float  # NaN where the rule looked at none


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Rows one rule could not judge for one reason."""

    count: int
    shard: str
    row: int


@dataclass
class Outcome:
    """The merged outcome of all shards; every part is the same whatever the order they come in."""

    rows: int
    kept: int
    dropped: NDArray[np.int64]  # (rules,) rows that each rule dropped
    entering: NDArray[np.int64]  # (deciding steps,)
    unjudged_kept: NDArray[np.int64]  # (deciding steps,)
    statistics: dict[str, ScoreStatistics]
    examples: dict[tuple[str, Side], list[Candidate]]
    unjudged: dict[tuple[str, str], Unjudged]


def example_shards(shards: Sequence[str]) -> frozenset[str]:
    """The shards that examples come from: a sample that depends on the shards' names only, not on their order."""
    return frozenset(sorted(shards, key=lambda shard: (digest(shard), shard))[:EXAMPLE_SHARDS])


def shard_outcome(
    decider: Decider, shard: str, decision: Decision, scores: Sequence[str], with_examples: bool
) -> Outcome:
    """The outcome of one shard; ``scores`` are the numeric columns to describe."""
    uids = decider.uids(shard)
    reason = decision.reason
    dropped = np.bincount(reason, minlength=len(decider.rules) + 1)[1:].astype(np.int64)
    statistics = {name: score_statistics(values) for name, values in decider.columns(shard, scores).items()}
    examples: dict[tuple[str, Side], list[Candidate]] = {}
    unjudged: dict[tuple[str, str], Unjudged] = {}
    for number, rule in enumerate(decider.rules, start=1):
        rows = np.flatnonzero(reason == number)
        if rule.unjudged:
            unjudged |= _unjudged(rule, shard, rows, decision.detail)
        elif not with_examples:
            continue
        elif rule.threshold is not None and rule.score is not None:
            kept = np.flatnonzero((reason == 0) | (reason > number))
            values = decider.columns(shard, [rule.score])[rule.score]
            dropped_side: Side = rule.drops or "below"
            kept_side: Side = "above" if dropped_side == "below" else "below"
            examples[rule.name, dropped_side] = _nearest(shard, rows, values, rule.threshold, uids)
            examples[rule.name, kept_side] = _nearest(shard, kept, values, rule.threshold, uids)
        else:
            examples[rule.name, rule.drops or "below"] = _smallest(shard, rows, decision.value, uids)
    return Outcome(
        rows=len(reason),
        kept=int(np.count_nonzero(reason == 0)),
        dropped=dropped,
        entering=np.array(decision.entering, np.int64),
        unjudged_kept=np.array(decision.unjudged_kept, np.int64),
        statistics=statistics,
        examples=examples,
        unjudged=unjudged,
    )


def merge_outcomes(outcomes: Iterable[Outcome], rules: int, steps: int) -> Outcome:
    """All shards together."""
    total = Outcome(
        0, 0, np.zeros(rules, np.int64), np.zeros(steps, np.int64), np.zeros(steps, np.int64), {}, {}, {}
    )  # fmt: skip
    for part in outcomes:
        total.rows += part.rows
        total.kept += part.kept
        total.dropped += part.dropped
        total.entering += part.entering
        total.unjudged_kept += part.unjudged_kept
        for name, statistics in part.statistics.items():
            total.statistics[name] = (
                total.statistics[name].merge(statistics) if name in total.statistics else statistics
            )
        for side, candidates in part.examples.items():
            total.examples[side] = sorted([*total.examples.get(side, []), *candidates])[:EXAMPLES_PER_SIDE]
        for reason, found in part.unjudged.items():
            known = total.unjudged.get(reason)
            if known is None:
                total.unjudged[reason] = found
            else:
                first = min((known.shard, known.row), (found.shard, found.row))
                total.unjudged[reason] = Unjudged(known.count + found.count, *first)
    return total


def _unjudged(
    rule: Rule, shard: str, rows: NDArray[np.intp], detail: NDArray[np.bytes_] | None
) -> dict[tuple[str, str], Unjudged]:
    if not len(rows):
        return {}
    if detail is None:
        return {(rule.name, rule.description): Unjudged(len(rows), shard, int(rows[0]))}
    reasons, first, counts = np.unique(detail[rows], return_index=True, return_counts=True)
    return {
        (rule.name, reason.decode() or rule.description): Unjudged(int(count), shard, int(rows[place]))
        for reason, place, count in zip(reasons, first, counts, strict=True)
    }


def _nearest(
    shard: str, rows: NDArray[np.intp], values: NDArray[np.generic], threshold: float, uids: UidArray
) -> list[Candidate]:
    distance = np.abs(values[rows].astype(np.float64) - threshold)
    finite = np.isfinite(distance)
    rows, distance = rows[finite], distance[finite]
    count = _rows_sampled(rows)
    rows, distance = rows[:count], distance[:count]
    if len(rows) > EXAMPLES_PER_SIDE:
        limit = np.partition(distance, EXAMPLES_PER_SIDE - 1)[EXAMPLES_PER_SIDE - 1]
        near = np.flatnonzero(distance <= limit)
        rows, distance = _first_by_uid(rows[near], distance[near], uids)
    return _candidates(shard, rows, distance, values, uids)


def _smallest(shard: str, rows: NDArray[np.intp], values: NDArray[np.float64], uids: UidArray) -> list[Candidate]:
    rows = rows[: _rows_sampled(rows)]
    if len(rows) > EXAMPLES_PER_SIDE:
        high = uids["f0"][rows]
        rows = rows[high <= np.partition(high, EXAMPLES_PER_SIDE - 1)[EXAMPLES_PER_SIDE - 1]]
    rows, distance = _first_by_uid(rows, np.zeros(len(rows)), uids)
    return _candidates(shard, rows, distance, values, uids)


def _rows_sampled(rows: NDArray[np.intp]) -> int:
    """How many of the rising row numbers examples are chosen from."""
    count = int(np.searchsorted(rows, EXAMPLE_ROWS))
    return count if count >= EXAMPLES_PER_SIDE else len(rows)


def _first_by_uid(
    rows: NDArray[np.intp], distance: NDArray[np.float64], uids: UidArray
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    keys = uids[rows]
    order = np.lexsort((keys["f1"], keys["f0"], distance))[:EXAMPLES_PER_SIDE]
    return rows[order], distance[order]


def _candidates(
    shard: str, rows: NDArray[np.intp], distance: NDArray[np.float64], values: NDArray[np.generic], uids: UidArray
) -> list[Candidate]:
    names = format_hex(uids[rows])
    return sorted(
        Candidate(float(distance[i]), names[i].decode(), shard, int(row), float(values[row]))
        for i, row in enumerate(rows)
    )


def manifest_steps(step_names: Sequence[tuple[str, str]], decider: Decider, outcome: Outcome) -> tuple[StepRecord, ...]:
    """Every step of the recipe, given as (name, kind), with what entered it and what each rule dropped."""
    fitted = {f.step.name: (i, f) for i, f in enumerate(decider.fitted)}
    alive = outcome.rows
    steps = []
    for name, kind in step_names:
        entering, rules = alive, []
        if name in fitted:
            place, step = fitted[name]
            entering = int(outcome.entering[place])
            for number, rule in enumerate(step.rules, start=step.first_reason):
                dropped = int(outcome.dropped[number - 1])
                alive -= dropped
                rules.append(
                    RuleRecord(
                        name=rule.name,
                        description=rule.description,
                        score=rule.score,
                        threshold=rule.threshold,
                        unjudged=rule.unjudged,
                        dropped=dropped,
                        policy=step.policy if rule.unjudged else None,
                        drops=rule.drops,
                    )
                )
        steps.append(StepRecord(name=name, kind=kind, entering=entering, rules=tuple(rules), kept=alive))
    return tuple(steps)


def manifest_scores(decider: Decider, outcome: Outcome) -> tuple[ScoreRecord, ...]:
    """Every described score column with a histogram for people and the thresholds that rules set on it."""
    thresholds: dict[str, list[float]] = {}
    for rule in decider.rules:
        if rule.score is not None and rule.threshold is not None and np.isfinite(rule.threshold):
            thresholds.setdefault(rule.score, []).append(rule.threshold)
    scores = []
    for name, found in outcome.statistics.items():
        limits = tuple(thresholds.get(name, ()))
        edges, counts = found.display_bins(include=limits)
        scores.append(
            ScoreRecord(
                name=name,
                count=found.count,
                missing=found.missing,
                infinite=found.infinite,
                minimum=found.minimum if found.count else None,
                maximum=found.maximum if found.count else None,
                mean=found.mean if found.count else None,
                histogram=HistogramRecord(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))
                if found.count
                else None,
                thresholds=limits,
            )
        )
    return tuple(scores)


def manifest_unjudged(decider: Decider, outcome: Outcome) -> tuple[UnjudgedRecord, ...]:
    """Rows that could not be judged, by rule and reason, dropped or kept by policy."""
    policies = {rule.name: fitted.policy for fitted in decider.fitted for rule in fitted.rules}
    kept = tuple(
        UnjudgedRecord(rule=rule.name, reason=rule.description, count=int(count), policy="keep")
        for fitted, count in zip(decider.fitted, outcome.unjudged_kept, strict=True)
        for rule in fitted.rules
        if count and rule.unjudged and fitted.policy == "keep"
    )
    dropped = tuple(
        UnjudgedRecord(
            rule=rule,
            reason=reason,
            count=found.count,
            policy=policies[rule],
            first=FirstPlace(shard=found.shard, row=found.row),
        )
        for (rule, reason), found in sorted(outcome.unjudged.items())
    )
    return dropped + kept


def manifest_duplicates(duplicates: Sequence[StepGroups]) -> tuple[DuplicatesRecord, ...]:
    """The groups of every step that drops duplicates, counted by their size in powers of two."""
    return tuple(
        DuplicatesRecord(
            step=made.step,
            groups=made.groups,
            dropped=made.removed,
            largest=made.largest[0].size if made.largest else 0,
            sizes=tuple(
                GroupSizeRecord(low=1 << power, high=(2 << power) - 1, groups=made.sizes[power])
                for power in sorted(made.sizes)
            ),
        )
        for made in duplicates
    )
