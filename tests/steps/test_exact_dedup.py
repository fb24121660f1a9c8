from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pycurate import Recipe, open_pool, plan, run
from pycurate.errors import InputError, RecipeError
from pycurate.ops.text.row_keys import normalise_caption
from pycurate.steps import ExactDedup, Threshold


def plainly(values: list[Any], uids: list[int], priority: list[float] | None = None) -> list[int | None]:
    """The definition: the uid that a row repeats. ``priority``: lower survives, NaN last."""
    keys = np.zeros(len(values)) if priority is None else np.array(priority)
    order = sorted(range(len(values)), key=lambda row: (bool(np.isnan(keys[row])), keys[row], uids[row]))
    best: dict[Any, int] = {}
    for row in order:
        best.setdefault(values[row], row)
    found = [best[value] for value in values]
    return [None if keeper == row or values[row] is None else uids[keeper] for row, keeper in enumerate(found)]


@pytest.mark.parametrize("memory_bytes", [64 << 20, 2_000])
@pytest.mark.parametrize("keep", ["lowest_uid", {"highest": "s"}, {"lowest": "s"}])
def test_each_value_keeps_one_row_and_the_others_name_it(curate: Any, block: Any, keep: Any, memory_bytes: int) -> None:
    random = np.random.default_rng(5)
    rows = 600
    values: list[str | None] = [f"v{i}" for i in random.zipf(1.5, rows) % 100]
    values[3] = values[300] = None
    scores = random.integers(0, 6, rows).astype(float)
    scores[::9] = np.nan
    uids = random.permutation(rows).tolist()
    sign = {"lowest_uid": 0.0, "highest": -1.0, "lowest": 1.0}[keep if isinstance(keep, str) else next(iter(keep))]
    priority = None if sign == 0 else (sign * scores).tolist()
    shards = [
        block(shard, uids=uids[part], v=values[part], s=scores[part])
        for shard, part in (("a", slice(0, 250)), ("b", slice(250, 251)), ("c", slice(251, 600)))
    ]
    made = curate([ExactDedup(key="v", keep=keep)], *shards, block_rows=70, memory_bytes=memory_bytes)
    found = np.concatenate([made.partner[shard] for shard in "abc"]).tolist()
    assert found == plainly(values, uids, priority)
    reasons = np.concatenate([made.reason[shard] for shard in "abc"])
    assert (reasons == "exact_dedup.unjudged").tolist() == [value is None for value in values]
    value = np.concatenate([made.value[shard] for shard in "abc"])
    assert (value == 1).tolist() == [partner is not None for partner in found]
    repeated = {value for value in values if value is not None and values.count(value) > 1}
    assert made.artefacts[0]["groups"] == len(repeated)
    assert made.artefacts[0]["without_value"] == (0 if priority is None else int(np.isnan(scores).sum()))


def test_rows_dropped_before_are_no_partners(curate: Any, block: Any) -> None:
    rows = block(uids=[1, 2, 3, 4], v=["x", "x", "x", "y"], s=[0.0, 1.0, 1.0, 1.0])
    made = curate([Threshold(score="s", minimum=0.5), ExactDedup(key="v")], rows)
    assert made.partner["a"].tolist() == [None, None, 2, None]
    made = curate([Threshold(score="s", minimum=0.5), ExactDedup(key="v", of="pool")], rows)
    assert made.partner["a"].tolist() == [None, 1, 1, None]


def test_captions_and_urls_are_normalised_unless_told_otherwise(curate: Any, block: Any) -> None:
    rows = block(caption=["A dog", "a  dog", "", " ", None], url=["http://A/", "http://a", "http://a#x", None, ""])
    made = curate([ExactDedup(key="caption", unjudged="keep")], rows)
    assert made.keep["a"].tolist() == [True, False, True, True, True]
    assert curate([ExactDedup(key="caption", normalise=False, unjudged="keep")], rows).keep["a"].all()
    made = curate([ExactDedup(key="url")], rows)
    assert made.keep["a"].tolist() == [True, False, False, False, False]
    assert made.reason["a"].tolist() == [None, "exact_dedup", "exact_dedup", *2 * ["exact_dedup.unjudged"]]
    assert curate([ExactDedup(key="url", normalise=False)], rows).keep["a"].tolist() == [True, True, True, False, False]


