"""The language of each caption, by an identifier that is handed in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError

LANGUAGE_BYTES = 8
"""Longest language code that is stored, in UTF-8 bytes; ``zh-Latn`` has 7."""


def caption_languages(captions: pa.Array, detect: Callable[[str], str]) -> NDArray[np.bytes_]:
    """Language code of each caption, (n,) ``S8``; empty where the caption is null or no language was found.

    Parameters
    ----------
    captions : (n,) Arrow text
    detect
        Code of one caption, which it gets with line breaks replaced by spaces.

    Raises
    ------
    InputError
        ``detect`` gave something that is not a code of at most 8 bytes.
    """
    codes = _Codes()
    found = [
        b"" if caption is None else codes[detect(caption.replace("\n", " ") if "\n" in caption else caption)]
        for caption in captions.to_pylist()
    ]
    return np.array(found, f"S{LANGUAGE_BYTES}")


class _Codes(dict[str, bytes]):
    """Each code is checked and encoded once."""

    def __missing__(self, code: str) -> bytes:
        if not isinstance(code, str) or len(code.encode()) > LANGUAGE_BYTES:
            raise InputError(f"language: expected a code of at most {LANGUAGE_BYTES} bytes, got {code!r}")
        self[code] = code.encode()
        return self[code]
