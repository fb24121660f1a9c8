"""Boolean SQL expressions over the columns of one row, checked and evaluated by DuckDB.

DuckDB's own parser says what an expression is made of. Only constructs whose value depends on the row alone are let
through, so that a result can never depend on where blocks are cut, when it runs or what lies on the disk.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.arrow import numpy_values
from pycurate.errors import InputError

if TYPE_CHECKING:
    import duckdb

FALSE, TRUE, UNKNOWN = 0, 1, 2
"""Values of an evaluated expression; UNKNOWN is SQL's NULL."""

MEMORY_LIMIT = "256MB"  # DuckDB sees one block of the named columns at a time; what does not fit in this is an error

_ALLOWED = {"COMPARISON", "CONJUNCTION", "CONSTANT", "COLUMN_REF", "CAST", "TYPE", "FUNCTION", "OPERATOR", "CASE"} | {
    "BETWEEN",
    "COLLATE",
}
_ZONED = {"TIMESTAMP WITH TIME ZONE", "TIME WITH TIME ZONE", "TIMESTAMPTZ_NS"}
_REFUSED = {
    "SUBQUERY": "a sub-query, which looks at other rows",
    "WINDOW": "a window function, which looks at other rows",
    "STAR": "'*' or columns(...); name the columns",
    "LAMBDA": "a lambda; only plain expressions are allowed",
    "PARAMETER": "a parameter ('?' or '$1'); write the value",
    "POSITIONAL_REFERENCE": "a positional reference ('#1'); name the column",
    "DEFAULT": "the word DEFAULT",
}


def column_references(expression: str) -> tuple[tuple[str, ...], ...]:
    """The columns an expression names, each as its dotted parts, in order of appearance.

    Raises
    ------
    InputError
        The text is not one expression, or it uses an aggregate, a window function, a sub-query, a lambda, or a function
        whose value changes between calls (``random()``, ``now()``); the sentence says which.
    """
    return _checked(expression)


def evaluate_filter(expression: str, columns: Mapping[str, pa.Array]) -> NDArray[np.uint8]:
    """The expression's value for each row: 1 true, 0 false, 2 NULL.

    Parameters
    ----------
    expression
        As ``column_references`` accepts it.
    columns
        Equally long Arrow arrays by the names the expression uses, at least one. NaN counts as NULL: DuckDB
        would order it above every number and so let it pass ``score >= 0.3``.

    Raises
    ------
    InputError
        The expression is not boolean, or DuckDB cannot compute it for a row; says what DuckDB says.
    """
    import duckdb

    for parts in _checked(expression):
        if parts[0] not in columns:  # DuckDB would take current_date, say, for its function of that name
            quoted = f'; write it in double quotes, "{name}"' if (name := ".".join(parts)) in columns else ""
            raise InputError(f"filter {expression!r}: expected a column {parts[0]!r} among {sorted(columns)}{quoted}")
    rows = pa.table({name: _nan_to_null(values) for name, values in columns.items()})
    cursor = _connection().cursor()  # its own temporary schema: threads do not see each other's rows
    try:
        cursor.register("rows", rows)
        relation = cursor.sql(f"SELECT ({expression}\n) AS kept FROM rows")
        result = relation.to_arrow_table().column("kept").combine_chunks()
    except duckdb.Error as error:
        raise InputError(f"filter {expression!r}: {_first_line(error)}") from error
    finally:
        cursor.close()
    if not pa.types.is_boolean(result.type):
        raise InputError(f"filter {expression!r}: expected a true or false expression, got one of type {result.type}")
    values: NDArray[np.uint8] = numpy_values(result.cast(pa.uint8()), missing=UNKNOWN)
    return values


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    import duckdb  # here: most recipes have no filter

    connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": MEMORY_LIMIT})
    # Dates with a time zone are read in UTC wherever a filter runs; without its extension DuckDB knows no other.
    zones = connection.execute("SELECT count(*) FROM duckdb_settings() WHERE name = 'TimeZone'").fetchone()
    if zones is not None and zones[0]:
        connection.execute("SET TimeZone = 'UTC'")
    for setting in (
        "temp_directory = ''",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "python_enable_replacements = false",
        "enable_external_access = false",
        "lock_configuration = true",  # last: nothing above can be undone by a later statement
    ):
        connection.execute(f"SET {setting}")
    return connection


