"""Opening pools: layouts, names, uids, and the sentence that each bad pool gives."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from pycurate.errors import InputError, MissingDependencyError, PoolError
from pycurate.io import EmbeddingInfo, Pool, open_pool
from pycurate.types import UID_DTYPE

LAYOUTS = ["datacomp", "img2dataset", "clip_retrieval", "plain"]


def save_npy(path: Path, *shape: int, dtype: str = "float16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones(shape, dtype))
    return path


def save_parquet(path: Path, rows: int, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"caption": [f"row {i}" for i in range(rows)], **columns}), path)
    return path


def uids_of(pool: Pool) -> np.ndarray:
    return np.concatenate([block.uids for shard in pool.shards for block in shard.blocks(block_rows=7)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pool_is_recognised_and_counted(pool_factory, tmp_path, layout) -> None:
    pool = open_pool(getattr(pool_factory, layout)(tmp_path / "pool", shards=3, rows=20))
    assert pool.layout == layout
    assert pool.rows == 60
    assert [shard.rows for shard in pool.shards] == [20, 20, 20]
    assert [shard.name for shard in pool.shards] == sorted(shard.name for shard in pool.shards)
    assert pool.uid_source == ("column" if layout == "datacomp" else "path")
    assert pool.shard(pool.shards[1].name) is pool.shards[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pool_survives_pickling(pool_factory, tmp_path, layout) -> None:
    pool = open_pool(getattr(pool_factory, layout)(tmp_path / "pool", rows=20))
    again = pickle.loads(pickle.dumps(pool))
    assert again == pool
    np.testing.assert_array_equal(uids_of(again), uids_of(pool))
    np.testing.assert_array_equal(
        np.concatenate([b.uids for b in pickle.loads(pickle.dumps(pool.shards[0])).blocks()]), uids_of(pool)[:20]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_pool_behind_a_url_is_the_same_pool(pool_factory, tmp_path, layout, scheme) -> None:
    local = getattr(pool_factory, layout)(tmp_path / "pool", shards=2, rows=20)
    if scheme == "memory":
        fsspec.filesystem("memory").put(str(local), f"/{tmp_path.name}/{layout}", recursive=True)
        url = f"memory://{tmp_path.name}/{layout}"
    else:
        url = local.as_uri()
    remote, pool = open_pool(url), open_pool(local)
    assert (remote.layout, remote.rows, remote.columns, remote.embeddings) == (
        pool.layout,
        pool.rows,
        pool.columns,
        pool.embeddings,
    )
    columns = ["caption", *(["image_bytes"] if layout == "img2dataset" else [])]
    for shard, same in zip(pool.shards, remote.shards, strict=True):
        assert shard.name == same.name
        assert shard.fingerprint(verify=True) == same.fingerprint(verify=True)
        assert shard.images([0, 1]) == same.images([0, 1])
        for a, b in zip(
            shard.blocks(columns, tuple(pool.embeddings)), same.blocks(columns, tuple(pool.embeddings)), strict=True
        ):
            np.testing.assert_array_equal(a.uids, b.uids)
            assert a.columns == b.columns
            for name in pool.embeddings:
                np.testing.assert_array_equal(a.embeddings[name], b.embeddings[name])


def test_columns_and_embeddings_of_a_datacomp_pool(pool_factory, tmp_path) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path, rows=5))
    assert pool.columns["text"] == "string"
    assert pool.columns["clip_b32_similarity_score"] == "float"
    assert pool.embeddings == {
        "b32_img": EmbeddingInfo(16, "float16"),
        "b32_txt": EmbeddingInfo(16, "float16"),
        "l14_img": EmbeddingInfo(24, "float16"),
        "l14_txt": EmbeddingInfo(24, "float16"),
    }


@pytest.mark.parametrize(
    ("layout", "column", "stored"),
    [
        ("datacomp", "caption", "text"),
        ("datacomp", "text", "text"),
        ("datacomp", "width", "original_width"),
        ("img2dataset", "caption", "caption"),
        ("img2dataset", "text", "caption"),
        ("img2dataset", "original_width", "original_width"),
        ("img2dataset", "width", "width"),
        ("clip_retrieval", "text", "caption"),
        ("plain", "caption", "caption"),
    ],
)
def test_columns_have_common_names(pool_factory, tmp_path, layout, column, stored) -> None:
    pool = open_pool(getattr(pool_factory, layout)(tmp_path, shards=1, rows=5))
    assert pool.stored_name(column) == stored
    block = next(pool.shards[0].blocks([column]))
    assert list(block.columns) == [column]
    assert block.columns[column] == next(pool.shards[0].blocks([stored])).columns[stored]


def test_an_unknown_name_is_answered_with_the_likely_one(pool_factory, tmp_path) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path, shards=1, rows=5))
    with pytest.raises(InputError, match=r"no column 'captoin'; did you mean 'caption'\? It has: .*text"):
        pool.stored_name("captoin")
    with pytest.raises(InputError, match=r"no column 'clip_l14_score'; did you mean 'clip_l14_similarity_score'\?"):
        pool.shards[0].blocks(["clip_l14_score"])
    with pytest.raises(InputError, match=r"no embedding 'l14_image'; did you mean 'l14_img'\? It has: b32_img"):
        pool.shards[0].blocks(embeddings=["l14_image"])
    with pytest.raises(InputError, match=r"shard: the pool has no shard 'x'; it has 1, such as '[0-9a-f]{32}'"):
        pool.shard("x")
    with pytest.raises(InputError, match="block_rows: expected at least 1, got 0"):
        pool.shards[0].blocks(block_rows=0)


def test_a_single_file_is_a_plain_pool(pool_factory, tmp_path) -> None:
    pool_factory.plain(tmp_path)
    one = open_pool(tmp_path / "features_1.npy")
    assert (one.layout, one.rows, one.columns) == ("plain", 200, {})
    assert one.embeddings == {"features": EmbeddingInfo(16, "float32")}
    whole = open_pool(tmp_path)
    np.testing.assert_array_equal(uids_of(one), uids_of(whole)[200:400])
    fsspec.filesystem("memory").put(str(tmp_path / "features_1.parquet"), f"/{tmp_path.name}/features_1.parquet")
    assert open_pool(f"memory://{tmp_path.name}/features_1.parquet").columns == whole.columns


def test_a_downloaded_datacomp_pool_has_its_images_beside(pool_factory, tmp_path) -> None:
    pool_factory.datacomp(tmp_path / "metadata", shards=2, rows=6)
    pool_factory.img2dataset(tmp_path / "shards", shards=1, rows=6)
    pool = open_pool(tmp_path)
    assert pool.layout == "datacomp"
    assert pool.rows == 12
    assert all(shard.name.startswith("metadata/") for shard in pool.shards)
    assert open_pool(tmp_path, "img2dataset").rows == 6


def test_unrelated_files_and_outputs_of_runs_are_ignored(pool_factory, tmp_path) -> None:
    pool_factory.plain(tmp_path, shards=1, rows=5)
    (tmp_path / "stats.json").write_text("{}")
    save_npy(tmp_path / ".cache" / "x.npy", 3, 3)
    save_npy(tmp_path / "_temporary" / "x.npy", 3, 3)
    save_parquet(tmp_path / "out" / "ledger" / "features_0.parquet", 5)
    (tmp_path / "out" / "pycurate.json").write_text("{}")
    assert [shard.name for shard in open_pool(tmp_path).shards] == ["features_0"]
    fsspec.filesystem("memory").put(str(tmp_path), f"/{tmp_path.name}", recursive=True)
    assert [shard.name for shard in open_pool(f"memory://{tmp_path.name}").shards] == ["features_0"]


def test_a_pool_without_embeddings_is_still_a_pool(pool_factory, tmp_path) -> None:
    for npz in pool_factory.datacomp(tmp_path, rows=5).glob("*.npz"):
        npz.unlink()
    pool = open_pool(tmp_path)
    assert (pool.layout, pool.rows, pool.embeddings, pool.uid_source) == ("datacomp", 15, {}, "column")


class TestPlain:
    def test_matrices_and_a_table_without_numbers_hold_the_same_rows(self, tmp_path) -> None:
        save_npy(tmp_path / "image.npy", 4, 8)
        save_npy(tmp_path / "text.npy", 4, 6, dtype="float32")
        save_parquet(tmp_path / "metadata.parquet", 4)
        pool = open_pool(tmp_path)
        assert pool.embeddings == {"image": EmbeddingInfo(8, "float16"), "text": EmbeddingInfo(6, "float32")}
        assert [(shard.name, shard.rows) for shard in pool.shards] == [("metadata", 4)]

    def test_part_numbers_join_whatever_their_width(self, tmp_path) -> None:
        for number in (0, 1, 10):
            save_npy(tmp_path / f"image-{number:03d}.npy", number + 1, 8)
            save_npy(tmp_path / f"text_{number}.npy", number + 1, 8)
        pool = open_pool(tmp_path)
        assert set(pool.embeddings) == {"image", "text"}
        assert [shard.rows for shard in pool.shards] == [1, 2, 11]

    def test_files_of_equal_stem_are_joined_where_there_are_several_tables(self, tmp_path) -> None:
        for name, rows in (("a", 2), ("b", 3)):
            save_npy(tmp_path / f"{name}.npy", rows, 8)
            save_parquet(tmp_path / f"{name}.parquet", rows)
        pool = open_pool(tmp_path)
        assert pool.embeddings == {"embedding": EmbeddingInfo(8, "float16")}
        assert [(shard.name, shard.rows) for shard in pool.shards] == [("a", 2), ("b", 3)]

    def test_parquet_files_alone_are_shards(self, tmp_path) -> None:
        save_parquet(tmp_path / "train-00000-of-00002.parquet", 2)
        save_parquet(tmp_path / "train-00001-of-00002.parquet", 3)
        save_parquet(tmp_path / "sub" / "part-0-abc.snappy.parquet", 4)
        pool = open_pool(tmp_path)
        assert [(shard.name, shard.rows) for shard in pool.shards] == [
            ("sub/part-0-abc.snappy", 4),
            ("train-00000-of-00002", 2),
            ("train-00001-of-00002", 3),
        ]

    def test_a_table_without_its_matrix_is_named(self, tmp_path) -> None:
        save_npy(tmp_path / "a.npy", 2, 8)
        save_parquet(tmp_path / "a.parquet", 2)
        save_parquet(tmp_path / "b.parquet", 2)
        with pytest.raises(PoolError, match=r"shard b: b\.parquet has no \.npy file of the same stem or part number"):
            open_pool(tmp_path)

    def test_two_matrices_of_one_name_and_number_are_named(self, tmp_path) -> None:
        save_npy(tmp_path / "a_1.npy", 2, 8)
        save_npy(tmp_path / "a_01.npy", 2, 8)
        with pytest.raises(PoolError, match=r"a_01\.npy and a_1\.npy have the same name and part number"):
            open_pool(tmp_path)


class TestUids:
    def test_hex_column(self, pool_factory, tmp_path) -> None:
        pool_factory.datacomp(tmp_path, rows=30)
        pool = open_pool(tmp_path)
        stored = [u for s in pool.shards for u in pq.read_table(tmp_path / f"{s.name}.parquet")["uid"].to_pylist()]
        expected = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in stored], UID_DTYPE)
        np.testing.assert_array_equal(uids_of(pool), expected)

    @pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
    def test_every_text_type_is_read(self, tmp_path, kind) -> None:
        values = pa.array([f"{i:032x}" for i in range(10)])
        values = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
        save_parquet(tmp_path / "a.parquet", 10, uid=values)
        pool = open_pool(tmp_path)
        assert pool.uid_source == "column"
        assert uids_of(pool).tolist() == [(0, i) for i in range(10)]

    def test_path_uids_are_hashes_of_path_and_row(self, pool_factory, tmp_path) -> None:

        pool_factory.plain(tmp_path / "pool" / "sub", shards=2, rows=9)
        pool = open_pool(tmp_path / "pool")
        digests = [xxhash.xxh3_128_hexdigest(f"sub/features_{s}\0{i}".encode()) for s in range(2) for i in range(9)]
        assert [f"{a:016x}{b:016x}" for a, b in uids_of(pool).tolist()] == digests
        order = np.argsort(uids_of(pool), order=["f0", "f1"])
        assert [digests[i] for i in order] == sorted(digests)

    def test_img2dataset_uids_are_hashes_of_the_key(self, pool_factory, tmp_path) -> None:

        pool = open_pool(pool_factory.img2dataset(tmp_path, shards=2, rows=5))
        digests = [xxhash.xxh3_128_hexdigest(f"{s:05d}\0{s:05d}{i:04d}".encode()) for s in range(2) for i in range(5)]
        assert [f"{a:016x}{b:016x}" for a, b in uids_of(pool).tolist()] == digests

    def test_uids_do_not_depend_on_where_files_are_split(self, pool_factory, tmp_path, monkeypatch) -> None:
        pool_factory.plain(tmp_path, shards=1, rows=25)
        whole = uids_of(open_pool(tmp_path))
        monkeypatch.setattr("pycurate.io.pool.MAX_SHARD_ROWS", 10)
        split = open_pool(tmp_path)
        assert [s.name for s in split.shards] == ["features_0", "features_0@0001", "features_0@0002"]
        assert [(s.start, s.rows) for s in split.shards] == [(0, 10), (10, 10), (20, 5)]
        np.testing.assert_array_equal(uids_of(split), whole)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (None, "row 13: uid is null"),
            ("abc", "row 13: uid 'abc' is not 32 hex digits; .*uid_source='path'"),
            ("g" * 32, f"row 13: uid '{'g' * 32}' is not 32 hex digits"),
        ],
    )
    def test_a_bad_uid_is_named(self, pool_factory, tmp_path, bad, message) -> None:
        uids = [f"{i:032x}" for i in range(40)]
        uids[33] = bad
        pool = open_pool(pool_factory.datacomp(tmp_path, shards=2, rows=20, uid=uids))
        with pytest.raises(PoolError, match=message) as caught:
            uids_of(pool)
        assert caught.value.shard == pool.shards[1].name
        assert len(uids_of(open_pool(tmp_path, uid_source="path"))) == 40

    def test_a_shard_without_the_uid_column_is_named(self, pool_factory, tmp_path) -> None:
        pool_factory.datacomp(tmp_path, shards=2, rows=5)
        first = min(tmp_path.glob("*.parquet"))
        pq.write_table(pq.read_table(first).drop_columns(["uid"]), first)
        with pytest.raises(PoolError, match=f"shard {first.stem}: has no text column 'uid', as other shards have"):
            open_pool(tmp_path)

    def test_an_unknown_source_is_refused(self, pool_factory, tmp_path) -> None:
        with pytest.raises(InputError, match="uid_source: expected 'column' or 'path', got 'hash'"):
            open_pool(pool_factory.plain(tmp_path), uid_source="hash")  # type: ignore[arg-type]
        with pytest.raises(PoolError, match="has no text column 'uid'"):
            open_pool(tmp_path, uid_source="column")


class TestShardsThatDiffer:
    def test_columns_that_some_shards_lack_are_set_apart(self, tmp_path) -> None:
        save_parquet(tmp_path / "a.parquet", 2, score=[1.0, 2.0])
        save_parquet(tmp_path / "b.parquet", 2)
        pool = open_pool(tmp_path)
        assert list(pool.columns) == ["caption"]
        assert pool.partial_columns == ("score",)
        with pytest.raises(InputError, match="no column 'score' in every shard, only in some; it has: caption"):
            pool.stored_name("score")

    def test_types_that_differ_are_brought_to_one(self, tmp_path) -> None:
        save_parquet(tmp_path / "a.parquet", 2, width=pa.array([1, 2], pa.int64()))
        save_parquet(tmp_path / "b.parquet", 2, width=pa.array([1.5, None], pa.float64()))
        pool = open_pool(tmp_path)
        assert pool.columns["width"] == "double"
        values = [block.columns["width"] for shard in pool.shards for block in shard.blocks(["width"])]
        assert [v.to_pylist() for v in values] == [[1.0, 2.0], [1.5, None]]
        assert {v.type for v in values} == {pa.float64()}

    def test_types_that_do_not_go_together_are_named(self, tmp_path) -> None:
        save_parquet(tmp_path / "a.parquet", 2, width=[1, 2])
        save_parquet(tmp_path / "b.parquet", 2, width=["x", "y"])
        with pytest.raises(PoolError, match=r"column 'width' has types that do not go together .*int64, string"):
            open_pool(tmp_path)

    def test_another_dimension_is_named(self, pool_factory, tmp_path) -> None:
        pool_factory.plain(tmp_path, shards=3, parquet=False)
        save_npy(tmp_path / "features_1.npy", 200, 8, dtype="float32")
        with pytest.raises(
            PoolError, match="shard features_1: embedding 'features' has 8 dimensions of float32, in other shards 16"
        ):
            open_pool(tmp_path)


class TestBadPools:
    @pytest.mark.parametrize(
        ("prepare", "message"),
        [
            (lambda p: shutil.rmtree(p), r"pool: '.*' does not exist"),
            (lambda p: None, r"no layout fits '.*': it has no \.parquet, \.npy, \.npz, \.tar or image file\. Expected"),
            (lambda p: (p / "00000.tar").write_bytes(b""), r"it has 1 \.tar, such as '00000\.tar'.*pass layout="),
        ],
    )
    def test_nothing_to_open(self, tmp_path, prepare, message) -> None:
        prepare(tmp_path)
        with pytest.raises(PoolError, match=message):
            open_pool(tmp_path)

    def test_unknown_layout_and_layout_that_is_not_there(self, pool_factory, tmp_path) -> None:
        pool_factory.plain(tmp_path)
        with pytest.raises(InputError, match=r"layout: expected one of clip_retrieval, datacomp, .* got 'webdataset'"):
            open_pool(tmp_path, "webdataset")  # type: ignore[arg-type]
        with pytest.raises(PoolError, match=r"no shard of the layout clip_retrieval: it has 3 \.npy, 3 \.parquet"):
            open_pool(tmp_path, "clip_retrieval")

    def test_a_url_that_needs_a_package(self) -> None:
        with pytest.raises((MissingDependencyError, PoolError), match="pool: "):
            open_pool("nosuchscheme://bucket/pool")

    def test_a_pool_without_rows(self, pool_factory, tmp_path) -> None:
        pool_factory.plain(tmp_path, shards=2, rows=0)
        with pytest.raises(PoolError, match="has no rows: every one of its 2 shards is empty"):
            open_pool(tmp_path)

    def test_an_empty_shard_beside_others_is_fine(self, pool_factory, tmp_path) -> None:
        pool_factory.datacomp(tmp_path / "pool", shards=1, rows=0)
        pool_factory.datacomp(tmp_path / "pool", shards=1, rows=5, seed=1)
        pool = open_pool(tmp_path / "pool")
        assert sorted(shard.rows for shard in pool.shards) == [0, 5]
        empty = min(pool.shards, key=lambda shard: shard.rows)
        assert list(empty.blocks(["text"], ["b32_img"])) == []
        assert empty.bytes_to_read(["text"], ["b32_img"]) == 0

    def test_one_row(self, pool_factory, tmp_path) -> None:
        pool = open_pool(pool_factory.datacomp(tmp_path, shards=1, rows=1))
        (block,) = pool.shards[0].blocks(["text"], ["b32_img"])
        assert (block.start, block.rows, len(block.uids), block.embeddings["b32_img"].shape) == (0, 1, 1, (1, 16))

    def test_row_counts_that_differ(self, pool_factory, tmp_path) -> None:
        pool_factory.datacomp(tmp_path, shards=2, rows=20)
        first, second = sorted(tmp_path.glob("*.parquet"))
        pq.write_table(pq.read_table(first).slice(0, 19), first)
        pq.write_table(pq.read_table(second).slice(0, 5), second)
        with pytest.raises(
            PoolError,
            match=rf"shard {first.stem}: row counts differ: {first.name} has 19 rows, {first.stem}.npz \(b32_img\) has "
            r"20 rows.*joined by position.*\(1 other shards are wrong too; see `pycurate doctor`\)",
        ):
            open_pool(tmp_path)
        pool = open_pool(tmp_path, strict=False)
        assert [error.shard for error in pool.damaged] == [first.stem, second.stem]
        assert pool.shards == ()

    def test_what_can_be_opened_is_there_when_not_strict(self, pool_factory, tmp_path) -> None:
        pool_factory.datacomp(tmp_path, shards=3, rows=20)
        npz = min(tmp_path.glob("*.npz"))
        npz.write_bytes(npz.read_bytes()[:-100])
        pool = open_pool(tmp_path, strict=False)
        assert (pool.rows, len(pool.damaged)) == (40, 1)
        assert "truncated or not an npz file" in str(pool.damaged[0])

    @pytest.mark.parametrize(("missing", "kept"), [("npz", "parquet"), ("parquet", "npz")])
    def test_a_file_without_its_partner(self, pool_factory, tmp_path, missing, kept) -> None:
        pool_factory.datacomp(tmp_path, shards=2, rows=5)
        gone = min(tmp_path.glob(f"*.{missing}"))
        gone.unlink()
        with pytest.raises(PoolError, match=rf"{gone.stem}\.{kept} has no {gone.name} beside it"):
            open_pool(tmp_path)

    def test_a_missing_part(self, pool_factory, tmp_path) -> None:
        pool_factory.clip_retrieval(tmp_path / "a", shards=3)
        (tmp_path / "a" / "text_emb" / "text_emb_01.npy").unlink()
        with pytest.raises(PoolError, match=r"part 1 of \./ has no text_emb file, as other parts have"):
            open_pool(tmp_path / "a")
        pool_factory.img2dataset(tmp_path / "b")
        (tmp_path / "b" / "00002.tar").unlink()
        with pytest.raises(PoolError, match=r"shard 00002: 00002\.tar is missing"):
            open_pool(tmp_path / "b")

    def test_an_img2dataset_parquet_without_keys(self, pool_factory, tmp_path) -> None:
        pool_factory.img2dataset(tmp_path)
        pq.write_table(pq.read_table(tmp_path / "00001.parquet").drop_columns(["key"]), tmp_path / "00001.parquet")
        with pytest.raises(PoolError, match=r"00001\.parquet: has no column 'key', by which img2dataset joins"):
            open_pool(tmp_path)

    def test_clip_retrieval_rows_that_differ(self, pool_factory, tmp_path) -> None:
        pool_factory.clip_retrieval(tmp_path, shards=2, rows=20)
        save_npy(tmp_path / "text_emb" / "text_emb_01.npy", 21, 16)
        with pytest.raises(PoolError, match=r"metadata_01\.parquet has 20 rows.*text_emb_01\.npy has 21 rows"):
            open_pool(tmp_path)


def test_a_column_named_twice_is_refused(tmp_path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(PoolError, match="has two columns named 'a'"):
        open_pool(tmp_path)
