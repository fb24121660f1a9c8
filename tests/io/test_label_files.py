from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pycurate.errors import InputError
from pycurate.io.label_files import read_labels
from pycurate.kernels.uid import format_hex
from pycurate.types import UID_DTYPE


def some_uids(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 2**63, (n, 2), np.uint64).view(UID_DTYPE).reshape(-1)


def hexed(uids: Any) -> list[str]:
    return [text.decode() for text in format_hex(uids)]


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        import pyarrow.csv as pa_csv

        pa_csv.write_csv(table, path)
    return path


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_npy(tmp_path: Path, dtype: str) -> None:
    values = np.array([3, 0, 1], dtype)
    np.save(tmp_path / "a.npy", values)
    read = read_labels(tmp_path / "a.npy", some_uids(3))
    assert read.class_names is None
    assert read.labels.dtype == np.int64
    assert read.labels.tolist() == [3, 0, 1]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_names_become_ids_in_sorted_order(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", {"label": ["dog", "NA", None, "cat", "dog", "öl"], "other": [1] * 6})
    read = read_labels(path)
    assert read.class_names == ("NA", "cat", "dog", "öl")
    assert read.labels.tolist() == [2, 0, -1, 1, 2, 3]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_rows_are_matched_by_uid_in_the_order_given(tmp_path: Path, suffix: str) -> None:
    uids = some_uids(200)
    chosen = np.random.default_rng(1).permutation(200)[:50]
    labels = np.random.default_rng(2).integers(-1, 9, 50)
    path = write(tmp_path / f"a.{suffix}", {"uid": hexed(uids[chosen]), "label": labels.tolist()})
    expected = np.full(200, -1)
    expected[chosen] = labels
    assert read_labels(path, uids).labels.tolist() == expected.tolist()
    assert read_labels(path).labels.tolist() == labels.tolist()


def test_uids_as_bytes_dictionary_and_a_row_that_the_pool_has_twice(tmp_path: Path) -> None:
    uids = some_uids(3)
    path = tmp_path / "a.parquet"
    raw = pa.array([uids[1:2].tobytes(), uids[0:1].tobytes()], pa.binary(16))
    write(path, {"uid": raw, "label": pa.array(["b", "a"]).dictionary_encode()})
    read = read_labels(path, uids[[0, 1, 1, 2]])
    assert read.labels.tolist() == [0, 1, 1, -1]
    assert read.class_names == ("a", "b")


def test_digits_only_uids_of_a_csv_stay_text(tmp_path: Path) -> None:
    uids = np.array([(1, 2), (3, 4)], UID_DTYPE)
    path = write(tmp_path / "a.csv", {"uid": hexed(uids)[::-1], "label": [7, 8]})
    (tmp_path / "a.csv").write_text(path.read_text().replace('"', ""))
    assert read_labels(path, uids).labels.tolist() == [8, 7]


def test_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"label": pa.array([], pa.int64()), "uid": pa.array([], pa.string())})
    assert read_labels(path, some_uids(2)).labels.tolist() == [-1, -1]
    np.save(tmp_path / "a.npy", np.empty(0, np.int64))
    assert read_labels(tmp_path / "a.npy").labels.shape == (0,)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1.5, 2.0]}, "expected integers or class names, got double"),
        ({"label": [0, -2]}, "row 1 has label -2; expected class ids from 0 on, or -1"),
        ({"klass": [0, 1]}, "expected a column 'label', got 'klass'"),
        ({"label": [0, 1, 2]}, "expected 2 labels, one for each row, got 3"),
        ({"label": [0, 1], "uid": ["0" * 32, "xyz"]}, "row 1: uid is not 32 hex digits"),
        ({"label": [0, 1], "uid": ["0" * 32, None]}, "row 1: uid is not 32 hex digits"),
        ({"label": [0, 1], "uid": [5, 6]}, "column 'uid': expected 32 hex digits or 16 bytes"),
        ({"label": [0, 1], "uid": ["a" * 32, "a" * 32]}, f"uid {'a' * 32} is in the file more than once"),
        ({"label": [0], "uid": ["f" * 32]}, f"uid {'f' * 32} is in the file but not among the 2 rows"),
        (
            {"label": [0] * 5, "uid": [f"{i}" * 32 for i in range(5)]},
            f"uids {'0' * 32}, {'1' * 32}, {'2' * 32} and 2 more are in the file but not among the 2 rows",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=message):
        read_labels(path, some_uids(2))


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(InputError, match=r"expected a file of labels named \*\.npy"):
        read_labels(tmp_path / "a.txt")
    (tmp_path / "a.npy").write_bytes(b"none")
    with pytest.raises(InputError, match=r"not a readable \.npy file"):
        read_labels(tmp_path / "a.npy")
    (tmp_path / "a.parquet").write_bytes(b"none")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "a.parquet")
    np.save(tmp_path / "b.npy", np.ones((2, 2)))
    with pytest.raises(InputError, match="expected 1-D integers"):
        read_labels(tmp_path / "b.npy")
