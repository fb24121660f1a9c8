"""Matrices in .npy and .npz files: what is read, what is refused, and with which sentence."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from pycurate.errors import InputError, PoolError
from pycurate.io import EmbeddingInfo, open_pool
from pycurate.io.npy import BlockMemory

X = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float16)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def read(path, name: str, **options) -> np.ndarray:
    pool = open_pool(path, **options)
    return np.concatenate([b.embeddings[name] for s in pool.shards for b in s.blocks(embeddings=[name], block_rows=3)])


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize("rows", [1, 2, 20])
def test_embedding_dtypes_are_read_as_they_are(tmp_path, dtype, rows) -> None:
    x = (X[:rows] * 10).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(read(tmp_path, "x"), x)
    assert open_pool(tmp_path).embeddings["x"] == EmbeddingInfo(8, dtype)


def test_header_version_2_is_read(tmp_path) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, X, version=(2, 0))
    np.testing.assert_array_equal(read(tmp_path, "x"), X)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            X.astype(np.float64),
            r"x\.npy: dtype float64; expected float16, float32 or int8: save .*astype\(np\.float16\)",
        ),
        (X.astype(np.int64), "dtype int64; expected float16, float32 or int8"),
        (X.astype(np.uint8), "dtype uint8; expected float16, float32 or int8"),
        (X.view(np.uint16), r"dtype uint16; if these are bfloat16 values, open the pool with bfloat16="),
        (X.astype(np.float32).view(np.dtype([("a", "f4")])), "structured dtype .* expected a plain"),
        (np.asfortranarray(X), r"Fortran order; rows must be contiguous: save np\.ascontiguousarray\(x\)"),
        (X.astype(">f2"), "byte order '>f2' is not native"),
        (X[0], r"shape \(8,\); expected \(n, d\) with d >= 1"),
        (X[:, :0], r"shape \(20, 0\); expected \(n, d\) with d >= 1"),
        (X[None], r"shape \(1, 20, 8\); expected \(n, d\)"),
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path, array, message) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(PoolError, match="shard x: .*" + message):
        open_pool(tmp_path)


def test_pickled_objects_are_refused_without_loading_them(tmp_path, monkeypatch) -> None:
    def unpickled(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was loaded")

    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    monkeypatch.setattr("pickle.load", unpickled)
    monkeypatch.setattr("pickle.loads", unpickled)
    with pytest.raises(PoolError, match="pickled Python objects, which can run code when loaded, so it is refused"):
        open_pool(tmp_path)
    (tmp_path / "x.npy").unlink()
    np.savez(tmp_path / "y.npz", x=X, names=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "y.parquet").write_bytes(b"")
    with pytest.raises(PoolError, match="shard y:"):
        open_pool(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .npy file or truncated"),
        (b"hello world", "not a .npy file or truncated"),
        (npy_bytes(X)[:40], "the .npy header is damaged or truncated"),
        (
            npy_bytes(X)[:-1],
            r"truncated: its header says shape \(20, 8\) float16, 448 bytes in all, but the file has 447",
        ),
        (npy_bytes(X) + b"\0", "too long: its header says"),
        (npy_bytes(X) * 2, "too long: its header says"),
        (npy_with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 8)}"), r"claims the shape \(-1, 8\)"),
        (
            npy_with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (10000000000000, 512)}"),
            r"truncated: its header says shape \(10000000000000, 512\)",
        ),
        (npy_with_header("{'descr': '<f2', 'shape': (1, 8)}"), "the .npy header is damaged"),
        (npy_with_header("__import__('os').system('true')"), "the .npy header is damaged"),
        (b"\x93NUMPY\x03\x00" + npy_bytes(X)[8:], r"\.npy version 3\.0; expected 1\.0 or 2\.0"),
    ],
)
def test_damaged_npy(tmp_path, data, message) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(PoolError, match="shard x: .*" + message):
        open_pool(tmp_path)


def test_bfloat16_is_read_as_uint16_when_asked(tmp_path) -> None:
    x = X.view(np.uint16)
    np.save(tmp_path / "x.npy", x)
    assert open_pool(tmp_path, bfloat16=["x"]).embeddings["x"] == EmbeddingInfo(8, "bfloat16")
    values = read(tmp_path, "x", bfloat16=("x",))
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values, x)
    with pytest.raises(InputError, match="no embedding 'y'; it has: x"):
        open_pool(tmp_path, bfloat16=("x", "y"))
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(PoolError, match="bfloat16 was asked for, which is stored as uint16, but its dtype is float16"):
        open_pool(tmp_path, bfloat16=("x",))


class TestNpz:
    @pytest.fixture
    def pool(self, pool_factory, tmp_path):
        """A folder with one datacomp shard of 20 rows, and its npz."""
        pool_factory.datacomp(tmp_path, shards=1, rows=20, embeddings={"x": X})
        return tmp_path, next(tmp_path.glob("*.npz"))

    def test_members_of_another_rank_are_left_out(self, pool) -> None:
        folder, npz = pool
        np.savez(npz, x=X, ids=np.arange(20), cube=np.zeros((20, 2, 2)))
        assert list(open_pool(folder).embeddings) == ["x"]

    def test_bfloat16_members(self, pool) -> None:
        folder, npz = pool
        np.savez(npz, x=X, y=X.view(np.uint16))
        with pytest.raises(PoolError, match=r"member 'y': dtype uint16; if these are bfloat16"):
            open_pool(folder)
        np.testing.assert_array_equal(read(folder, "y", bfloat16=["y"]), X.view(np.uint16))

    @pytest.mark.parametrize("dtype", ["float64", "int32"])
    def test_other_dtypes_name_shard_and_embedding(self, pool, dtype) -> None:
        folder, npz = pool
        np.savez(npz, x=X.astype(dtype))
        with pytest.raises(
            PoolError, match=f"shard {npz.stem}: {npz.name}: member 'x': dtype {dtype}; expected float16"
        ):
            open_pool(folder)

    @pytest.mark.parametrize("cut", [1, 30, 200, -1])
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_truncated(self, pool, cut, save) -> None:
        folder, npz = pool
        save(npz, x=X, y=X)
        data = npz.read_bytes()
        npz.write_bytes(data[:-cut] if cut > 0 else b"")
        with pytest.raises(
            PoolError, match=f"{npz.name}: truncated or not an npz file .*copy or download the file again"
        ):
            open_pool(folder)

    def test_the_middle_is_missing(self, pool) -> None:
        """The zip directory is whole, but the bytes it points to are not where it says."""
        folder, npz = pool
        data = npz.read_bytes()
        npz.write_bytes(data[200:])
        with pytest.raises(PoolError, match=f"shard {npz.stem}: "):
            open_pool(folder)

    def test_a_row_count_that_the_zip_contradicts(self, pool) -> None:
        folder, npz = pool
        lying = npy_with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000, 8)}", X.tobytes())
        with zipfile.ZipFile(npz, "w") as archive:
            archive.writestr("x.npy", lying)
        with pytest.raises(PoolError, match=r"its header says shape \(1000000, 8\).*but the zip directory says"):
            open_pool(folder)

    def test_a_bomb_is_an_error_and_stays_small(self, pool) -> None:
        """16 MiB of zeros behind 20 rows, as the directory admits."""
        folder, npz = pool
        with zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
            member.write(npy_bytes(X))
            for _ in range(16):
                member.write(bytes(1 << 20))
        with pytest.raises(PoolError, match="but the zip directory says 16777664"):
            open_pool(folder)

    def test_a_bomb_that_the_directory_hides_is_read_no_further_than_its_rows(self, pool) -> None:
        folder, npz = pool
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy_bytes(X) + bytes(16 << 20))
        data = bomb.getvalue()
        npz.write_bytes(data.replace(struct.pack("<L", 448 + (16 << 20)), struct.pack("<L", 448)))
        tracemalloc.start()
        try:
            with pytest.raises(PoolError, match=r"damaged compressed data \(wrong checksum\)"):
                read(folder, "x")
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

    def test_compressed_data_that_ends_early(self, pool) -> None:
        folder, npz = pool
        short = io.BytesIO()
        with zipfile.ZipFile(short, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy_bytes(X)[:-100])
        data = short.getvalue()
        npz.write_bytes(data.replace(struct.pack("<L", 348), struct.pack("<L", 448)))
        with pytest.raises(PoolError, match="a compressed member ends before its 20 rows"):
            read(folder, "x")

    def test_damaged_compressed_data(self, pool) -> None:
        folder, npz = pool
        big = np.random.default_rng(0).normal(size=(20, 100_000)).astype(np.float16)
        np.savez_compressed(npz, x=big)
        data = bytearray(npz.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 4000] = bytes(4000)
        npz.write_bytes(bytes(data))
        with pytest.raises(PoolError, match=r"damaged compressed data|ends before its 20 rows"):
            read(folder, "x")

    def test_other_compressions_and_encryption_are_refused(self, pool) -> None:
        folder, npz = pool
        with zipfile.ZipFile(npz, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("x.npy", npy_bytes(X))
        with pytest.raises(PoolError, match=r"member 'x': compression 12; expected a file of np\.savez"):
            open_pool(folder)
        np.savez(npz, x=X)
        data = bytearray(npz.read_bytes())
        central = data.index(b"PK\x01\x02")
        data[central + 8] |= 1
        npz.write_bytes(bytes(data))
        with pytest.raises(PoolError, match="member 'x': encrypted"):
            open_pool(folder)


def test_memory_of_blocks_is_used_again_only_when_nobody_refers_to_it() -> None:
    memory = BlockMemory()
    first = memory.take(100, 8, np.dtype(np.float32))
    first[:] = 1
    row = first[3]  # a view of a view keeps the memory too
    second = memory.take(100, 8, np.dtype(np.float32))
    second[:] = 2
    address = second.ctypes.data
    assert address % 64 == 0
    assert not np.shares_memory(first, second)
    del first, second
    assert memory.take(50, 8, np.dtype(np.float32)).ctypes.data == address
    assert (row == 1).all()
