"""Runs steps on blocks in memory: what the pipeline does, without files, workers or a workspace."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pycurate.pipeline.exchange import sorted_pairs
from pycurate.pipeline.step import Pairs, Step
from pycurate.recipes import Recipe
from pycurate.types import UID_DTYPE, Block


@dataclass
class Outcome:
    """What the steps made of each shard."""

    keep: dict[str, np.ndarray]
    reason: dict[str, np.ndarray]  # object: rule name, or None
    detail: dict[str, np.ndarray]  # object: bytes, or None
    value: dict[str, np.ndarray]
    partner: dict[str, np.ndarray]  # object: f1 of the partner's uid, or None
    artefacts: list[Mapping[str, Any]]
    scores: dict[str, dict[str, np.ndarray]]

    def kept_rows(self) -> list[tuple[str, int]]:
        return [(shard, int(row)) for shard in sorted(self.keep) for row in np.flatnonzero(self.keep[shard])]


@dataclass
class View:
    blocks: Mapping[str, Block]
    scores: Mapping[str, Mapping[str, np.ndarray]]
    alive: Mapping[str, np.ndarray]
    scratch: Path
    pairs: Mapping[str, Sequence[Pairs]] = field(default_factory=dict)
    memory_bytes: int = 64 << 20
    device: str | None = None
    shards: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        self.shards = list(self.blocks)

    def rows(self, shard: str) -> int:
        return self.blocks[shard].rows

    def column(self, shard: str, name: str) -> np.ndarray:
        return self.scores[shard][name]

    def uids(self, shard: str) -> np.ndarray:
        uids = self.blocks[shard].uids
        assert uids is not None
        return uids

    def embedding_blocks(self, shard: str, name: str) -> Iterator[Block]:
        block = self.blocks[shard]
        for start in range(0, block.rows, 2):
            piece = cut_block(block, start, min(start + 2, block.rows))
            yield replace(piece, start=start, columns={}, embeddings={name: piece.embeddings[name]})

    def column_blocks(self, shard: str, name: str) -> Iterator[Block]:
        block = self.blocks[shard]
        for start in range(0, block.rows, 2):
            piece = cut_block(block, start, min(start + 2, block.rows))
            yield replace(piece, start=start, columns={name: piece.columns[name]}, embeddings={})

    def exchanged(self, shard: str) -> Sequence[Pairs]:
        return self.pairs[shard]

    def survivors(self, shard: str) -> np.ndarray:
        return self.alive[shard].copy()

    def map(self, function: Callable[[str], Any]) -> Iterator[Any]:
        return map(function, self.shards)


def make_block(shard: str = "a", rows: int | None = None, **columns: Any) -> Block:
    """A block from plain lists and arrays; 2-D arrays are embeddings, ``uids`` are numbers."""
    uids = columns.pop("uids", None)
    lengths = [len(values) for values in columns.values()]
    rows = (lengths[0] if lengths else len(uids)) if rows is None else rows
    if uids is None:
        uids = np.arange(rows) + 1000 * (ord(shard[0]) - ord("a"))
    made = np.zeros(rows, UID_DTYPE)
    made["f1"] = uids
    flat = {n: v for n, v in columns.items() if not (isinstance(v, np.ndarray) and v.ndim == 2)}
    return Block(
        shard,
        0,
        rows,
        made,
        {n: v if isinstance(v, pa.Array) else pa.array(v) for n, v in flat.items()},
        {n: v for n, v in columns.items() if n not in flat},
    )


def cut_block(block: Block, start: int, stop: int) -> Block:
    return Block(
        block.shard,
        start,
        stop - start,
        None if block.uids is None else block.uids[start:stop],
        {name: values.slice(start, stop - start) for name, values in block.columns.items()},
        {name: values[start:stop] for name, values in block.embeddings.items()},
    )


def score_shard(
    steps: Sequence[Step], block: Block, block_rows: int, device: str | None = None
) -> dict[str, np.ndarray]:
    from pycurate.pipeline.scan import numeric_column

    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, block.rows, block_rows):
        piece = cut_block(block, start, min(start + block_rows, block.rows))
        scores: dict[str, np.ndarray] = {}
        for step in steps:
            for column in step.decide_needs().columns:
                scores[column] = numeric_column(piece, column)
            needs = step.score_needs()
            seen = replace(
                piece,
                uids=piece.uids if needs.uids else None,
                columns={name: piece.columns[name] for name in needs.columns},
                embeddings={name: piece.embeddings[name] for name in needs.embeddings},
                scores={name: scores[name] for name in needs.scores},
            )
            made = step.score_on(seen, device)
            assert set(made) == set(step.produces())
            assert all(values.shape == (piece.rows,) for values in made.values())
            scores |= made
        for name, values in scores.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def exchange_shard(step: Step, block: Block, block_rows: int) -> list[Pairs]:
    starts = range(0, block.rows if step.exchanges else 0, block_rows)
    pieces = [cut_block(block, start, min(start + block_rows, block.rows)) for start in starts]
    return [sorted_pairs(step.exchange(piece), piece.start) for piece in pieces]


@pytest.fixture
def block() -> Callable[..., Block]:
    return make_block


@pytest.fixture
def curate(tmp_path: Path) -> Callable[..., Outcome]:
    """``curate(steps, block, ...)``: score in small blocks, fit, decide."""

    def run(
        steps: Sequence[Any],
        *blocks: Block,
        block_rows: int = 3,
        memory_bytes: int = 64 << 20,
        device: str | None = None,
    ) -> Outcome:
        placed = Recipe(name="test", steps=list(steps)).steps
        by_name = {block.shard: block for block in blocks}
        scores = {name: score_shard(placed, block, block_rows, device) for name, block in by_name.items()}
        rows = {name: block.rows for name, block in by_name.items()}
        keep = {name: np.ones(n, np.bool_) for name, n in rows.items()}
        reason = {name: np.full(n, None, object) for name, n in rows.items()}
        detail = {name: np.full(n, None, object) for name, n in rows.items()}
        value = {name: np.full(n, np.nan) for name, n in rows.items()}
        partner = {name: np.full(n, None, object) for name, n in rows.items()}
        artefacts = []
        for number, step in enumerate(step for step in placed if step.decides):
            scratch = Path(tempfile.mkdtemp(prefix=f"fit{number}-", dir=tmp_path))
            pairs = {name: exchange_shard(step, block, block_rows) for name, block in by_name.items()}
            view = View(by_name, scores, keep, scratch, pairs, memory_bytes, device)
            artefact = step.fit(view) if step.fits else {}
            artefacts.append(artefact)
            rules = step.rules(artefact)
            assert len({rule.name for rule in rules}) == len(rules)
            needs = step.decide_needs()
            for name, block in by_name.items():
                columns = {c: scores[name][c] for c in (*needs.columns, *needs.scores)}
                verdict = step.decide(name, columns, block.uids if needs.uids else None, artefact)
                assert verdict.code.dtype == np.uint8
                assert verdict.value.dtype == np.float64
                assert verdict.code.shape == verdict.value.shape == (block.rows,)
                for row in np.flatnonzero(keep[name] & (verdict.code > 0)):
                    rule = rules[verdict.code[row] - 1]
                    if rule.unjudged and getattr(step, "unjudged", "drop") == "keep":
                        continue
                    keep[name][row] = False
                    reason[name][row] = rule.name
                    value[name][row] = verdict.value[row]
                    detail[name][row] = None if verdict.detail is None else verdict.detail[row]
                    if rules[verdict.code[row] - 1].names_partner:
                        assert verdict.partner is not None
                        partner[name][row] = int(verdict.partner["f1"][row])
        return Outcome(keep, reason, detail, value, partner, artefacts, scores)

    return run
