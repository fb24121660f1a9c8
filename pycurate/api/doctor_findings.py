"""The sentences of ``doctor``: what each thing it can find means, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pycurate.api import shard_exam as exam
from pycurate.api.doctor_report import Finding, Place, Severity
from pycurate.api.shard_exam import SHOWN_PLACES, Hits, ShardFacts
from pycurate.errors import InputError, PoolError, PycurateError
from pycurate.io.names import unknown_name
from pycurate.io.pool import Pool

if TYPE_CHECKING:
    from pycurate.recipes import Recipe

SHOWN_DAMAGED = 20
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")
_UNJUDGED = (
    "they get no score, and a recipe's `unjudged` policy decides on them (drop, by default); compute these embeddings "
    "again to have them judged"
)

ROW_CHECKS: dict[str, tuple[Severity, str, str]] = {
    "embedding_nan": ("warning", "embedding {subject}: {rows} NaN", _UNJUDGED),
    "embedding_infinite": ("warning", "embedding {subject}: {rows} an infinite value", _UNJUDGED),
    "embedding_overflow": ("warning", "embedding {subject}: {rows} values whose squares overflow float32", _UNJUDGED),
    "embedding_zero": ("warning", "embedding {subject}: {rows} a norm of zero", _UNJUDGED),
    exam.UNNORMALISED: (
        "note",
        "embedding {subject}: {rows} a norm other than 1 (norms {norms})",
        "cosine similarity divides by the norm, so nothing needs doing; inner products depend on it",
    ),
    exam.MALFORMED: (
        "error",
        "column {subject}: {rows} no 32 hex digits",
        "write uids of 32 hex digits, or open the pool with uid_source='path' to have them made from the rows' places",
    ),
    exam.MISSING: (
        "note",
        "column {subject}: {rows} no value",
        "a rule over this column cannot judge these rows; the recipe's `unjudged` policy decides on them",
    ),
}
"""Check -> severity, sentence and remedy, for what is counted in rows."""


def ordered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first; otherwise as they came."""
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))


def of_pool(pool: Pool) -> list[Finding]:
    """What is known once a pool is open."""
    found = _damaged(pool.damaged)
    empty = [shard.name for shard in pool.shards if not shard.rows]
    if not pool.rows:
        found.append(
            Finding("error", "pool_empty", 0, "no row of the pool can be read", "mend or copy the files again")
        )
    elif empty:
        places = tuple(Place(name) for name in empty[:SHOWN_PLACES])
        sentence = f"{_count(len(empty), 'shard')} without rows"
        found.append(Finding("note", "shard_empty", len(empty), sentence, "nothing needs doing", places))
    for kind, names in (("embedding", pool.partial_embeddings), ("column", pool.partial_columns)):
        for name in names:
            holders = _holders(pool, kind, name)
            lacking = [s.name for s in pool.shards if s.name not in holders]
            found.append(
                Finding(
                    "warning" if kind == "embedding" else "note",
                    f"{kind}_partial",
                    len(lacking),
                    f"{kind} {name} is missing in {_count(len(lacking), 'shard')} of {len(pool.shards):,}",
                    "no recipe can use it until every shard has it",
                    tuple(Place(shard) for shard in lacking[:SHOWN_PLACES]),
                )
            )
    if pool.shards and pool.uid_source == "path":
        found.append(
            Finding(
                "note",
                "uid_made",
                pool.rows,
                "uids are made from each row's file and place",
                "keep the files' names and order: other names give other uids",
            )
        )
    return found


def _holders(pool: Pool, kind: str, name: str) -> set[str]:
    if kind == "embedding":
        return {shard.name for shard in pool.shards if name in shard.matrices}
    return {s.name for s in pool.shards if s.table is not None and name in s.table.column_bytes}


def of_recipe(recipe: Recipe, pool: Pool) -> list[Finding]:
    """Everything that the recipe needs and the pool or this machine lacks."""
    found = []
    for step in recipe.steps if pool.shards else ():
        needs = step.score_needs()
        for column in dict.fromkeys((*needs.columns, *step.decide_needs().columns)):
            try:
                pool.stored_name(column)
            except InputError as error:
                found.append(_lacking("column_missing", f"step {step.name!r}: {error}"))
        for name in dict.fromkeys((*needs.embeddings, *step.fit_needs().embeddings)):
            if name not in pool.embeddings:
                lacking = unknown_name("embedding", name, pool.embeddings)
                found.append(_lacking("embedding_missing", f"step {step.name!r}: {lacking}"))
    if found or not pool.shards:
        return found
    try:
        recipe.check(pool)
    except PycurateError as error:
        found.append(
            Finding("error", "recipe_needs", 1, str(error), "a run of this recipe would be refused until this is there")
        )
    return found


def _lacking(check: str, sentence: str) -> Finding:
    return Finding("error", check, 1, sentence, "name what the pool has in the recipe, or add it to every shard")


