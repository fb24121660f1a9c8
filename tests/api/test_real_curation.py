"""Real rows end to end: web alt texts in DataComp layout, aerial photographs in img2dataset tars."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from pycurate import Recipe, Subset, doctor, open_pool, run
from pycurate.api.reshard import reshard
from pycurate.report import read_examples

WEB = """
name: web
steps:
  - clip_score: {image: b32_img, text: b32_txt, as: likeness}
  - caption_rules: {min_words: 3, max_words: 20, min_chars: 6}
  - language: {languages: [en], detector: py3langid}
  - frequency: {key: caption, max_rows: 1}
  - top_fraction: {score: likeness, fraction: 0.5, of: survivors}
"""


def test_web_alt_texts(real_datacomp_pool: Path, tmp_path: Path) -> None:
    found = doctor(real_datacomp_pool)
    assert found.ok
    result = run(Recipe.from_yaml(WEB), real_datacomp_pool, tmp_path / "out", processes=False)
    rows = duckdb.sql(
        f"select l.*, p.text from '{result.out}/ledger/*.parquet' l join '{real_datacomp_pool}/*.parquet' p using (uid)"
    ).df()
    assert len(rows) == 10_000
    words = rows.text.map(lambda text: len(text.split()))
    chars = rows.text.map(len)
    assert ((words < 3) == (rows.rule == "caption_rules.min_words")).all()
    assert (rows[rows.rule == "caption_rules.max_words"].value == words[rows.rule == "caption_rules.max_words"]).all()
    judged = rows[(words >= 3) & (words <= 20) & (chars >= 6)]
    foreign = judged[judged.rule == "language"]
    assert 0 < len(foreign) < len(judged) / 2
    assert "en" not in set(foreign.detail)
    english = judged[judged.rule != "language"]
    shared = rows.text.map(rows.text.value_counts()) > 1  # over the pool, not the survivors
    assert (shared[english.index] == (english.rule == "frequency")).all()
    survivors = english[english.rule != "frequency"]
    assert survivors.keep.sum() == int(len(survivors) * 0.5)
    assert result.manifest.counts.kept == survivors.keep.sum()
    # Canonical similarities, once more in float64: the cut may only differ from them by rounding.
    scores = _likeness(real_datacomp_pool)
    kept, cut = (
        np.array([scores[uid] for uid in part.uid]) for part in (survivors[survivors.keep], survivors[~survivors.keep])
    )
    assert kept.min() >= cut.max() - 1e-6


def _likeness(pool: Path) -> dict[str, float]:
    scores: dict[str, float] = {}
    for path in sorted(pool.glob("*.parquet")):
        arrays = np.load(path.with_suffix(".npz"))
        image, text = arrays["b32_img"].astype(np.float64), arrays["b32_txt"].astype(np.float64)
        cosine = (image * text).sum(1) / np.sqrt((image**2).sum(1) * (text**2).sum(1))
        scores |= dict(zip(pq.read_table(path)["uid"].to_pylist(), cosine.tolist(), strict=True))
    return scores


def test_photographs_curated_and_resharded(real_img2dataset_pool: Path, shared_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "photos.yaml"
    recipe.write_text(
        "name: photos\nsteps:\n"
        "  - image_rules: {min_bytes: 12000}\n"
        "  - caption_rules: {min_words: 6}\n"
        "  - filter: \"caption not like '%airplane%'\"\n"
        "  - frequency: {key: caption, max_rows: 5}\n"
    )
    result = run(recipe, real_img2dataset_pool, tmp_path / "out", processes=False)
    names = {step.name for step in result.manifest.steps for rule in step.rules if rule.dropped}
    assert names == {"image_rules", "caption_rules", "filter", "frequency"}
    shown = [row for group in read_examples(result.out).groups for row in group.rows]
    assert any(row.image for row in shown), "the report has no thumbnails of images that are there"
    table = duckdb.sql(f"select * from '{real_img2dataset_pool}/*.parquet'").df().set_index("uid")
    kept = [f"{int(high):016x}{int(low):016x}" for high, low in Subset.load(result.subset).uids.tolist()]
    captions = table.caption[kept]
    assert (captions.str.split().str.len() >= 6).all()
    assert not captions.str.contains("airplane").any()
    assert (table.caption.value_counts()[captions] <= 5).all()
    reshard(real_img2dataset_pool, result.subset, tmp_path / "tars", samples_per_shard=100)
    written: dict[str, dict[str, bytes]] = {}
    for path in sorted((tmp_path / "tars").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                name, extension = member.name.split(".", 1)
                written.setdefault(name, {})[extension] = tar.extractfile(member).read()  # type: ignore[union-attr]
    assert sorted(written) == sorted(f"{uid}-0" for uid in kept)
    for name, members in written.items():
        row = table.loc[name.removesuffix("-0")]
        photograph = shared_data / "ucm_captions" / "images" / Path(row.url).name
        assert members["jpg"] == photograph.read_bytes()
        assert members["txt"].decode() == row.caption
        assert json.loads(members["json"])["uid"] == name.removesuffix("-0")
        assert len(members["jpg"]) >= 12_000


def test_a_pool_of_no_uids_gives_the_same_ones_wherever_it_lies(real_img2dataset_pool: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in real_img2dataset_pool.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    pools = [open_pool(path, uid_source="path") for path in (real_img2dataset_pool, moved)]
    uids = [b.uids.tolist() for pool in pools for s in pool.shards for b in s.blocks()]  # type: ignore[union-attr]
    assert uids[: len(uids) // 2] == uids[len(uids) // 2 :]
