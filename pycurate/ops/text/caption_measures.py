"""Lengths of captions and matches in them, equal to what Python's ``str`` methods say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.arrow import arrow_texts, numpy_floats, numpy_values, text_buffers
from pycurate.kernels.caption import count_words

PATTERN_BYTES = 32_768  # RE2 refuses patterns whose program exceeds its memory budget; lists are cut into such pieces


def caption_words(captions: pa.Array) -> NDArray[np.float32]:
    """Number of whitespace-separated words: ``len(caption.split())``; NaN where the caption is null.

    Whitespace is Unicode's, the 29 characters for which ``str.isspace`` is true.
    """
    data, offsets = text_buffers(captions)
    words = count_words(data, offsets)
    if captions.null_count:
        words[~numpy_values(captions.is_valid())] = np.nan
    return words


def caption_chars(captions: pa.Array) -> NDArray[np.float32]:
    """Number of Unicode code points: ``len(caption)``; NaN where the caption is null."""
    import pyarrow.compute as pc  # here: 40 ms, and a run that reads numbers needs none of it

    return _floats(pc.utf8_length(captions))


def script_chars(captions: pa.Array, script: str) -> NDArray[np.float32]:
    """Number of characters of a Unicode script such as ``Han`` or ``Cyrillic``; NaN where the caption is null."""
    import pyarrow.compute as pc

    return _floats(pc.count_substring_regex(captions, rf"\p{{{script}}}"))


def is_script(script: str) -> bool:
    """True for the name of a Unicode script that ``script_chars`` knows, such as ``Han``."""
    try:
        script_chars(arrow_texts([""]), script)
    except pa.ArrowInvalid:
        return False
    return True


def listed_words(captions: pa.Array, words: Iterable[str]) -> NDArray[np.float32]:
    """1 where a caption contains any of the words anywhere, letter case ignored, else 0; NaN where it is null."""
    import pyarrow.compute as pc

    found = pc.if_else(pc.is_valid(captions), False, pa.scalar(None, pa.bool_()))
    for pattern in _patterns(words):
        found = pc.or_(found, pc.match_substring_regex(captions, pattern, ignore_case=True))
    return _floats(found)


def _patterns(words: Iterable[str]) -> Iterator[str]:
    escaped = iter(_escape(word) for word in words)
    while batch := list(islice(escaped, 500)):
        piece: list[str] = []
        size = 0
        for word in batch:
            size += len(word.encode())
            if piece and size > PATTERN_BYTES:
                yield "|".join(piece)
                piece, size = [], len(word.encode())
            piece.append(word)
        yield "|".join(piece)


def _escape(word: str) -> str:
    return "".join(c if c.isalnum() or ord(c) > 127 else rf"\x{{{ord(c):x}}}" for c in word)


def _floats(counts: Any) -> NDArray[np.float32]:
    floats: NDArray[np.float32] = numpy_floats(counts, np.float32)
    return floats
