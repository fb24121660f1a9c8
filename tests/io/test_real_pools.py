"""Pools built from the real data beside the repository, checked member by member."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pycurate.io import EmbeddingInfo, open_pool
from pycurate.io.images import TarCheck


def test_web_captions_in_datacomp_layout(real_datacomp_pool: Path, shared_data: Path) -> None:
    source = shared_data / "laion_sample_10k"
    captions = pq.read_table(source / "captions.parquet")["caption"].to_pylist()
    text = np.load(source / "minilm_emb_fp16.npy")
    row_of = {hashlib.md5(f"laion-{i}".encode()).hexdigest(): i for i in range(len(captions))}
    pool = open_pool(real_datacomp_pool)
    assert (pool.layout, pool.rows, len(pool.shards), pool.uid_source) == ("datacomp", 10_000, 3, "column")
    assert pool.embeddings["b32_txt"] == EmbeddingInfo(384, "float16")
    seen = []
    for shard in pool.shards:
        for block in shard.blocks(["caption"], ["b32_txt", "b32_img"], block_rows=777):
            rows = [row_of[f"{a:016x}{b:016x}"] for a, b in block.uids.tolist()]
            assert block.columns["caption"].to_pylist() == [captions[row] for row in rows]
            np.testing.assert_array_equal(block.embeddings["b32_txt"], text[rows])
            following = (np.array(rows) + 1) % len(text)
            np.testing.assert_array_equal(block.embeddings["b32_img"], text[rows] + text[following])
            seen += rows
    assert sorted(seen) == list(range(10_000))


def test_aerial_photographs_as_img2dataset_writes_them(real_img2dataset_pool: Path, shared_data: Path) -> None:
    images = shared_data / "ucm_captions" / "images"
    pool = open_pool(real_img2dataset_pool)
    assert (pool.layout, pool.rows, pool.uid_source) == ("img2dataset", 2100, "column")
    assert [shard.name for shard in pool.shards] == ["00000", "00001", "00002", "00003", "00004"]
    missing = 0
    for shard in pool.shards:
        assert shard.check_tar() == TarCheck(0, (), 0, ())
        with tarfile.open(real_img2dataset_pool / f"{shard.name}.tar") as tar:
            captions = {i.name[:-4]: tar.extractfile(i).read().decode() for i in tar if i.name.endswith(".txt")}
        columns = ["url", "caption", "key", "status", "image_bytes"]
        for block in shard.blocks(columns, block_rows=64):
            rows = zip(*(block.columns[name].to_pylist() for name in columns), block.uids.tolist(), strict=True)
            for url, caption, key, status, image_bytes, uid in rows:
                name = url.rsplit("/", 1)[1]
                assert f"{uid[0]:016x}{uid[1]:016x}" == hashlib.md5(name.encode()).hexdigest()
                if status == "success":
                    assert image_bytes == (images / name).stat().st_size
                    assert captions.pop(key) == caption
                else:
                    assert image_bytes is None
                    missing += 1
        assert captions == {}
    assert missing == 42
    wanted = [0, 17, 48, 49]
    found = pool.shards[2].images(wanted)
    (block,) = pool.shards[2].blocks(["url"])
    assert found == {
        row: (images / block.columns["url"][row].as_py().rsplit("/", 1)[1]).read_bytes() for row in wanted[:3]
    }
