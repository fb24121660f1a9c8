from typing import Any

import numpy as np
from numpy.typing import NDArray

_Hashes = NDArray[np.uint64]
_Signatures = NDArray[np.uint32]
_Rows = NDArray[np.int64]
_Floats = NDArray[np.float32]
_Offsets = NDArray[np.signedinteger[Any]]

def sign_texts(
    data: NDArray[np.uint8],
    offsets: _Offsets,
    lowest: int,
    highest: int,
    words: bool,
    fold: bool,
    a: _Hashes,
    b: _Hashes,
    threads: int,
) -> tuple[_Signatures, _Rows]: ...
def shingle_sets(
    data: NDArray[np.uint8], offsets: _Offsets, lowest: int, highest: int, words: bool, fold: bool, threads: int
) -> tuple[_Hashes, _Rows]: ...
def sign_sets(hashes: _Hashes, starts: _Rows, rows: _Rows, a: _Hashes, b: _Hashes, threads: int) -> _Signatures: ...
def find_copies(hashes: _Hashes, starts: _Rows, threads: int) -> _Rows: ...
def jaccard(hashes: _Hashes, starts: _Rows, rows: _Rows, cols: _Rows) -> _Floats: ...
def band_keys(signatures: _Signatures, bands: int, rows: int) -> _Hashes: ...
def pairs_above(
    hashes: _Hashes,
    starts: _Rows,
    rows: _Rows,
    signatures: _Signatures,
    bands: int,
    band_rows: int,
    threshold: float,
    max_pairs: int,
    threads: int,
) -> tuple[_Rows, _Rows, _Floats] | None: ...
def components_above(
    hashes: _Hashes,
    starts: _Rows,
    rows: _Rows,
    signatures: _Signatures,
    bands: int,
    band_rows: int,
    threshold: float,
    threads: int,
) -> _Rows: ...
def greedy(
    hashes: _Hashes,
    starts: _Rows,
    rows: _Rows,
    signatures: _Signatures,
    bands: int,
    band_rows: int,
    threshold: float,
    order: _Rows,
    threads: int,
) -> tuple[_Rows, _Floats]: ...
