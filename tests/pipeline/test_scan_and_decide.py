"""The passes of a run on steps made for the test: reuse, order of reasons, policies, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate.engine import LocalEngine
from pycurate.errors import InputError
from pycurate.io.pool import Pool, open_pool
from pycurate.pipeline.decide import Decider
from pycurate.pipeline.scan import Scanner, StoredColumn, column_sets, numeric_column
from pycurate.pipeline.step import Artefact, FitView, Needs, Step
from pycurate.pipeline.workspace import Workspace
from pycurate.types import Block, Rule, ScoreArray, UidArray, Verdict

WIDTH = "original_width"


class Doubled(Step):
    """Twice the width, or ``offset`` more."""

    kind: ClassVar[str] = "doubled"
    offset: float = 0.0
    source: str = WIDTH

    def score_needs(self) -> Needs:
        return Needs(columns=(self.source,)) if self.source == WIDTH else Needs(scores=(self.source,))

    def produces(self) -> tuple[str, ...]:
        return (self.name or "doubled",)

    def score_parameters(self) -> dict[str, Any]:
        return {"offset": self.offset}

    def score(self, block: Block) -> dict[str, ScoreArray]:
        values = numeric_column(block, WIDTH) if self.source == WIDTH else block.scores[self.source]
        return {self.produces()[0]: (2 * values + self.offset).astype(np.float64)}


class AboveMean(Step):
    """Drops rows below the mean of a column times ``factor``; rows of value < 100 cannot be judged."""

    kind: ClassVar[str] = "above_mean"
    decides: ClassVar[bool] = True
    fits: ClassVar[bool] = True
    fits_survivors: ClassVar[bool] = True
    column: str = "doubled"
    factor: float = 1.0
    stored: bool = False
    unjudged: str = "drop"

    def decide_needs(self) -> Needs:
        return Needs(columns=(self.column,)) if self.stored else Needs(scores=(self.column,))

    def fit(self, view: FitView) -> Artefact:
        def part(shard: str) -> tuple[float, int]:
            values = view.column(shard, self.column)[view.survivors(shard)]
            return float(values.sum()), len(values)

        sums = list(view.map(part))
        return {"mean": sum(s for s, _ in sums) / max(1, sum(n for _, n in sums))}

    def rules(self, artefact: Artefact) -> list[Rule]:
        limit = artefact["mean"] * self.factor
        return [
            Rule(self.name, f"{self.column} >= {limit}", self.column, limit),
            Rule(f"{self.name}.unjudged", "below 100", unjudged=True),
        ]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        values = columns[self.column]
        code = np.where(values < 100, 2, (values < artefact["mean"] * self.factor).astype(np.uint8)).astype(np.uint8)
        return Verdict(code, values.astype(np.float64))


class Run:
    def __init__(self, pool: Pool, root: Path, *steps: Step, block_rows: int = 64, workers: int = 2) -> None:
        self.pool, self.workspace, self.steps = pool, Workspace(root), steps
        self.sets = column_sets(steps)
        self.prints = {shard.name: shard.fingerprint() for shard in pool.shards}
        self.scanner = Scanner(pool, self.workspace, tuple(self.sets), block_rows)
        self.engine = LocalEngine(workers, processes=False)

    def scan(self) -> list[str]:
        """Names of the column sets computed, over all shards."""
        tasks = [t for s in self.pool.shards if (t := self.scanner.missing(s, self.prints[s.name]))]
        for task in tasks:
            self.scanner.run(task)
        return sorted({folder.split("-")[0] for task in tasks for folder in task.folders})

    def decider(self) -> Decider:
        rows = {shard.name: shard.rows for shard in self.pool.shards}
        decider = Decider(self.workspace, self.steps, self.sets, self.prints, rows, self.engine.ordered, 1 << 28)
        decider.fit()
        return decider

    def widths(self) -> NDArray[np.float64]:
        blocks = [b for s in self.pool.shards for b in s.blocks([WIDTH], uids=False)]
        return np.concatenate([numeric_column(block, WIDTH) for block in blocks])

    def reasons(self) -> NDArray[np.uint16]:
        decider = self.decider()
        return np.concatenate([decider.decide(shard.name).reason for shard in self.pool.shards])


@pytest.fixture
def pool(tmp_path: Path, pool_factory: Any) -> Pool:
    return open_pool(pool_factory.datacomp(tmp_path / "pool", shards=3, rows=200))


def test_a_scan_computes_what_is_missing_and_no_more(pool: Pool, tmp_path: Path) -> None:
    a, b = Doubled(name="a"), Doubled(name="b", offset=1.0)
    assert Run(pool, tmp_path / "w", a).scan() == ["doubled", "uid"]
    assert Run(pool, tmp_path / "w", a).scan() == []
    assert Run(pool, tmp_path / "w", a, b).scan() == ["doubled"]
    stale = Run(pool, tmp_path / "w", a, b)
    stale.prints[pool.shards[1].name] = "changed"
    assert [t.shard for s in pool.shards if (t := stale.scanner.missing(s, stale.prints[s.name]))] == [
        pool.shards[1].name
    ]


def test_a_bumped_version_recomputes_it_and_what_is_made_of_it(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (Doubled(name="a"), Doubled(name="b", source="a"))
    run = Run(pool, tmp_path / "w", *steps)
    assert run.scan() == ["doubled", "uid"]
    np.testing.assert_array_equal(run.decider().columns(pool.shards[0].name, ["b"])["b"], 4 * run.widths()[:200])
    monkeypatch.setattr(Doubled, "version", 2)
    again = Run(pool, tmp_path / "w", *steps)
    assert again.scan() == ["doubled"]
    assert {s.folder for s in again.sets if s.step.kind == "doubled"}.isdisjoint(s.folder for s in run.sets)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1_000])
def test_columns_do_not_depend_on_the_blocks(pool: Pool, tmp_path: Path, block_rows: int) -> None:
    run = Run(pool, tmp_path / "w", Doubled(name="a"), Doubled(name="b", source="a"), block_rows=block_rows)
    run.scan()
    decider = run.decider()
    found = np.concatenate([decider.columns(shard.name, ["b"])["b"] for shard in pool.shards])
    np.testing.assert_array_equal(found, 4 * run.widths())


def test_the_first_rule_is_the_reason_and_survivors_are_those_of_earlier_steps(pool: Pool, tmp_path: Path) -> None:
    first = AboveMean(name="first", column=WIDTH, stored=True)
    second = AboveMean(name="second", column=WIDTH, stored=True)
    run = Run(pool, tmp_path / "w", first, second)
    run.scan()
    widths = run.widths()
    mean = widths.sum() / len(widths)
    survivors = widths >= mean
    second_mean = widths[survivors].sum() / survivors.sum()
    expected = np.where(widths < 100, 2, np.where(widths < mean, 1, np.where(widths < second_mean, 3, 0)))
    np.testing.assert_array_equal(run.reasons(), expected)
    assert {rule.name for rule in run.decider().rules} == {"first", "first.unjudged", "second", "second.unjudged"}


def test_a_changed_limit_changes_decisions_and_refits_only_what_follows(pool: Pool, tmp_path: Path) -> None:
    def steps(factor: float) -> tuple[Step, ...]:
        return (
            AboveMean(name="first", column=WIDTH, stored=True, factor=factor),
            AboveMean(name="second", column=WIDTH, stored=True),
        )

    run = Run(pool, tmp_path / "w", *steps(1.0))
    run.scan()
    before = run.decider()
    again = Run(pool, tmp_path / "w", *steps(0.5))
    assert again.scan() == []
    reused: dict[str, bool] = {}
    rows = {shard.name: shard.rows for shard in pool.shards}
    after = Decider(again.workspace, again.steps, again.sets, again.prints, rows, again.engine.ordered, 1 << 28)
    after.fit(lambda step, was: reused.update({step.name: was}))
    assert reused == {"first": True, "second": False}
    assert before.key != after.key


def test_policies_for_rows_that_cannot_be_judged(pool: Pool, tmp_path: Path) -> None:
    def run(policy: str) -> Run:
        made = Run(pool, tmp_path / policy, AboveMean(name="rule", column=WIDTH, stored=True, unjudged=policy))
        made.scan()
        return made

    widths = run("drop").widths()
    assert (widths < 100).any()
    np.testing.assert_array_equal(run("drop").reasons() == 2, widths < 100)
    kept = run("keep")
    np.testing.assert_array_equal(kept.reasons() == 0, (widths < 100) | (widths >= widths.sum() / len(widths)))
    assert sum(kept.decider().decide(s.name).unjudged_kept[0] for s in pool.shards) == (widths < 100).sum()
    place = int(np.argmax(widths < 100))
    shard, row = pool.shards[place // 200].name, place % 200
    with pytest.raises(InputError, match=rf"shard {shard}, row {row}: step 'rule' cannot judge this row"):
        run("error").decider().decide(shard)


def test_a_step_that_breaks_the_contract_is_named(pool: Pool, tmp_path: Path) -> None:
    class Short(Doubled):
        def score(self, block: Block) -> dict[str, ScoreArray]:
            return {"doubled": np.zeros(block.rows - 1)}

    class Stray(Doubled):
        def score(self, block: Block) -> dict[str, ScoreArray]:
            return {"other": np.zeros(block.rows)}

    class Moody(Doubled):
        def score(self, block: Block) -> dict[str, ScoreArray]:
            return {"doubled": np.zeros(block.rows, np.float32 if block.start else np.float64)}

    for step, sentence in (
        (Short(), r"column 'doubled': expected shape \(64,\), one value a row, got \(63,\)"),
        (Stray(), r"expected score columns \['doubled'\], got \['other'\]"),
        (Moody(), "expected one dtype for all blocks, got float32 after float64"),
    ):
        with pytest.raises(InputError, match=sentence):
            Run(pool, tmp_path / type(step).__name__, step).scan()


def test_stored_columns_are_numbers_with_nan_for_null(tmp_path: Path, pool_factory: Any) -> None:
    path = pool_factory.datacomp(
        tmp_path / "pool", shards=1, rows=4, clip_l14_similarity_score=np.float32([0.1, np.nan, 0.3, -0.0]),
        original_width=[1, None, 3, 2**40],
    )  # fmt: skip
    shard = open_pool(path).shards[0]
    block = next(iter(shard.blocks([WIDTH, "clip_l14_similarity_score", "text"], uids=False)))
    np.testing.assert_array_equal(numeric_column(block, WIDTH), [1, np.nan, 3, 2**40])
    score = StoredColumn(name="x", column="clip_l14_similarity_score").score(block)["clip_l14_similarity_score"]
    assert score.dtype == np.float32
    np.testing.assert_array_equal(score, np.float32([0.1, np.nan, 0.3, 0.0]))
    with pytest.raises(InputError, match="column 'text': expected numbers, got string; name a numeric column"):
        numeric_column(block, "text")