def of_shards(facts: Sequence[ShardFacts]) -> list[Finding]:
    """What the read found, over all shards in the pool's order."""
    found = _damaged([f.problem for f in facts if f.problem is not None], check="shard_unreadable")
    totals: dict[tuple[str, str], tuple[int, tuple[Place, ...]]] = {}
    for shard in facts:
        for key, hits in shard.hits.items():
            count, places = totals.get(key, (0, ()))
            totals[key] = (count + hits.count, (places + _places(shard.shard, hits))[:SHOWN_PLACES])
    for check, (severity, sentence, remedy) in ROW_CHECKS.items():
        for subject in sorted(name for slug, name in totals if slug == check):
            count, places = totals[check, subject]
            rows = f"{_count(count, 'row')} {'has' if count == 1 else 'have'}"
            norms = norm_range(facts, subject) if check == exam.UNNORMALISED else ""
            text = sentence.format(subject=subject, rows=rows, norms=norms)
            found.append(Finding(severity, check, count, text, remedy, places))
    return found + _tars(facts)


def norm_range(facts: Sequence[ShardFacts], embedding: str) -> str:
    """``9.81 to 13.1``, over the sound rows of all shards."""
    norms = [f.norms[embedding] for f in facts if embedding in f.norms]
    return f"{min(n.minimum for n in norms):.3g} to {max(n.maximum for n in norms):.3g}"


def _tars(facts: Sequence[ShardFacts]) -> list[Finding]:
    checked = [(f.shard, f.tar) for f in facts if f.tar is not None]
    absent = sum(tar.missing for _, tar in checked)
    strangers = sum(tar.unexpected for _, tar in checked)
    found = []
    if absent:
        keys = ", ".join([key for _, tar in checked for key in tar.first_missing][:SHOWN_PLACES])
        found.append(
            Finding(
                "warning",
                "image_missing",
                absent,
                f"{_count(absent, 'row')} of status success without an image in the tar, such as key {keys}",
                "these rows cannot be resharded: run img2dataset again for these shards",
                tuple(Place(shard) for shard, tar in checked if tar.missing)[:SHOWN_PLACES],
            )
        )
    if strangers:
        keys = ", ".join([key for _, tar in checked for key in tar.first_unexpected][:SHOWN_PLACES])
        found.append(
            Finding(
                "warning",
                "image_unexpected",
                strangers,
                f"{_count(strangers, 'image')} in tars without a row of status success, such as key {keys}",
                "no rule sees them: run img2dataset again for these shards if they should be rows",
                tuple(Place(shard) for shard, tar in checked if tar.unexpected)[:SHOWN_PLACES],
            )
        )
    return found


def _places(shard: str, hits: Hits) -> tuple[Place, ...]:
    return tuple(Place(shard, row) for row in hits.first)


def _damaged(problems: Sequence[PoolError], check: str = "shard_damaged") -> list[Finding]:
    """One finding for each damaged shard, the first 20 by name; one more for all others."""
    found = []
    for problem in problems[:SHOWN_DAMAGED]:
        place = () if problem.shard is None else (Place(problem.shard, problem.row),)
        remedy = "the rest of the pool was looked at without it; a run refuses the pool until it is mended or removed"
        found.append(Finding("error", check, 1, problem.message, remedy, place))
    others = problems[SHOWN_DAMAGED:]
    if others:
        places = tuple(Place(p.shard, p.row) for p in others[:SHOWN_PLACES] if p.shard is not None)
        sentence = f"{_count(len(others), 'more shard')} cannot be used"
        found.append(Finding("error", check, len(others), sentence, "mend those above, then look again", places))
    return found


def uniqueness_skipped(pool: Pool, wanted: bool) -> Finding | None:
    """Why uids are not compared: not wanted, or they cannot be equal. None where they are."""
    if pool.uid_source == "path" and pool.layout != "img2dataset":
        return Finding(
            "note",
            "uid_unique",
            pool.rows,
            "uids were not compared: made from places, they differ",
            "nothing needs doing",
        )
    if not wanted:
        return Finding(
            "note",
            "uniqueness_skipped",
            pool.rows,
            "uids were not compared, as asked",
            "a run finds repeated uids only when it writes the subset",
        )
    return None


def no_room(folder: Path, needed_bytes: int, free_bytes: int) -> Finding | None:
    """Why uids are not compared: the temporary disk is too small. None where it is not."""
    if needed_bytes <= free_bytes:
        return None
    return Finding(
        "warning",
        "uniqueness_skipped",
        1,
        f"uids were not compared: that takes {needed_bytes:,} bytes in {folder}, which has {free_bytes:,} free",
        "give a folder on a larger disk as scratch",
    )


def duplicate_uids(repeated: int, copies: int, first: str, places: tuple[Place, ...], allowed: bool) -> Finding:
    """Uids that more than one row has; ``count`` is the rows that have one."""
    verb = "is" if repeated == 1 else "are"
    return Finding(
        "note" if allowed else "error",
        "uid_duplicate",
        copies,
        f"{_count(repeated, 'uid')} {verb} on more than one row, {copies:,} rows in all; the first is {first}",
        "a subset file cannot tell them apart: remove the copies, or allow duplicate uids (--allow-duplicate-uids)",
        places,
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
