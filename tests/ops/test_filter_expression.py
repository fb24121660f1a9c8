from __future__ import annotations

import threading

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pycurate.errors import InputError
from pycurate.ops.selection.filter_expression import column_references, evaluate_filter

COLUMNS = {
    "width": pa.array([100, 200, None], pa.int64()),
    "score": pa.array([0.1, np.nan, 0.3], pa.float32()),
    "caption": pa.array(["a Dog", "cat", None]),
    "clip.flags": pa.array([0, 1, 2], pa.uint8()),
}


@pytest.mark.parametrize(
    ("expression", "answers"),
    [
        ("width >= 200", [0, 1, 2]),
        ("score >= 0.05", [1, 2, 1]),
        ("score >= 0.2 or width = 100", [1, 2, 1]),
        ("caption like '%Dog'", [1, 0, 2]),
        ("caption ilike '%dog'", [1, 0, 2]),
        ('"clip.flags" in (0, 2)', [1, 0, 1]),
        ("nullif(width, 100) = 200", [2, 1, 2]),
        ("len(caption) between 4 and 9", [1, 0, 2]),
        ("case when width = 100 then true else null end", [1, 2, 2]),
        ("regexp_matches(caption, '^c')  -- a comment", [0, 1, 2]),
        ("width is not null", [1, 1, 0]),
        ("width + 50 >= 200", [0, 1, 2]),
        ("width - 50 < 100", [1, 0, 2]),
        ("year(timestamptz '2020-01-01 00:30:00+00' + interval 1 hour) = 2020 and width > 0", [1, 1, 2]),
    ],
)
def test_expressions_mean_what_sql_means_and_nan_is_null(expression: str, answers: list[int]) -> None:
    found = evaluate_filter(expression, COLUMNS)
    assert found.dtype == np.uint8
    assert found.tolist() == answers


def test_references_are_the_columns_named() -> None:
    assert column_references("width > 1 and (score < width or \"clip.flags\" = 0) and lower(caption) = 'x'") == (
        ("width",),
        ("score",),
        ("clip.flags",),
        ("caption",),
    )


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("", "expected a true or false expression, got an empty text"),
        ("width >", "syntax error"),
        ("width in (select 1)", "it uses a sub-query"),
        ("exists (from 'secrets.csv')", "it uses a sub-query"),
        ("sum(width) > 1", r"sum\(\) is an aggregate"),
        ("wavg(width, width) > 1", r"sum\(\) is an aggregate"),
        ("row_number() over () < 3", "it uses a window function"),
        ("random() < 0.5", r"random\(\) gives another value at another time"),
        ("now() > '2020-01-01'::timestamp", r"now\(\) gives another value"),
        ("age('2020-01-01'::timestamp) > interval 1 day", r"age\(\) gives another value"),
        ("current_setting('threads') = '1'", r"current_setting\(\) gives another value"),
        ("nextval('s') = width", r"nextval\(\) gives another value"),
        ("read_text('secrets.txt') = 'x'", r"read_text\(\) gives rows"),
        ("unnest([width]) = 1", r"unnest\(\) gives rows"),
        ("lenght(caption) > 1", r"DuckDB has no function lenght\(\); did you mean length\(\)\?"),
        ("list_filter([width], lambda x: x > 1) = []", "it uses a lambda"),
        ("* is null", "it uses '\\*'|syntax error"),
        ("columns('w.*') > 1", r"it uses '\*' or columns"),
        ("$1 = width", "it uses a parameter"),
        ("#1 = 2", "it uses a positional reference"),
        ("true) from (values (1)", "expected one true or false expression, got a larger piece of SQL"),
        ("true) limit (1", "expected one true or false expression, got a larger piece of SQL"),
        ("true) union select (false", "larger piece of SQL"),
        ("true), (false", "expected one true or false expression"),
        ("true; drop table rows", "syntax error"),
    ],
)
def test_what_could_depend_on_other_rows_or_other_days_is_refused(expression: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        column_references(expression)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("widht > 1", r"expected a column 'widht' among"),
        ("current_date > '2020-01-01'::date", "expected a column 'current_date'"),
        ("clip.flags = 0", 'write it in double quotes, "clip.flags"'),
        ("width", "expected a true or false expression, got one of type int64"),
        ("caption::int > 1", "Could not convert string 'a Dog'"),
        ("caption + 1 > 2", "Binder Error: No function matches the given name"),
    ],
)
def test_what_does_not_fit_the_columns_is_said(expression: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluate_filter(expression, COLUMNS)


def test_the_connection_reads_no_file_and_stays_locked(tmp_path) -> None:
    from pycurate.ops.selection.filter_expression import _connection

    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    cursor = _connection().cursor()
    for statement in (f"select * from '{secret}'", f"copy (select 1) to '{tmp_path / 'out.csv'}'", "install httpfs"):
        with pytest.raises(duckdb.Error, match=r"disabled|Permission"):
            cursor.execute(statement)
    with pytest.raises(duckdb.Error, match="locked"):
        cursor.execute("set enable_external_access = true")
    assert cursor.execute("select current_setting('threads')").fetchone() == (1,)


def test_threads_do_not_see_each_others_rows() -> None:
    wrong: list[int] = []

    def work(offset: int) -> None:
        values = pa.array(np.arange(offset, offset + 500))
        for bound in range(offset, offset + 500, 50):
            found = evaluate_filter(f"n < {bound}", {"n": values})
            if int(found.sum()) != bound - offset:
                wrong.append(bound)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 10_000, 20_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_rows_keep_their_order_and_blocks_their_answers() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    values[::17] = np.nan
    whole = evaluate_filter("x * 2 > 0.5", {"x": pa.array(values)})
    np.testing.assert_array_equal(whole, np.where(np.isnan(values), 2, values * 2 > 0.5))
    parts = [evaluate_filter("x * 2 > 0.5", {"x": pa.array(values[i : i + 333])}) for i in range(0, 10_000, 333)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