def test_bits_of_an_embedding_are_a_key(curate: Any, block: Any) -> None:
    x = np.array([[1, 2], [1, 2], [0, 0], [2, 1], [np.nan, 1]], np.float16)
    made = curate([ExactDedup(key="embedding", embedding="e")], block(e=x))
    assert made.partner["a"].tolist() == [None, 0, None, None, None]
    assert made.reason["a"].tolist()[2::2] == ["exact_dedup.unjudged"] * 2


def test_several_steps_look_at_what_the_ones_before_left(curate: Any, block: Any) -> None:
    rows = block(uids=[1, 2, 3, 4], url=["u", "u", "v", "w"], caption=["a", "b", "b", "c"])
    made = curate([ExactDedup(key="url"), ExactDedup(key="caption")], rows)
    assert made.reason["a"].tolist() == [None, "exact_dedup", None, None]
    made = curate([ExactDedup(key="url"), ExactDedup(key="caption", of="pool")], rows)
    assert made.reason["a"].tolist() == [None, "exact_dedup", "exact_dedup_2", None]
    assert made.partner["a"].tolist() == [None, 1, 2, None]


def test_rules_say_what_is_equal_and_who_is_kept() -> None:
    def said(**values: Any) -> str:
        return ExactDedup(name="x", **values).rules({"without_value": 0})[0].description

    assert said(key="caption") == "caption equal to that of the row kept, normalised; kept is the lowest uid"
    assert said(key="image") == "image equal to that of the row kept; kept is the lowest uid"
    assert said(key="embedding", embedding="e", keep={"lowest": "s"}).startswith("embedding e equal to that of the row")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exact_dedup: key is missing"),
        ({"key": "embedding"}, "exact_dedup: key: embedding goes with the name of one"),
        ({"key": "url", "embedding": "e"}, "got key 'url' and embedding 'e'"),
        ({"key": "image", "normalise": True}, "only text can be normalised, and image is compared bit by bit"),
        ({"key": "url", "keep": "first"}, r"keep: expected lowest_uid, or one of \{highest: <column>\}"),
        ({"key": "url", "of": "all"}, "of: expected 'pool' or 'survivors', got 'all'"),
        ({"key": "url", "normalize": True}, "unknown key 'normalize'; did you mean 'normalise'"),
    ],
)
def test_errors_say_what_was_expected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ExactDedup(**values)


def captions_with_repeats(rows: int) -> list[str]:
    generator = np.random.default_rng(8)
    return [f"{'A' if i % 2 else 'a'} photo of {i // 2}" for i in generator.integers(0, rows, rows)]


def ledger_of(out: Path) -> dict[str, dict[str, Any]]:
    files = sorted((out / "ledger").rglob("*.parquet"))
    return {row["uid"]: row for path in files for row in pq.read_table(path).to_pylist()}


def outputs(out: Path) -> dict[str, str]:
    names = ["subset.npy", *(p.relative_to(out).as_posix() for p in sorted((out / "ledger").rglob("*.parquet")))]
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


