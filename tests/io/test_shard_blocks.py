"""Blocks: every value as stored, aligned, in bounded memory, one ahead."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pycurate.errors import PoolError
from pycurate.io import open_pool
from pycurate.io.readahead import read_ahead


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def joined(shard, columns, embeddings, **options):
    """All of a shard: columns as lists, embeddings as arrays, and the checks that hold for any blocks."""
    blocks = list(shard.blocks(columns, embeddings, uids=False, **options))
    assert [block.start for block in blocks] == np.cumsum([0, *(block.rows for block in blocks)])[:-1].tolist()
    assert sum(block.rows for block in blocks) == shard.rows
    for block in blocks:
        assert block.shard == shard.name
        assert block.uids is None
        assert all(len(values) == block.rows for values in block.columns.values())
        assert all(len(values) == block.rows for values in block.embeddings.values())
        assert all(values.flags.c_contiguous for values in block.embeddings.values())
    return (
        {name: flat(block.columns[name].to_pylist() for block in blocks) for name in columns},
        {name: np.concatenate([block.embeddings[name] for block in blocks]) for name in embeddings},
    )


@pytest.mark.parametrize("block_rows", [1, 7, 100, 101, 65536])
@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_datacomp_blocks_are_what_is_stored(pool_factory, tmp_path, compressed, block_rows) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path, rows=101, compressed=compressed))
    for shard in pool.shards:
        table = pq.read_table(tmp_path / f"{shard.name}.parquet")
        columns, embeddings = joined(
            shard, ["text", "clip_b32_similarity_score"], ["l14_txt", "b32_img"], block_rows=block_rows
        )
        assert columns == {name: table[name].to_pylist() for name in columns}
        with np.load(tmp_path / f"{shard.name}.npz") as stored:
            for name, values in embeddings.items():
                np.testing.assert_array_equal(values, stored[name])
                assert values.dtype == np.float16


@pytest.mark.parametrize("layout", ["datacomp", "clip_retrieval", "plain"])
@pytest.mark.parametrize("limit", [1, 9, 64])
def test_a_split_file_gives_the_same_rows(pool_factory, tmp_path, monkeypatch, layout, limit) -> None:
    getattr(pool_factory, layout)(tmp_path, shards=2, rows=65)
    whole = open_pool(tmp_path)
    names = tuple(whole.embeddings)
    expected = [joined(shard, ["caption"], names) for shard in whole.shards]
    monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", limit)
    split = open_pool(tmp_path)
    assert max(shard.rows for shard in split.shards) == limit
    pieces = [joined(shard, ["caption"], names, block_rows=4) for shard in split.shards]
    assert flat(columns["caption"] for columns, _ in pieces) == flat(columns["caption"] for columns, _ in expected)
    for name in names:
        np.testing.assert_array_equal(
            np.concatenate([embeddings[name] for _, embeddings in pieces]),
            np.concatenate([embeddings[name] for _, embeddings in expected]),
        )


def test_deflated_members_are_not_split(pool_factory, tmp_path, monkeypatch) -> None:
    pool_factory.datacomp(tmp_path, shards=1, rows=65, compressed=True)
    monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", 10)
    assert [shard.rows for shard in open_pool(tmp_path).shards] == [65]


@pytest.mark.parametrize("group_rows", [1, 10, 33])
@pytest.mark.parametrize("block_rows", [1, 8, 64])
def test_row_groups_do_not_show(tmp_path, monkeypatch, group_rows, block_rows) -> None:
    table = pa.table({"caption": [f"row {i}" for i in range(100)], "n": range(100)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows)
    monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", 37)
    pieces = [joined(s, ["caption", "n"], [], block_rows=block_rows)[0] for s in open_pool(tmp_path).shards]
    assert flat(piece["n"] for piece in pieces) == list(range(100))
    assert flat(piece["caption"] for piece in pieces) == table["caption"].to_pylist()


def test_blocks_are_cut_to_a_size_in_bytes(tmp_path, monkeypatch) -> None:
    np.save(tmp_path / "x.npy", np.arange(6400, dtype=np.float32).reshape(100, 64))
    monkeypatch.setattr("pycurate.io.shard.BLOCK_BYTES", 30 * 256)
    (shard,) = open_pool(tmp_path).shards
    assert [block.rows for block in shard.blocks(embeddings=["x"], block_rows=50)] == [30, 30, 30, 10]
    assert [block.rows for block in shard.blocks(embeddings=["x"], block_rows=20)] == [20] * 5
    assert [block.rows for block in shard.blocks(uids=False)] == [100]


def test_rows_begin_at_aligned_addresses(pool_factory, tmp_path) -> None:
    (shard,) = open_pool(pool_factory.datacomp(tmp_path, shards=1, rows=50)).shards
    for block in shard.blocks(embeddings=["b32_img", "l14_txt"], block_rows=7):
        assert all(values.ctypes.data % 64 == 0 for values in block.embeddings.values())


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_memory_is_that_of_two_blocks(tmp_path, monkeypatch, compressed) -> None:
    """A matrix of 16 MiB read in blocks of 256 KiB: 64 blocks, of which two and a little are alive."""
    x = np.random.default_rng(0).integers(0, 2**15, (65536, 128), dtype=np.uint16).view(np.float16)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", x=x)
    pq.write_table(pa.table({"n": range(len(x))}), tmp_path / "a.parquet")
    monkeypatch.setattr("pycurate.io.shard.BLOCK_BYTES", 256 << 10)
    (shard,) = open_pool(tmp_path).shards
    tracemalloc.start()
    try:
        for block in shard.blocks(embeddings=["x"], uids=False):
            assert block.rows == 1024
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * (256 << 10) + (3 << 20) * compressed  # inflating holds pieces of 1 MiB


def test_one_item_is_computed_ahead_and_no_more() -> None:
    made: list[int] = []
    taken = threading.Event()

    def items():
        for i in range(5):
            made.append(i)
            taken.set()
            yield i

    reading = read_ahead(items())
    assert next(reading) == 0
    deadline = time.monotonic() + 5
    while len(made) < 2 and time.monotonic() < deadline:
        taken.wait(0.01)
    time.sleep(0.02)
    assert made == [0, 1]
    assert list(reading) == [1, 2, 3, 4]


def test_leaving_early_closes_the_files(pool_factory, tmp_path) -> None:
    closed = threading.Event()

    def items():
        try:
            yield from range(10)
        finally:
            closed.set()

    reading = read_ahead(items())
    next(reading)
    reading.close()
    assert closed.is_set()
    before = threading.active_count()
    (shard,) = open_pool(pool_factory.datacomp(tmp_path, shards=1)).shards
    for _ in shard.blocks(["text"], ["b32_img"], block_rows=8):
        break
    del _
    assert threading.active_count() <= before + 1


def test_a_read_that_was_never_finished_ends_quietly_with_the_interpreter(pool_factory, tmp_path) -> None:
    pool_factory.plain(tmp_path, shards=1)
    script = (
        "import sys; from pycurate.io import open_pool; (shard,) = open_pool(sys.argv[1]).shards;"
        "reading = shard.blocks(['caption'], ['features'], block_rows=8); next(reading)"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_error_arrives_after_the_items_before_it() -> None:
    def items():
        yield 1
        yield 2
        raise PoolError("broken")

    reading = read_ahead(items())
    assert [next(reading), next(reading)] == [1, 2]
    with pytest.raises(PoolError, match="broken"):
        next(reading)


def test_a_file_that_changed_since_the_pool_was_opened(pool_factory, tmp_path) -> None:
    (shard,) = open_pool(pool_factory.plain(tmp_path, shards=1, rows=50)).shards
    whole = (tmp_path / "features_0.npy").read_bytes()
    (tmp_path / "features_0.npy").write_bytes(whole[:-1])
    with pytest.raises(PoolError, match=r"shard features_0: features_0\.npy: truncated: expected at least"):
        list(shard.blocks(embeddings=["features"]))
    (tmp_path / "features_0.npy").unlink()
    with pytest.raises(PoolError, match=r"features_0\.npy: cannot be read \(No such file or directory\)"):
        list(shard.blocks(embeddings=["features"]))
    pq.write_table(pa.table({"caption": ["x"], "score": [1.0]}), tmp_path / "features_0.parquet")
    with pytest.raises(PoolError, match=r"features_0\.parquet: has 1 rows, had 50 when the pool was opened"):
        list(shard.blocks(["caption"]))


def test_bytes_to_read(pool_factory, tmp_path, monkeypatch) -> None:
    pool_factory.datacomp(tmp_path, shards=1, rows=100)
    (shard,) = open_pool(tmp_path).shards
    assert shard.bytes_to_read([], ["b32_img", "l14_img"]) == 100 * 2 * (16 + 24)
    chunks = pq.read_metadata(tmp_path / f"{shard.name}.parquet").row_group(0)
    stored = {chunks.column(i).path_in_schema: chunks.column(i).total_compressed_size for i in range(8)}
    assert shard.bytes_to_read(["caption"], []) == stored["text"]
    assert shard.bytes_to_read(["caption"], [], uids=True) == stored["text"] + stored["uid"]
    monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", 50)
    assert [s.bytes_to_read(["text"], ["b32_img"]) for s in open_pool(tmp_path).shards] == [
        stored["text"] // 2 + 50 * 2 * 16
    ] * 2


def test_deflated_bytes_are_the_compressed_ones(pool_factory, tmp_path) -> None:
    zeros = {"x": np.zeros((1000, 64), np.float16)}
    pool_factory.datacomp(tmp_path, shards=1, rows=1000, embeddings=zeros, compressed=True)
    (shard,) = open_pool(tmp_path).shards
    assert 0 < shard.bytes_to_read([], ["x"]) < 1000
