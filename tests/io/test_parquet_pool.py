"""Parquet files of a pool: embedding columns, damage, memory, odd schemas."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pycurate.errors import InputError, PoolError
from pycurate.io import EmbeddingInfo, open_pool

ROWS = 50
X = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float16)


def binary_column(x: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    width = x.shape[1] * x.itemsize
    rows = [None if mask is not None and mask[i] else row.tobytes() for i, row in enumerate(x)]
    return pa.array(rows, pa.binary(width))


def list_column(x: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])


def read(shard, name: str, block_rows: int = 7) -> np.ndarray:
    return np.concatenate([b.embeddings[name] for b in shard.blocks(embeddings=[name], block_rows=block_rows)])


@pytest.mark.parametrize("group_rows", [10, 1000])
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (binary_column(X), X),
        (list_column(X), X),
        (list_column(X.astype(np.float32)), X.astype(np.float32)),
        (list_column((X * 10).astype(np.int8)), (X * 10).astype(np.int8)),
    ],
    ids=["binary", "list of float16", "list of float32", "list of int8"],
)
def test_embedding_columns(tmp_path, monkeypatch, column, expected, group_rows) -> None:
    table = pa.table({"emb": column, "n": range(ROWS), "uid": [f"{i:032x}" for i in range(ROWS)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows)
    monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", 33)
    pool = open_pool(tmp_path)
    assert pool.embeddings == {"emb": EmbeddingInfo(8, expected.dtype.name)}
    np.testing.assert_array_equal(np.concatenate([read(shard, "emb") for shard in pool.shards]), expected)
    for shard in pool.shards:
        for block in shard.blocks(["n"], ["emb"], block_rows=9):
            first = shard.start + block.start
            assert block.columns["n"].to_pylist() == list(range(first, first + block.rows))
            assert block.uids["f1"].tolist() == list(range(first, first + block.rows))
            np.testing.assert_array_equal(block.embeddings["emb"], expected[first : first + block.rows])


def test_bfloat16_in_a_binary_column(tmp_path) -> None:
    pq.write_table(pa.table({"emb": binary_column(X)}), tmp_path / "a.parquet")
    pool = open_pool(tmp_path, bfloat16=["emb"])
    assert pool.embeddings == {"emb": EmbeddingInfo(8, "bfloat16")}
    np.testing.assert_array_equal(read(pool.shards[0], "emb"), X.view(np.uint16))


@pytest.mark.parametrize("column", [list_column(X.astype(np.float64)), pa.array(X.tolist())], ids=["float64", "list"])
def test_a_column_that_cannot_be_an_embedding(tmp_path, column) -> None:
    pq.write_table(pa.table({"emb": column}), tmp_path / "a.parquet")
    pool = open_pool(tmp_path)
    assert pool.embeddings == {}
    with pytest.raises(
        InputError, match=r"no embedding 'emb' \(the column is .*; expected binary\(2d\) or a fixed-size"
    ):
        pool.shards[0].blocks(embeddings=["emb"])


def test_a_null_embedding_is_named(tmp_path) -> None:
    mask = np.arange(ROWS) == 23
    pq.write_table(pa.table({"emb": binary_column(X, mask)}), tmp_path / "a.parquet")
    with pytest.raises(PoolError, match=r"shard a, row 23: a\.parquet: embedding column 'emb' is null"):
        read(open_pool(tmp_path).shards[0], "emb")
    values = X.astype(object)
    values[31, 4] = None
    flat = pa.array(values.reshape(-1).tolist(), pa.float32())
    pq.write_table(pa.table({"emb": pa.FixedSizeListArray.from_arrays(flat, 8)}), tmp_path / "a.parquet")
    with pytest.raises(PoolError, match=r"shard a, row 31: a\.parquet: embedding column 'emb' has a null value"):
        read(open_pool(tmp_path).shards[0], "emb")


@pytest.mark.parametrize("cut", [1, 100, None])
def test_truncated(pool_factory, tmp_path, cut) -> None:
    pool_factory.datacomp(tmp_path, shards=1)
    path = next(tmp_path.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-cut] if cut else b"")
    with pytest.raises(
        PoolError, match=rf"shard {path.stem}: {path.name}: truncated or not a parquet file .*copy or download"
    ):
        open_pool(tmp_path)


def test_damaged_pages(tmp_path) -> None:
    table = pa.table({"text": np.random.default_rng(0).integers(0, 2**60, 20_000).astype(str).tolist()})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[1000:60_000] = bytes(59_000)
    (tmp_path / "a.parquet").write_bytes(bytes(data))
    (shard,) = open_pool(tmp_path).shards
    with pytest.raises(
        PoolError, match=r"shard a: a\.parquet: damaged parquet data \(.*copy or download the file again"
    ):
        list(shard.blocks(["text"]))


def test_nested_and_dotted_columns(tmp_path) -> None:
    boxes = [[[0.1, 0.2], [0.3, 0.4]], None, []]
    table = {"face_bboxes": boxes, "a.b": [1, 2, 3], "a": [4, 5, 6], "s": [{"x": 1}, {"x": 2}, None]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (shard,) = open_pool(tmp_path).shards
    (block,) = shard.blocks(list(table))
    assert {name: values.to_pylist() for name, values in block.columns.items()} == table
    assert {name for name in table if shard.bytes_to_read([name], []) > 0} == set(table)


def test_categories_are_read_as_their_values(tmp_path) -> None:
    pq.write_table(pa.table({"kind": pa.array(["a", "b", "a"]).dictionary_encode()}), tmp_path / "a.parquet")
    pool = open_pool(tmp_path)
    assert pool.columns["kind"] == "string"
    assert next(pool.shards[0].blocks(["kind"])).columns["kind"] == pa.array(["a", "b", "a"])


def test_memory_does_not_grow_with_the_row_group(tmp_path, monkeypatch) -> None:
    """One row group of 24 MiB of embeddings, decoded in blocks of 256 KiB."""
    x = np.random.default_rng(0).integers(0, 2**15, (98_304, 128), dtype=np.uint16)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(256), len(x), [None, pa.py_buffer(x)])
    pq.write_table(pa.table({"emb": column}), tmp_path / "a.parquet", use_dictionary=False, compression="none")
    monkeypatch.setattr("pycurate.io.shard.BLOCK_BYTES", 256 << 10)
    (shard,) = open_pool(tmp_path).shards
    before, peak = pa.total_allocated_bytes(), 0
    for block in shard.blocks(embeddings=["emb"], uids=False):
        assert block.rows == 1024
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 8 << 20
