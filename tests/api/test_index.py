"""Indices of pools: rows, uids and attributes as the pool has them, filters in SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pycurate import build_index, nearest, open_index, open_pool
from pycurate.api.index import index_pool
from pycurate.api.search import Index, search_index
from pycurate.errors import InputError, MemoryCapError, WorkspaceError
from pycurate.kernels.uid import format_hex

ROWS = 600


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, pool_factory: Any) -> Path:
    scores: list[float | None] = [None if i % 50 == 0 else i / ROWS for i in range(ROWS)]
    path = tmp_path_factory.mktemp("index") / "pool"
    return Path(pool_factory.datacomp(path, shards=3, rows=200, score=scores))


@pytest.fixture(scope="module")
def stored(pool: Path) -> tuple[Any, Any]:
    """All embeddings and all metadata, in the order of the shards."""
    names = sorted(path.stem for path in pool.glob("*.parquet"))
    embeddings = np.concatenate([np.load(pool / f"{name}.npz")["l14_img"] for name in names])
    return embeddings, [row for name in names for row in pq.read_table(pool / f"{name}.parquet").to_pylist()]


@pytest.fixture(scope="module")
def index(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = index_pool(pool, "l14_img", tmp_path_factory.mktemp("index") / "idx", kind="ivf_flat")
    return open_index(made.index.folder)


def test_rows_are_those_of_the_pool_in_its_order(index: Index, stored: Any) -> None:
    embeddings, table = stored
    assert index.vectors.values.tobytes() == embeddings.tobytes()
    assert index.uids is not None
    assert format_hex(np.array(index.uids)).tolist() == [row["uid"].encode() for row in table]
    assert "uid" not in index.columns
    assert index.attributes([599, 3, 3, 200], ["caption", "original_width"]).to_pylist() == [
        {"caption": table[i]["text"], "original_width": table[i]["original_width"]} for i in (599, 3, 3, 200)
    ]
    assert index.attributes([], ["text"]).num_rows == 0
    assert index.manifest["source"] == {
        "pool": open_pool(index.manifest["source"]["pool"]).root,
        "layout": "datacomp",
        "embedding": "l14_img",
        "shards": 3,
        "uid_source": "column",
    }


def test_where_selects_by_sql_and_names_rows_it_says_nothing_of(index: Index, stored: Any) -> None:
    embeddings, table = stored
    selection = index.rows_where("original_width > 300 and score < 0.5")
    expected = [row["original_width"] > 300 and row["score"] is not None and row["score"] < 0.5 for row in table]
    assert selection.rows.tolist() == expected
    assert 0 < selection.undecided <= 12  # NULL where the score is missing, unless the width already says no
    found = index.search(embeddings[:20], 5, where="original_width > 300 and score < 0.5")
    rows = np.flatnonzero(expected)
    assert found.indices.tolist() == rows[nearest(embeddings[:20], 5, embeddings[rows]).indices].tolist()
    assert f"where: {len(rows)} of 600 rows, {selection.undecided} left out for which it is NULL" in found.note
    by_mask = index.search(embeddings[:20], 5, where=np.array(expected))
    assert by_mask.indices.tolist() == found.indices.tolist()


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("widht > 300", "where: expected columns of the index, which are url, text, .*, got 'widht'; build the index"),
        ("1 < 2", "where: '1 < 2' names no column, so it says nothing of a row"),
        ("original_width", "expected a true or false expression, got one of type"),
        ("original_width >", "filter 'original_width >'"),
        ("avg(original_width) > 3", r"avg\(\) is an aggregate, which looks at other rows"),
        ("original_width in (select 1)", "it uses a sub-query"),
        ("", "expected a true or false expression, got an empty text"),
    ],
)
def test_a_bad_where_says_what_is_wrong(index: Index, expression: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        index.rows_where(expression)


def test_an_index_without_attributes_has_nothing_to_filter_by(tmp_path: Path) -> None:
    build_index(np.eye(4, dtype=np.float32), tmp_path)
    with pytest.raises(InputError, match="which are none, got 'a'"):
        open_index(tmp_path).rows_where("a > 1")


def test_search_by_uid_leaves_the_row_itself_out(index: Index, stored: Any) -> None:
    embeddings, table = stored
    report = search_index(index.folder, uid=table[7]["uid"], k=4, nprobe=1000).to_dict()
    truth = nearest(embeddings, 4).indices[7]
    [result] = report["results"]
    assert [row["row"] for row in result["neighbors"]] == truth.tolist()
    assert [row["uid"] for row in result["neighbors"]] == [table[i]["uid"] for i in truth]
    assert [row["caption"] for row in result["neighbors"]] == [table[i]["text"] for i in truth]
    assert "without the row itself" in report["note"]


def test_search_by_vectors_from_a_file(index: Index, stored: Any, tmp_path: Path) -> None:
    embeddings, _ = stored
    np.save(tmp_path / "two.npy", embeddings[[5, 9]].astype(np.float32))
    np.save(tmp_path / "one.npy", embeddings[5])
    two = search_index(index, vector=tmp_path / "two.npy", k=3).to_dict()
    one = search_index(index, vector=tmp_path / "one.npy", k=3).to_dict()
    assert [result["neighbors"][0]["row"] for result in two["results"]] == [5, 9]
    assert one["results"][0] == {**two["results"][0]}
    zero = search_index(index, vector=np.zeros(24, np.float32)).to_dict()
    assert zero["unjudged"] == ["vector 0"]
    assert zero["results"][0]["neighbors"] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "uid, vector: expected one of the two"),
        ({"uid": "12"}, "uid: expected 32 hex digits, got '12'"),
        ({"uid": "z" * 32}, "is not 32 hex digits|expected 32 hex digits"),
        ({"uid": "0" * 32}, "uid: expected one of the 600 rows of"),
        ({"vector": "absent.npy"}, "absent.npy cannot be read as .npy"),
        ({"vector": np.zeros(24)}, "vector: expected float32, float16 or int8, got float64; convert it on purpose"),
        ({"vector": np.zeros((1, 1, 24), np.float32)}, r"vector: expected shape \(d,\) or \(m, d\), got \(1, 1, 24\)"),
        ({"vector": np.zeros(5, np.float32)}, "queries: expected 24 elements as the rows of the index have, got 5"),
    ],
)
def test_bad_searches_say_what_was_expected(index: Index, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        search_index(index, **arguments)


def test_bad_builds_say_what_was_expected_before_anything_is_written(pool: Path, tmp_path: Path) -> None:
    for arguments, error, sentence in (
        ({"embedding": "l14"}, InputError, "embedding: the pool has no embedding 'l14'.*did you mean"),
        ({"columns": ["caption", "likes"]}, InputError, "column: the pool has no column 'likes'"),
        ({"kind": "hnsw", "memory_bytes": 1 << 20}, MemoryCapError, "memory: an index of kind 'hnsw' of 600 rows"),
        ({"out": pool}, WorkspaceError, "is not empty and is not from an earlier build"),
    ):
        with pytest.raises(error, match=sentence):
            index_pool(**{"pool": pool, "embedding": "l14_img", "out": tmp_path / "idx", **arguments})
        assert not (tmp_path / "idx").exists()


def test_columns_can_be_chosen_and_other_layouts_have_uids(pool_factory: Any, tmp_path: Path) -> None:
    pool = pool_factory.clip_retrieval(tmp_path / "pool", rows=50)
    made = index_pool(pool, "image", tmp_path / "idx", columns=["caption"])
    assert made.index.manifest["columns"] == ["caption"]
    assert made.index.manifest["source"]["uid_source"] == "path"
    assert made.index.uids is not None
    assert len(np.unique(made.index.uids)) == 150
    plain = pool_factory.plain(tmp_path / "plain", rows=50, parquet=False)
    [embedding] = open_pool(plain).embeddings
    report = index_pool(plain, embedding, tmp_path / "idx2")
    assert report.index.manifest["columns"] == []
    found = search_index(tmp_path / "idx2", vector=np.ones(16, np.float32), k=2).to_dict()
    assert set(found["results"][0]["neighbors"][0]) == {"row", "uid", "similarity"}
    assert "rows     150 of 16 elements of float32" in report.render()


def test_an_index_inside_a_pool_is_no_part_of_it(pool_factory: Any, tmp_path: Path) -> None:
    pool = pool_factory.plain(tmp_path / "pool", rows=20)
    [embedding] = open_pool(pool).embeddings
    index_pool(pool, embedding, pool / "idx")
    assert open_pool(pool).rows == 60


def test_real_captions_are_found_by_meaning(real_datacomp_pool: Path, tmp_path: Path) -> None:
    made = index_pool(real_datacomp_pool, "b32_txt", tmp_path / "idx", kind="ivf_flat").index
    exact = index_pool(real_datacomp_pool, "b32_txt", tmp_path / "flat").index
    assert exact.kind == "flat"
    rows = np.arange(0, len(made), 97)
    queries = np.array(made.vectors.values[rows])
    truth, found = exact.search(queries, 10), made.search(queries, 10)
    assert truth.exact
    hits = [len(set(a) & set(b)) for a, b in zip(truth.indices.tolist(), found.indices.tolist(), strict=True)]
    certificate = made.manifest["certificate"]
    assert sum(hits) / (10 * len(rows)) >= certificate["lower_bound"] - 0.05
    assert certificate["recall"] > 0.85