def test_the_ledger_names_partner_and_similarity(tmp_path: Path, pool_factory: Any) -> None:
    texts = captions_with_repeats(300)
    pool = pool_factory.datacomp(tmp_path / "pool", shards=3, rows=100, text=texts)
    keep = {"highest": "clip_l14_similarity_score"}
    recipe = Recipe(name="r", steps=[{"exact_dedup": {"key": "caption", "keep": keep}}])
    made = run(recipe, pool, tmp_path / "out")
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    ledger = ledger_of(tmp_path / "out")
    rows = [row for path in sorted(pool.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (-row["clip_l14_similarity_score"], row["uid"])):
        best.setdefault(normalise_caption(row["text"]), row)
    for row in rows:
        keeper, said = best[normalise_caption(row["text"])]["uid"], ledger[row["uid"]]
        if keeper == row["uid"]:
            assert (said["keep"], said["rule"], said["value"], said["partner_uid"]) == (True, None, None, None)
        else:
            assert (said["keep"], said["rule"], said["value"]) == (False, "exact_dedup", 1.0)
            assert said["partner_uid"] == keeper
    assert made.manifest.counts.kept == len(best) < 300


def test_the_bytes_do_not_depend_on_how_it_is_run(tmp_path: Path, pool_factory: Any) -> None:
    texts = captions_with_repeats(300)
    pool = pool_factory.datacomp(tmp_path / "pool", shards=3, rows=100, text=texts)
    recipe = Recipe(name="r", steps=[{"exact_dedup": "caption"}, {"exact_dedup": "url"}])
    one = run(recipe, pool, tmp_path / "one", workers=1, processes=False)
    assert 0 < one.manifest.counts.kept < 300
    run(recipe, pool, tmp_path / "two", workers=2, processes=True)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")


def test_renamed_shards_keep_the_same_rows(tmp_path: Path, pool_factory: Any) -> None:
    texts = captions_with_repeats(300)
    pool = pool_factory.datacomp(tmp_path / "pool", shards=3, rows=100, text=texts)
    recipe = Recipe(name="r", steps=[{"exact_dedup": "caption"}])
    first = run(recipe, pool, tmp_path / "one").subset.read_bytes()
    (tmp_path / "other").mkdir()
    for number, path in enumerate(sorted(pool.glob("*.parquet"))):
        stem = hashlib.md5(str(number * 7).encode()).hexdigest()
        for suffix in (".parquet", ".npz"):
            path.with_suffix(suffix).rename(tmp_path / "other" / f"{stem}{suffix}")
    assert run(recipe, tmp_path / "other", tmp_path / "two").subset.read_bytes() == first
    partners = [{uid: row["partner_uid"] for uid, row in ledger_of(tmp_path / out).items()} for out in ("one", "two")]
    assert partners[0] == partners[1]
    groups = [(tmp_path / out / "groups.parquet").read_bytes() for out in ("one", "two")]
    assert groups[0] == groups[1]


def test_a_killed_fit_is_made_again(tmp_path: Path, pool_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=100, text=captions_with_repeats(200))
    recipe = Recipe(name="r", steps=[{"exact_dedup": "caption"}])
    run(recipe, pool, tmp_path / "whole")

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pycurate.steps.exact_dedup._name_keepers", killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, pool, tmp_path / "out")
    assert not (tmp_path / "out" / "subset.npy").exists()
    made = run(recipe, pool, tmp_path / "out")
    assert next(stage for stage in made.manifest.stages if stage.name == "scan").reused == 2
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


@pytest.mark.parametrize("key", ["caption", "url", "image"])
def test_an_all_identical_pool_keeps_one_row(tmp_path: Path, pool_factory: Any, key: str) -> None:
    same = {"text": ["one"] * 200, "url": ["http://a/b"] * 200, "sha256": ["0" * 64] * 200}
    pool = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=100, **same)
    made = run(Recipe(name="r", steps=[{"exact_dedup": key}]), pool, tmp_path / "out")
    ledger = ledger_of(tmp_path / "out")
    assert [uid for uid, row in ledger.items() if row["keep"]] == [min(ledger)]
    assert {row["partner_uid"] for row in ledger.values()} == {None, min(ledger)}
    assert made.manifest.counts.kept == 1


def test_empty_captions_are_unjudged_and_counted(tmp_path: Path, pool_factory: Any) -> None:
    texts: list[str | None] = [*captions_with_repeats(90), *["", " ", None, "\t\u00a0", ""] * 2]
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=100, text=texts)
    for policy, dropped in (("drop", 10), ("keep", 0)):
        recipe = Recipe(name="r", steps=[{"exact_dedup": {"key": "caption", "unjudged": policy}}])
        manifest = run(recipe, pool, tmp_path / policy).manifest
        (record,) = manifest.unjudged
        assert (record.count, record.policy, record.reason) == (10, policy, "no caption to compare")
        assert manifest.steps[0].rules[1].dropped == dropped
    with pytest.raises(InputError, match="row 90: step 'exact_dedup' cannot judge this row, the first of 10"):
        run(Recipe(name="r", steps=[{"exact_dedup": {"key": "caption", "unjudged": "error"}}]), pool, tmp_path / "e")


def test_a_uid_that_is_there_twice_keeps_one_of_its_rows(tmp_path: Path, pool_factory: Any) -> None:
    uids = [f"{i // 2:032x}" for i in range(40)]  # among them 0
    pool = pool_factory.datacomp(tmp_path / "pool", shards=2, rows=20, uid=uids, text=["same"] * 40)
    made = run(Recipe(name="r", steps=[{"exact_dedup": "caption"}]), pool, tmp_path / "out")
    assert made.manifest.counts.kept == 1
    files = sorted((tmp_path / "out" / "ledger").rglob("*.parquet"))
    partners = pa.concat_tables([pq.read_table(path) for path in files])["partner_uid"].to_pylist()
    assert sorted(partners, key=str) == ["0" * 32] * 39 + [None]


