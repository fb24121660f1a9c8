"""Images and their sizes from tars, joined by key; fingerprints of shards."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pyarrow.parquet as pq
import pytest

from pycurate.errors import PoolError
from pycurate.io import open_pool
from pycurate.io.images import TarCheck


def rewrite_tar(path, change) -> None:
    """Write the tar again with ``change(name, data)`` -> (name, data) or None."""
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    with tarfile.open(path, "w") as tar:
        for name, data in filter(None, (change(name, data) for name, data in members)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


class TestImg2dataset:
    def test_image_bytes_are_joined_by_key_not_by_position(self, pool_factory, tmp_path) -> None:
        pool = open_pool(pool_factory.img2dataset(tmp_path, shards=2, rows=20))
        assert pool.columns["image_bytes"] == "int64"
        for shard in pool.shards:
            with tarfile.open(tmp_path / f"{shard.name}.tar") as tar:
                sizes = {info.name.removesuffix(".jpg"): info.size for info in tar if info.name.endswith(".jpg")}
            table = pq.read_table(tmp_path / f"{shard.name}.parquet")
            expected = [sizes.get(key) for key in table["key"].to_pylist()]
            assert None in expected
            found = [v for block in shard.blocks(["image_bytes"], block_rows=3) for v in block.columns["image_bytes"]]
            assert [v.as_py() for v in found] == expected

    def test_images_are_those_of_the_rows(self, pool_factory, tmp_path) -> None:
        shard = open_pool(pool_factory.img2dataset(tmp_path, rows=20)).shards[1]
        keys = pq.read_table(tmp_path / f"{shard.name}.parquet")["key"].to_pylist()
        images = shard.images([19, 0, 4, 4])
        assert 0 < len(images) <= 3
        with tarfile.open(tmp_path / f"{shard.name}.tar") as tar:
            for row, data in images.items():
                assert data == tar.extractfile(f"{keys[row]}.jpg").read()
            present = set(tar.getnames())
        assert set(images) == {row for row in (0, 4, 19) if f"{keys[row]}.jpg" in present}
        assert shard.images([]) == {}

    def test_a_tar_that_fits_has_nothing_to_report(self, pool_factory, tmp_path) -> None:
        for shard in open_pool(pool_factory.img2dataset(tmp_path)).shards:
            assert shard.check_tar() == TarCheck(0, (), 0, ())

    def test_missing_and_unexpected_images_are_reported(self, pool_factory, tmp_path) -> None:
        pool_factory.img2dataset(tmp_path, shards=1, rows=20)
        rewrite_tar(tmp_path / "00000.tar", lambda name, data: (name.replace("000000005.jpg", "stranger.jpg"), data))
        (shard,) = open_pool(tmp_path).shards
        assert shard.check_tar() == TarCheck(1, ("000000005",), 1, ("stranger",))
        (block,) = shard.blocks(["image_bytes"])
        assert block.columns["image_bytes"][5].as_py() is None

    def test_a_truncated_tar_is_named(self, pool_factory, tmp_path) -> None:
        pool_factory.img2dataset(tmp_path, shards=1)
        data = (tmp_path / "00000.tar").read_bytes()
        (tmp_path / "00000.tar").write_bytes(data[: len(data) // 3])
        (shard,) = open_pool(tmp_path).shards
        with pytest.raises(PoolError, match=r"shard 00000: 00000\.tar: truncated"):
            list(shard.blocks(["image_bytes"]))
        with pytest.raises(PoolError, match=r"shard 00000: 00000\.tar: truncated"):
            shard.check_tar()
        assert shard.images([0]) == {}
        assert sum(block.rows for block in shard.blocks(["caption"])) == 20

    def test_a_stored_column_of_that_name_wins(self, pool_factory, tmp_path) -> None:
        pool_factory.img2dataset(tmp_path, shards=1, rows=4, image_bytes=[1, 2, 3, 4])
        (block,) = open_pool(tmp_path).shards[0].blocks(["image_bytes"])
        assert block.columns["image_bytes"].to_pylist() == [1, 2, 3, 4]

    def test_a_null_key_is_named(self, pool_factory, tmp_path) -> None:
        keys = [f"{i:09d}" for i in range(10)]
        keys[3] = None  # a row that failed: it is not in the tar
        pool_factory.img2dataset(tmp_path, shards=1, rows=10, key=keys)
        with pytest.raises(PoolError, match="shard 00000, row 3: key is null"):
            list(open_pool(tmp_path).shards[0].blocks())


class TestDatacompWithTars:
    def test_images_are_found_by_uid(self, pool_factory, tmp_path) -> None:
        pool = open_pool(pool_factory.datacomp(tmp_path, shards=2, rows=10, images=True))
        shard = pool.shards[1]
        uids = pq.read_table(tmp_path / f"{shard.name}.parquet")["uid"].to_pylist()
        with tarfile.open(tmp_path / "00000.tar") as tar:
            by_uid = {
                json.load(tar.extractfile(info))["uid"]: tar.extractfile(info.name.replace(".json", ".jpg")).read()
                for info in tar
                if info.name.endswith(".json")
            }
        assert shard.images([0, 7]) == {row: by_uid[uids[row]] for row in (0, 7)}

    def test_samples_without_image_or_uid_are_passed_over(self, pool_factory, tmp_path) -> None:
        pool_factory.datacomp(tmp_path, shards=1, rows=4, images=True)
        broken = {"000000000.json": b"{", "000000001.json": b"[]"}

        def change(name, data):
            return None if name == "000000002.jpg" else (name, broken.get(name, data))

        rewrite_tar(tmp_path / "00000.tar", change)
        assert set(open_pool(tmp_path).shards[0].images(range(4))) == {3}

    def test_other_pools_have_none(self, pool_factory, tmp_path) -> None:
        assert open_pool(pool_factory.datacomp(tmp_path / "a", rows=3)).shards[0].images([0]) == {}
        plain = open_pool(pool_factory.plain(tmp_path / "b")).shards[0]
        assert plain.images([0]) == {}
        assert plain.check_tar() is None


class TestFingerprint:
    def test_it_changes_with_the_files(self, pool_factory, tmp_path) -> None:
        first, second = open_pool(pool_factory.datacomp(tmp_path, shards=2)).shards
        before = first.fingerprint(), first.fingerprint(verify=True)
        others = second.fingerprint(), second.fingerprint(verify=True)
        npz = tmp_path / f"{first.name}.npz"
        data = bytearray(npz.read_bytes())
        data[300] ^= 1
        npz.write_bytes(bytes(data))
        assert first.fingerprint() != before[0]
        assert first.fingerprint(verify=True) != before[1]
        assert (second.fingerprint(), second.fingerprint(verify=True)) == others
        assert len({*before, *others}) == 4

    def test_time_counts_only_without_verify(self, pool_factory, tmp_path) -> None:
        (shard,) = open_pool(pool_factory.plain(tmp_path, shards=1)).shards
        before = shard.fingerprint(), shard.fingerprint(verify=True)
        os.utime(tmp_path / "features_0.npy", ns=(1, 1))
        assert shard.fingerprint() != before[0]
        assert shard.fingerprint(verify=True) == before[1]

    def test_the_middle_counts_only_with_verify(self, tmp_path) -> None:
        path = tmp_path / "x.npy"
        header = (
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '|i1', 'fortran_order': False, 'shape': (3200, 64)}".ljust(117)
            + b"\n"
        )
        path.write_bytes(header + bytes(3200 * 64))
        os.utime(path, ns=(1, 1))
        (shard,) = open_pool(tmp_path).shards
        before = shard.fingerprint(), shard.fingerprint(verify=True)
        with path.open("r+b") as file:
            file.seek(100_000)
            file.write(b"x")
        os.utime(path, ns=(1, 1))
        assert shard.fingerprint() == before[0]
        os.utime(path, ns=(2, 2))
        assert shard.fingerprint(verify=True) != before[1]

    def test_a_pool_elsewhere_has_the_same_contents(self, pool_factory, tmp_path) -> None:
        here = open_pool(pool_factory.plain(tmp_path / "a", shards=1)).shards[0]
        there = open_pool(pool_factory.plain(tmp_path / "b", shards=1)).shards[0]
        assert here.fingerprint(verify=True) == there.fingerprint(verify=True)

    def test_pieces_of_one_file_differ(self, pool_factory, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", 100)
        a, b = open_pool(pool_factory.plain(tmp_path, shards=1)).shards
        assert a.fingerprint() != b.fingerprint()
        assert a.fingerprint(verify=True) != b.fingerprint(verify=True)
