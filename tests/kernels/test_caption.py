from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycurate.kernels import Isa
from pycurate.kernels.caption import count_words
from pycurate.reference import caption as reference

SPACES = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()]


def count(texts: list[str], offset_type: type = np.int32) -> np.ndarray:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(offset_type)
    return count_words(np.frombuffer(b"".join(encoded), np.uint8), offsets)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("offset_type", [np.int32, np.int64])
def test_words_are_those_of_str_split(offset_type: type) -> None:
    assert len(SPACES) == 29
    texts = ["", " ", "one", " two words ", "a\u200bb", "日本 語　三", "naïve café", "\x85\xa0x", "x" * 200, "y " * 100]
    texts += [f"a{space}b{space}" for space in SPACES] + [space * 70 + "é" for space in SPACES]
    texts += [chr(code) for code in range(0x20, 0x3100)]
    np.testing.assert_array_equal(count(texts, offset_type), reference.count_words(texts))


@given(texts=st.lists(st.text(st.sampled_from([*SPACES, *"ab\u00e9\u200b中\U0001f600"]), max_size=100), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text(isa: Isa, texts: list[str]) -> None:
    np.testing.assert_array_equal(count(texts), reference.count_words(texts))


@pytest.mark.usefixtures("isa")
def test_a_slice_of_a_larger_buffer_and_nothing() -> None:
    data = np.frombuffer(b"skip me one two three", np.uint8)
    np.testing.assert_array_equal(count_words(data, np.array([8, 11, 21])), [1, 2])
    assert count_words(data, np.array([5])).shape == (0,)
    assert count_words(np.empty(0, np.uint8), np.array([0, 0])).tolist() == [0]


@pytest.mark.parametrize(
    ("data", "offsets", "kind", "sentence"),
    [
        (np.zeros(4, np.int8), np.array([0, 4]), TypeError, "data: expected dtype uint8, got int8"),
        (np.zeros(4, np.uint8), np.array([0.0, 4.0]), TypeError, "offsets: expected dtype int32 or int64, got float64"),
        (np.zeros(4, np.uint8), np.array([0, 2, 5]), ValueError, "offsets: row 1 points outside data"),
        (np.zeros(4, np.uint8), np.array([0, 3, 2]), ValueError, "offsets: row 1 points outside data"),
        (np.zeros(4, np.uint8), np.array([-1, 2]), ValueError, "offsets: row 0 points outside data"),
        (
            np.zeros(4, np.uint8),
            np.empty(0, np.int64),
            ValueError,
            r"offsets: expected a contiguous 1-D array \(n \+ 1,\)",
        ),
        (np.zeros((2, 2), np.uint8), np.array([0]), ValueError, "data: expected a contiguous 1-D array"),
    ],
)
def test_bad_buffers_are_named(data: np.ndarray, offsets: np.ndarray, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        count_words(data, offsets)
