from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate import Recipe, doctor, plan, run
from pycurate.errors import InputError, RecipeError
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps import ClipScore, Threshold
from pycurate.steps.dedup_base import DedupStep


class SameSign(DedupStep):
    """Rows whose first dimension has the same sign duplicate the first of them; zero cannot be judged."""

    kind: ClassVar[str] = "same_sign"
    stays_in_process: ClassVar[bool] = True
    embedding: str = "b32_img"

    @property
    def duplicates(self) -> str:
        return "same sign"

    def fit_needs(self) -> Needs:
        return Needs(embeddings=(self.embedding,))

    def fit(self, view: FitView) -> Artefact:
        ranks, partners = self.ranks(view), self.new_partners(view)
        first = np.zeros(len(ranks), np.float32)
        alive = np.zeros(len(ranks), np.bool_)
        uids = np.empty(len(ranks), partners.partner.dtype)
        for shard in view.shards:
            start = partners.starts[shard]
            alive[start : start + view.rows(shard)] = self.competing(view, shard)
            for block in view.embedding_blocks(shard, self.embedding):
                part = slice(start + block.start, start + block.start + block.rows)
                first[part], uids[part] = block.embeddings[self.embedding][:, 0], block.uids
        duplicate_of = np.full(len(ranks), -1)
        for sign in (-1, 1):
            rows = np.flatnonzero(alive & (np.sign(first) == sign))
            keeper = rows[np.argmin(ranks[rows])] if len(rows) else -1
            duplicate_of[rows] = keeper
            duplicate_of[rows[rows == keeper]] = -1
        partners.set_rows(view, duplicate_of, np.where(duplicate_of < 0, np.nan, 0.5).astype(np.float32))
        assert (uids[duplicate_of[duplicate_of >= 0]] == partners.partner[duplicate_of >= 0]).all()
        return self.artefact(view, partners, unjudged=(first == 0).astype(np.uint8))


def rows_of(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_the_lowest_uid_survives_and_others_name_it(curate: Any, block: Any) -> None:
    a = block("a", uids=[9, 4, 7], b32_img=rows_of(1, 2, -1))
    b = block("b", uids=[3, 8, 0], b32_img=rows_of(1, -5, 0))
    made = curate([SameSign()], a, b)
    assert made.keep["a"].tolist() == [False, False, True]
    assert made.partner["a"].tolist() == [3, 3, None]
    assert made.reason["b"].tolist() == [None, "same_sign", "same_sign.unjudged"]
    assert made.partner["b"].tolist() == [None, 7, None]
    assert made.value["a"][:2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("keep", "survivor"),
    [("lowest_uid", 2), ({"highest": "s"}, 4), ({"lowest": "s"}, 5)],
)
def test_keep_names_who_survives(curate: Any, block: Any, keep: Any, survivor: int) -> None:
    scores = [np.nan, 0.5, 0.5, 0.1, np.nan]
    made = curate([SameSign(keep=keep)], block(uids=[2, 6, 4, 5, 3], s=scores, b32_img=rows_of(1, 1, 1, 1, 1)))
    kept = np.flatnonzero(made.keep["a"])
    assert np.array([2, 6, 4, 5, 3])[kept].tolist() == [survivor]
    assert made.artefacts[0]["without_value"] == (0 if keep == "lowest_uid" else 2)


def test_rows_dropped_before_remove_nothing_unless_the_pool_is_asked(curate: Any, block: Any) -> None:
    rows = block(uids=[1, 2, 3], s=[0.0, 1.0, 1.0], b32_img=rows_of(1, 1, 1))
    for of, keep in (("survivors", [False, True, False]), ("pool", [False, False, False])):
        made = curate([Threshold(score="s", minimum=0.5), SameSign(of=of)], rows)
        assert made.keep["a"].tolist() == keep
    assert made.partner["a"].tolist() == [None, 1, 1]


def test_rules_say_who_is_kept(curate: Any, block: Any) -> None:
    made = curate([SameSign(keep={"highest": "s"})], block(s=[np.nan, 1.0], b32_img=rows_of(1, 1)))
    rule, unjudged = SameSign(keep={"highest": "s"}, name="x").rules(made.artefacts[0])
    assert rule.description == "same sign; kept is the highest s (1 rows without it come last)"
    assert (rule.name, rule.names_partner, unjudged.name, unjudged.names_partner) == ("x", True, "x.unjudged", False)


@pytest.mark.parametrize("keep", ["best", {"best": "s"}, {}, {"highest": "a", "lowest": "b"}, {"highest": 3}, 7, None])
def test_a_wrong_keep_is_answered_with_what_is_known(keep: Any) -> None:
    with pytest.raises(RecipeError, match=r"same_sign: keep: expected lowest_uid, or one of {highest: <column>}"):
        SameSign(keep=keep)


def test_a_keep_made_by_an_earlier_step_is_one_of_its_scores() -> None:
    scorer = ClipScore(image="b32_img", text="b32_txt", **{"as": "s"})
    recipe = Recipe(name="r", steps=[scorer, SameSign(keep={"highest": "s"})])
    assert recipe.steps[1].decide_needs().scores == ("s",)
    with pytest.raises(RecipeError, match="makes only later"):
        Recipe(name="r", steps=[SameSign(keep={"highest": "s"}), scorer])


def test_a_run_reads_embeddings_in_the_fit_and_the_ledger_names_partners(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=150)
    recipe = Recipe(name="r", steps=[SameSign(keep={"highest": "clip_l14_similarity_score"})])
    made = run(recipe, pool, tmp_path / "out", workers=2)
    assert made.manifest.counts.kept == 2
    ledger = [
        row for path in sorted((tmp_path / "out" / "ledger").iterdir()) for row in pq.read_table(path).to_pylist()
    ]
    kept = {row["uid"] for row in ledger if row["keep"]}
    for row in ledger:
        assert row["partner_uid"] is None if row["keep"] else row["partner_uid"] in kept
        assert row["value"] == (None if row["keep"] else 0.5)
    planned = plan(recipe, pool, sample_seconds=0)
    assert planned.read.fit_embeddings == ("b32_img",)
    assert planned.read.fit_bytes == 300 * 16 * 2
    assert planned.read.embeddings == ()
    assert "by fits: b32_img" in str(planned._facts())
    assert planned.steps[0].reads == ("b32_img",)


def test_a_missing_embedding_is_refused_before_anything_runs(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20)
    recipe = Recipe(name="r", steps=[SameSign(embedding="b32_imgs")])
    with pytest.raises(RecipeError, match=r"no embedding 'b32_imgs'; did you mean 'b32_img'"):
        run(recipe, pool, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "b32_imgs" in str(doctor(pool, recipe=recipe).findings)


def test_an_unjudged_row_can_stop_the_run(tmp_path: Path, pool_factory: Any) -> None:
    embeddings = {"b32_img": np.zeros((20, 4), np.float16)}
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20, embeddings=embeddings)
    with pytest.raises(InputError, match="'same_sign' cannot judge this row"):
        run(Recipe(name="r", steps=[SameSign(unjudged="error")]), pool, tmp_path / "out")
    kept = run(Recipe(name="r", steps=[SameSign(unjudged="keep")]), pool, tmp_path / "out")
    assert kept.manifest.counts.kept == 20
