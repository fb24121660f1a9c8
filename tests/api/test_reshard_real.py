"""2,100 real photographs as img2dataset writes them, resharded and exported by a subset, looked at member by member."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from pycurate.api.export import export_parquet
from pycurate.api.reshard import reshard
from pycurate.io.pool import open_pool
from pycurate.io.subset import Subset


def test_photographs_come_out_as_they_went_in(real_img2dataset_pool: Path, shared_data: Path, tmp_path: Path) -> None:
    images = shared_data / "ucm_captions" / "images"
    captions: dict[str, bytes] = {}
    facts: dict[str, bytes] = {}
    order = []
    for path in sorted(real_img2dataset_pool.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                data = tar.extractfile(info).read()  # type: ignore[union-attr]
                if info.name.endswith(".json"):
                    uid = json.loads(data)["uid"]
                    order.append(uid)
                    facts[uid] = data
                elif info.name.endswith(".txt"):
                    captions[info.name] = data
    image_of = {hashlib.md5(path.name.encode()).hexdigest(): path for path in images.iterdir()}
    failed = sorted(set(image_of) - set(order))
    assert len(order) == 2058
    assert len(failed) == 42

    kept = [uid for uid in order if uid < "6"]  # some three eighths of the pool
    twice = [uid for uid in kept if uid < "1"]
    subset = Subset.from_hex([*kept, *twice, failed[0], failed[1], failed[1]])
    subset.save(tmp_path / "subset.npy")
    result = reshard(real_img2dataset_pool, tmp_path / "subset.npy", tmp_path / "out", samples_per_shard=200, workers=1)
    assert (result.samples, result.found, result.missing) == (len(kept) + len(twice), len(kept), 2)
    assert result.first_missing == (failed[0], failed[1])
    assert (result.pool_tars, result.pool_samples) == (5, 2058)
    assert result.shards == -(-result.samples // 200) == len(list((tmp_path / "out").glob("*.tar")))

    expected = iter([f"{uid}-{j}" for uid in order if uid in set(kept) for j in range(1 + (uid in set(twice)))])
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        keys = list(dict.fromkeys(name.split(".")[0] for name in members))
        assert len(members) == 3 * len(keys) == 3 * sizes[path.name]
        for key in keys:
            uid = key[:32]
            assert key == next(expected)
            assert members[f"{key}.jpg"] == image_of[uid].read_bytes()
            assert members[f"{key}.json"] == facts[uid]
            assert members[f"{key}.txt"] == captions[json.loads(facts[uid])["key"] + ".txt"]
    assert next(expected, None) is None


def test_metadata_of_the_same_subset(real_img2dataset_pool: Path, tmp_path: Path) -> None:
    pool = open_pool(real_img2dataset_pool)
    rows = {name: pq.read_table(real_img2dataset_pool / f"{name}.parquet").to_pylist() for name in ("00000", "00004")}
    kept = {row["uid"] for table in rows.values() for row in table if row["uid"] > "8"}
    result = export_parquet(pool, Subset.from_hex(kept), tmp_path / "out", workers=2)
    assert (result.files, result.rows) == (2, len(kept))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["00000.parquet", "00004.parquet"]
    for name, table in rows.items():
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() == [r for r in table if r["uid"] in kept]