@cache
def _checked(expression: str) -> tuple[tuple[str, ...], ...]:
    node = _parse(expression)
    references: dict[tuple[str, ...], None] = {}
    _check(node, expression, references)
    return tuple(references)


def _parse(expression: str) -> dict[str, Any]:
    """The tree of an expression that stands alone: nothing that closes the bracket and goes on."""
    statement = _statement(expression)
    bare = _statement("true")
    expressions = statement.pop("select_list", [])
    bare.pop("select_list")
    if len(expressions) != 1 or statement != bare:
        raise InputError(f"filter {expression!r}: expected one true or false expression, got a larger piece of SQL")
    node: dict[str, Any] = expressions[0]
    return node


def _statement(expression: str) -> dict[str, Any]:
    if not expression.strip():
        raise InputError("filter: expected a true or false expression, got an empty text")
    answer = _connection().cursor().execute("SELECT json_serialize_sql(?)", [f"SELECT ({expression}\n)"]).fetchone()
    assert answer is not None
    tree = json.loads(answer[0])
    if tree["error"] or len(tree["statements"]) != 1:
        raise InputError(f"filter {expression!r}: {tree.get('error_message', 'expected one expression')}")
    node: dict[str, Any] = tree["statements"][0]["node"]
    return node


def _check(node: Any, expression: str, references: dict[tuple[str, ...], None]) -> None:
    if isinstance(node, list):
        for item in node:
            _check(item, expression, references)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind is not None and (kind not in _ALLOWED or node.get("type") == "GROUPING_FUNCTION"):
        what = _REFUSED.get(kind, f"{kind.lower()} {node.get('type', '').lower()}")
        raise InputError(f"filter {expression!r}: it uses {what}")
    if kind == "COLUMN_REF":
        references[tuple(node["column_names"])] = None
    elif kind == "FUNCTION":
        _check_function(node["function_name"].lower(), expression)
    for value in node.values():
        _check(value, expression, references)


def _check_function(name: str, expression: str) -> None:
    kinds = _functions().get(name, {})
    if not kinds:
        close = difflib.get_close_matches(name, _functions(), n=1)
        guess = f"; did you mean {close[0]}()?" if close else ""
        raise InputError(f"filter {expression!r}: DuckDB has no function {name}(){guess}")
    if "aggregate" in kinds:
        raise InputError(f"filter {expression!r}: {name}() is an aggregate, which looks at other rows")
    if "scalar" in kinds:
        if kinds["scalar"] != "CONSISTENT":
            raise InputError(f"filter {expression!r}: {name}() gives another value at another time or place")
    elif "macro" in kinds:
        _check(_parse(kinds["macro"]), expression, {})
    else:
        raise InputError(f"filter {expression!r}: {name}() gives rows, not one value")


@cache
def _functions() -> dict[str, dict[str, str]]:
    """Function name -> its kinds, each with how constant it is (scalar) or its text (macro)."""
    found: dict[str, dict[str, str]] = {}
    listing = _connection().cursor()
    listing.execute(
        "SELECT lower(function_name), function_type, stability, macro_definition, parameter_types "
        "FROM duckdb_functions()"
    )
    for name, kind, stability, definition, types in listing.fetchall():
        kinds = found.setdefault(name, {})
        if stability == "CONSISTENT_WITHIN_QUERY" and name != "age" and any(text in _ZONED for text in types or ()):
            stability = "CONSISTENT"  # it looks at the time zone, which the connection fixes; age(x) at today, too
        if kind == "scalar" and kinds.get(kind, "CONSISTENT") != "CONSISTENT":
            continue
        kinds[kind] = definition if kind == "macro" else stability or ""
    return found


def _nan_to_null(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values
    import pyarrow.compute as pc

    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
