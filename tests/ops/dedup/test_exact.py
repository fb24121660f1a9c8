from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pycurate
from pycurate.errors import InputError
from pycurate.ops.dedup.exact import embedding_keys, missing_keys, text_keys


def plainly(values: list[Any], priority: np.ndarray | None = None, sign: int = 1) -> list[int]:
    """The definition: the best row of each value, the first of equal ones; a row without a value is on its own."""
    best: dict[Any, int] = {}
    order = np.arange(len(values))
    if priority is not None:
        order = np.argsort(np.where(np.isnan(priority), np.inf, sign * priority), kind="stable")
    for row in order.tolist():
        if values[row] is not None:
            best.setdefault(values[row], row)
    return [-1 if value is None or best[value] == row else best[value] for row, value in enumerate(values)]


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 1000])
def test_duplicates_name_the_first_row_with_their_value(rows: int) -> None:
    random = np.random.default_rng(rows)
    texts: list[str | None] = [f"w{i}" for i in random.integers(0, 20, rows)]
    texts[1::7] = [None] * len(texts[1::7])
    expected = plainly(texts)
    forms = [
        texts,
        pa.array(texts, pa.string()),
        pa.array(texts, pa.large_string()),
        pa.chunked_array([texts], "string"),
    ]
    for values in forms:
        found = pycurate.exact_duplicates(values)
        assert found.dtype == np.int64
        assert found.tolist() == expected
    sliced = pa.array(["x", *texts], pa.string())[1:]
    assert pycurate.exact_duplicates(sliced).tolist() == expected


@pytest.mark.parametrize(("keep", "sign"), [("highest", -1), ("lowest", 1)])
def test_a_priority_chooses_the_survivor(keep: Any, sign: int) -> None:
    random = np.random.default_rng(3)
    values = random.integers(0, 30, 500)
    priority = random.integers(0, 5, 500).astype(np.float32)  # ties
    priority[::6] = np.nan
    found = pycurate.exact_duplicates(values, priority=priority, keep=keep)
    assert found.tolist() == plainly(values.tolist(), priority, sign)


def test_captions_and_urls_are_compared_by_their_rules() -> None:
    captions = ["A  Dog", "a dog", "ａ dog ", "a\u00a0dog", "", "  ", None, "a cat"]
    assert pycurate.exact_duplicates(captions, normalise="caption").tolist() == [-1, 0, 0, 0, -1, -1, -1, -1]
    assert pycurate.exact_duplicates(captions).tolist() == [-1] * 8
    urls = ["http://A.org:80/x?utm_id=1", "http://a.org/x", "https://a.org/x", "http://a.org/x#y"]
    assert pycurate.exact_duplicates(urls, normalise="url").tolist() == [-1, 0, -1, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint16])
def test_embeddings_are_compared_bit_by_bit(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(1, 100, (8, 5)).astype(dtype)
    x[5], x[7] = x[2], x[2]
    x[1] = x[4] = 0
    assert pycurate.exact_duplicates(x).tolist() == [-1, -1, -1, -1, -1, 2, -1, 2]
    assert pycurate.exact_duplicates(np.asfortranarray(x)).tolist() == [-1, -1, -1, -1, -1, 2, -1, 2]
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    assert pycurate.exact_duplicates(wide).tolist() == [-1, -1, -1, -1, -1, 2, -1, 2]
    assert missing_keys(embedding_keys(x)).tolist() == [False, True, False, False, True, False, False, False]
    assert len(embedding_keys(x[:0])) == 0


def test_vectors_that_are_not_finite_repeat_nothing() -> None:
    x = np.ones((6, 3), np.float32)
    x[0, 1], x[1, 1], x[2, 0], x[3, 0] = np.nan, np.nan, np.inf, np.inf
    assert pycurate.exact_duplicates(x).tolist() == [-1, -1, -1, -1, -1, 4]
    bits = np.full((3, 2), 0x3F80, np.uint16)  # 1.0 as bfloat16
    bits[0, 0], bits[1] = 0x7FC0, 0x8000  # NaN; -0.0
    assert missing_keys(embedding_keys(bits)).tolist() == [True, True, False]


def test_numbers_and_bytes_are_values_too() -> None:
    assert pycurate.exact_duplicates(np.array([3, 1, 3, 1])).tolist() == [-1, -1, 0, 1]
    assert pycurate.exact_duplicates(pa.array([b"a", b"", b"a"])).tolist() == [-1, -1, 0]
    assert text_keys(pa.array(["a"]), None) == text_keys(pa.array([b"a"]), None)


def test_missing_values_alone_and_dictionaries_are_values_too() -> None:
    assert pycurate.exact_duplicates([None, None], normalise="caption").tolist() == [-1, -1]
    assert len(pycurate.exact_duplicates([], normalise="url")) == 0
    assert pycurate.exact_duplicates(pa.array(["a", "A", None, "a"]).dictionary_encode()).tolist() == [-1, -1, -1, 0]


def test_a_hundred_thousand_equal_rows_take_no_longer_than_different_ones() -> None:
    same = pa.array(["one caption"] * 100_000)
    started = time.process_time()
    found = pycurate.exact_duplicates(same)
    assert time.process_time() - started < 5
    assert found[0] == -1
    assert (found[1:] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": ["a"], "normalise": "text"}, "normalise: expected 'caption', 'url' or None, got 'text'"),
        ({"values": np.ones((2, 2)), "normalise": "url"}, "normalise: expected text to compare as url, got an array"),
        ({"values": pa.array([1]), "normalise": "url"}, "normalise: expected text to compare as url, got int64"),
        ({"values": np.ones((2, 2, 2))}, r"values: expected shape \(n,\) or \(n, d\), got \(2, 2, 2\)"),
        ({"values": [object()]}, "values: expected one text, number or bytes a row"),
        ({"values": [["a"], ["b"]]}, "values: expected one text, number or bytes a row, got list<item: string>"),
        ({"values": ["a"], "keep": "best"}, "keep: expected 'first', 'highest' or 'lowest', got 'best'"),
        ({"values": ["a"], "keep": "highest"}, "priority: keep='highest' needs a priority, and none was given"),
        ({"values": ["a"], "priority": np.ones(1)}, "priority: keep='first' ignores a priority, and one was given"),
        (
            {"values": ["a"], "priority": np.ones(2), "keep": "highest"},
            "priority: expected one number for each of 1 values, got 2",
        ),
        ({"values": ["a"], "priority": np.array(["x"]), "keep": "lowest"}, "values: expected one number a row"),
    ],
)
def test_errors_say_what_was_expected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pycurate.exact_duplicates(**arguments)


def test_the_repeats_of_real_captions_are_all_found(shared_data: Path) -> None:
    captions = pq.read_table(shared_data / "ucm_captions" / "captions.parquet")["caption"]
    found = pycurate.exact_duplicates(captions)
    assert (len(found), int(np.count_nonzero(found >= 0))) == (10_500, 8_468)
    assert found.tolist() == plainly(captions.to_pylist())