def test_images_are_compared_by_the_bytes_in_the_tars(tmp_path: Path, pool_factory: Any) -> None:
    folder = pool_factory.img2dataset(
        tmp_path / "pool", shards=2, rows=140
    )  # jpeg(i) repeats from 256 on, in 256 colours
    pool = open_pool(folder)
    assert pool.columns["sha256"] == "string"
    recipe = Recipe(name="r", steps=[{"exact_dedup": {"key": "image", "unjudged": "keep"}}])
    made = run(recipe, pool, tmp_path / "out")
    digests: dict[str, int] = {}
    for shard in pool.shards:
        for image in shard.images(range(shard.rows)).values():
            digest = hashlib.sha256(image).hexdigest()
            digests[digest] = digests.get(digest, 0) + 1
    repeats = sum(digests.values()) - len(digests)
    assert made.manifest.counts.dropped == repeats
    assert made.manifest.unjudged[0].count == 280 - sum(digests.values())
    tars = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert plan(recipe, pool, sample_seconds=0).read.total_bytes > tars


def test_a_hundred_thousand_identical_rows_in_bounded_memory(tmp_path: Path, pool_factory: Any) -> None:
    rows = 100_000
    embeddings = {"b32_img": np.ones((rows, 8), np.float16)}
    constant: dict[str, Any] = dict.fromkeys(("url", "original_width", "original_height", "sha256"))
    pool = pool_factory.datacomp(
        tmp_path / "pool", shards=2, rows=rows // 2, embeddings=embeddings, text=["same"] * rows, **constant
    )
    recipe = Recipe(name="r", steps=[{"exact_dedup": "caption"}])
    made = run(recipe, pool, tmp_path / "out", memory_bytes=400 << 20)
    assert made.manifest.counts.kept == 1
    recipe = Recipe(name="r", steps=[{"exact_dedup": {"key": "embedding", "embedding": "b32_img"}}])
    assert run(recipe, pool, tmp_path / "bits").manifest.counts.kept == 1


def test_the_repeats_of_real_captions_are_dropped(tmp_path: Path, shared_data: Path) -> None:
    captions = pq.read_table(shared_data / "ucm_captions" / "captions.parquet", columns=["caption"])
    (tmp_path / "pool").mkdir()
    for start in range(0, len(captions), 4000):
        pq.write_table(captions.slice(start, 4000), tmp_path / "pool" / f"part_{start:05d}.parquet")
    recipe = Recipe(name="r", steps=[{"exact_dedup": {"key": "caption", "normalise": False}}])
    made = run(recipe, tmp_path / "pool", tmp_path / "out")
    assert (made.manifest.counts.rows, made.manifest.counts.dropped) == (10_500, 8_468)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"key": "original_width", "normalise": True}, "column 'original_width' is int64, and only text can be normal"),
        ({"key": "tags"}, "column 'tags' is list<element: string>; expected one text, number or bytes a row"),
        ({"key": "phash"}, "the pool has no column 'phash'"),
        ({"key": "embedding", "embedding": "b33_img"}, "no embedding 'b33_img'; did you mean 'b32_img'"),
        ({"key": "url", "keep": {"highest": "clip_l14"}}, "the pool has no column 'clip_l14'"),
    ],
)
def test_a_pool_that_does_not_suit_is_refused_before_anything_runs(
    tmp_path: Path, pool_factory: Any, step: dict[str, Any], message: str
) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20, tags=[["a"]] * 20)
    with pytest.raises(RecipeError, match=message):
        run(Recipe(name="r", steps=[{"exact_dedup": step}]), pool, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_and_columns_without_any_value_can_be_keys(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20, text=[None] * 20, n=[i % 6 for i in range(20)])
    made = run(Recipe(name="r", steps=[{"exact_dedup": "n"}]), pool, tmp_path / "out")
    assert made.manifest.counts.kept == 6
    recipe = Recipe(name="r", steps=[{"exact_dedup": {"key": "caption", "unjudged": "keep"}}])
    assert run(recipe, pool, tmp_path / "out").manifest.counts.kept == 20
