from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa

from pycurate.ops.text.caption_measures import caption_chars, caption_words, is_script, listed_words, script_chars

EVERY_CHARACTER = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def test_words_and_characters_are_pythons() -> None:
    captions = [
        "",
        " ",
        "  a\t b\n",
        "\u3000京都\u2003の",
        "\x1cx\x1fy\x85",
        "é e\u0301",
        "\u200bnot a space",
        "👩‍👩‍👧 x",
        "a" * 5000,
    ]
    array = pa.array([*captions, None])
    words, chars = caption_words(array), caption_chars(array)
    assert words.dtype == chars.dtype == np.float32
    assert words[:-1].tolist() == [len(caption.split()) for caption in captions]
    assert chars[:-1].tolist() == [len(caption) for caption in captions]
    assert np.isnan(words[-1])
    assert np.isnan(chars[-1])


def test_every_unicode_character_splits_as_in_python() -> None:
    captions = [f"{character}a{character}{character}b" for character in EVERY_CHARACTER]
    expected = np.fromiter((len(caption.split()) for caption in captions), np.float32, len(captions))
    np.testing.assert_array_equal(caption_words(pa.array(captions)), expected)
    spaces = [c * 3 for c in EVERY_CHARACTER if c.isspace()]
    assert caption_words(pa.array(spaces)).tolist() == [0.0] * len(spaces)


def test_large_strings_and_slices_are_read_alike() -> None:
    array = pa.array(["x", "a b", None, "c d e"], pa.large_string()).slice(1)
    np.testing.assert_array_equal(caption_words(array), np.float32([2, np.nan, 3]))


def test_script_characters_are_counted() -> None:
    captions = pa.array(["京都の café", "plain", "Привет", None])
    np.testing.assert_array_equal(script_chars(captions, "Han"), np.float32([2, 0, 0, np.nan]))
    np.testing.assert_array_equal(script_chars(captions, "Cyrillic"), np.float32([0, 0, 6, np.nan]))
    assert is_script("Han")
    assert not is_script("Klingon")
    assert not is_script("")


def test_listed_words_match_anywhere_in_any_case() -> None:
    captions = pa.array(["Buy CHEAP pills", "nothing", "50% off (now)", "代购正品", None, ""])
    found = listed_words(captions, ["cheap", "(NOW)", "代购"])
    np.testing.assert_array_equal(found, np.float32([1, 0, 1, 1, np.nan, 0]))


def test_a_long_list_equals_a_plain_search() -> None:
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefgh.*+京é "))
    captions = ["".join(generator.choice(letters, 40)) for _ in range(300)]
    words = ["".join(generator.choice(letters, 5)).strip() or "q" for _ in range(5000)]
    expected = [float(any(word in caption for word in words)) for caption in captions]
    assert 0 < sum(expected) < len(expected)
    assert listed_words(pa.array(captions), words).tolist() == expected


def test_whitespace_of_python_is_whitespace_of_unicode_and_more() -> None:
    # The tests above rest on str.isspace; this is the set they cover.
    spaces = [c for c in EVERY_CHARACTER if c.isspace()]
    assert len(spaces) == 29
    assert {unicodedata.category(c) for c in spaces} == {"Zs", "Zl", "Zp", "Cc"}
