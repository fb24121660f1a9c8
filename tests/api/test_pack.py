from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pycurate import build_pack
from pycurate.errors import InputError, PoolError, WorkspaceError
from pycurate.io.pack import open_pack
from pycurate.kernels.uid import format_hex


def test_a_pack_holds_what_the_evaluation_set_has(pool_factory: Any, tmp_path: Path) -> None:
    pool = pool_factory.datacomp(tmp_path / "eval", shards=2, rows=30)
    made = build_pack(pool, tmp_path / "pack", models={"l14_img": "ViT-L-14 openai"}).pack
    tables = [pq.read_table(path) for path in sorted(pool.glob("*.parquet"))]
    table = pa.concat_tables(tables)
    assert (made.name, made.rows, made.has_uids, made.has_sha256) == ("eval", 60, True, True)
    assert made.items["caption"].to_pylist() == table["text"].to_pylist()
    assert made.ids == made.items["uid"].to_pylist() == table["uid"].to_pylist()
    assert [text.decode() for text in format_hex(made.uids())] == made.ids
    stored = np.concatenate([np.load(path)["l14_img"] for path in sorted(pool.glob("*.npz"))])
    np.testing.assert_array_equal(made.embedding("l14_img"), stored)
    assert made.embedding("l14_img").dtype == np.float16
    info = made.embeddings["l14_img"]
    assert (info.dimension, info.dtype, info.model, info.unjudged) == (24, "float16", "ViT-L-14 openai", 0)
    assert made.embeddings["b32_txt"].model is None
    hashes, items = made.gram_items(3)
    assert len(hashes) == len(items) > 0
    assert (np.diff(hashes.astype(object)) >= 0).all()
    again = open_pack(tmp_path / "pack")
    assert again.checksum == made.checksum


def test_names_ids_and_unjudged_items(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    x[1], x[2, 0] = 0, np.nan
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set" / "features_0.npy", x)
    pq.write_table(pa.table({"label": ["a", "b", "c", "d", "e"]}), tmp_path / "set" / "features_0.parquet")
    report = build_pack(
        tmp_path / "set", tmp_path / "p", name="five", embeddings={"img": "features"}, id_column="label"
    )
    assert report.pack.ids == ["a", "b", "c", "d", "e"]
    assert report.pack.embeddings["img"].unjudged == 2
    assert not report.pack.has_captions
    printed = report.render()
    assert "embedding   img: 8 of float32, of a model that was not stated, 2 zero or not finite" in printed
    assert "captions    none" in printed
    assert json.loads(json.dumps(report.to_dict()))["rows"] == 5
    unnamed = build_pack(tmp_path / "set", tmp_path / "p", caption="label").pack
    assert unnamed.ids == [f"features_0#{row}" for row in range(5)]
    assert unnamed.has_captions
    assert list(unnamed.embeddings) == ["features"]


def test_images_and_tars_without_a_table(pool_factory: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    for name, data in {"a/1.jpg": b"one", "b.PNG": b"two", "notes.md": b"no"}.items():
        (folder / name).write_bytes(data)
    (folder / "b.txt").write_text("A caption\n")
    made = build_pack(folder, tmp_path / "p").pack
    assert made.ids == ["a/1.jpg", "b.PNG"]
    assert made.items["sha256"].to_pylist() == [hashlib.sha256(data).hexdigest() for data in (b"one", b"two")]
    assert made.items["caption"].to_pylist() == [None, "A caption"]
    pool = pool_factory.img2dataset(tmp_path / "pool", shards=1, rows=10)
    (pool / "00000.parquet").rename(tmp_path / "table.parquet")
    for what in (pool, pool / "00000.tar"):
        made = build_pack(what, tmp_path / "p").pack
        table = pq.read_table(tmp_path / "table.parquet").to_pylist()
        kept = [row for row in table if row["status"] == "success"]
        assert made.ids == [row["key"] for row in kept]
        assert made.items["caption"].to_pylist() == [row["caption"] for row in kept]
        assert made.has_sha256
        assert not made.embeddings


def test_what_cannot_be_packed_is_said(pool_factory: Any, tmp_path: Path) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=5)
    with pytest.raises(InputError, match="embedding: the pool has no embedding 'l14'; did you mean"):
        build_pack(pool, tmp_path / "p", embeddings=["l14"])
    with pytest.raises(InputError, match="models: the pack has no embedding 'clip'; it has b32_img"):
        build_pack(pool, tmp_path / "p", models={"clip": "x"})
    with pytest.raises(InputError, match="column: the pool has no column 'title'"):
        build_pack(pool, tmp_path / "p", caption="title")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match="empty"):
        build_pack(tmp_path / "empty", tmp_path / "p")
    with pytest.raises(PoolError, match="does not exist"):
        build_pack(tmp_path / "nowhere", tmp_path / "p")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="is not empty"):
        build_pack(pool, tmp_path / "full")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="has images and no table"):
        build_pack(tmp_path / "images", tmp_path / "p", caption="text")


def test_a_damaged_pack_is_refused(pool_factory: Any, tmp_path: Path) -> None:
    build_pack(pool_factory.datacomp(tmp_path / "pool", shards=1, rows=5), tmp_path / "p")
    with pytest.raises(InputError, match=r"is no pack: it has no pack\.json; build one with"):
        open_pack(tmp_path / "pool")
    path = tmp_path / "p" / "grams-3.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x00")
    with pytest.raises(InputError, match=r"grams-3\.npy is damaged: expected .* bytes of checksum"):
        open_pack(tmp_path / "p")
    path.unlink()
    with pytest.raises(InputError, match=r"grams-3\.npy cannot be read"):
        open_pack(tmp_path / "p")
    path.write_bytes(whole)
    facts = tmp_path / "p" / "pack.json"
    for text, sentence in {
        "{": r"pack\.json cannot be read",
        "[]": "has format None, this version reads 1",
        '{"format": 9}': "has format 9, this version reads 1",
        '{"format": 1}': r"pack\.json cannot be read \('files'\)",
    }.items():
        facts.write_text(text)
        with pytest.raises(InputError, match=sentence):
            open_pack(tmp_path / "p")
