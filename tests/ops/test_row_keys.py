from __future__ import annotations

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128_hexdigest

from pycurate.ops.text.row_keys import NO_KEY, normalise_caption, row_keys
from pycurate.types import UID_DTYPE


def _hex(keys: np.ndarray) -> list[str]:
    return [f"{high:016x}{low:016x}" for high, low in keys.tolist()]


def test_keys_are_the_hash_of_the_bytes() -> None:
    keys = row_keys(pa.array(["dog", "", "京都", None, "dog"]))
    assert keys.dtype == UID_DTYPE
    assert keys[3].item() == NO_KEY
    assert _hex(keys[[0, 1, 2, 4]]) == [xxh3_128_hexdigest(text.encode()) for text in ("dog", "", "京都", "dog")]


def test_keys_do_not_depend_on_the_arrow_type_or_the_cut() -> None:
    texts = ["a", None, "b", "c"]
    plain = row_keys(pa.array(texts))
    np.testing.assert_array_equal(plain, row_keys(pa.array(texts, pa.large_string())))
    np.testing.assert_array_equal(plain, row_keys(pa.array([t and t.encode() for t in texts], pa.binary())))
    np.testing.assert_array_equal(plain[2:], row_keys(pa.array(texts).slice(2)))
    assert len(row_keys(pa.array([], pa.string()))) == 0


def test_numbers_are_compared_by_their_text() -> None:
    np.testing.assert_array_equal(row_keys(pa.array([7, None])), row_keys(pa.array(["7", None])))


def test_normalised_captions_that_read_alike_are_equal() -> None:
    alike = ["A  Dog\n", "a dog", "Ａ ＤＯＧ", " a\u00a0dog"]
    assert {normalise_caption(text) for text in alike} == {"a dog"}
    assert len(set(_hex(row_keys(pa.array(alike), normalise=True)))) == 1
    assert len(set(_hex(row_keys(pa.array(alike))))) == 4
    assert normalise_caption("Straße ﬁn") == "strasse fin"
