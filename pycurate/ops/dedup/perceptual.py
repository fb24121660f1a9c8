"""Perceptual hashes of encoded pictures, and the pictures that look like others by them.

``pycurate.reference.phash`` defines the hashes; ``decode`` says what is decoded, and how far.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels import thread_count
from pycurate.kernels.arrays import require_option, thread_count_of
from pycurate.kernels.hamming import (
    MAX_PAIRS,
    Codes,
    codes_of,
    hamming_linkage,
    hamming_nearest_earlier,
    hamming_pairs,
)
from pycurate.kernels.phash import HashBits, HashKind, picture_hash
from pycurate.ops.dedup.decode import ABSENT, TOO_LARGE, UNREADABLE, UNSUPPORTED, decode, quiet
from pycurate.ops.dedup.removal import Duplicates, Removal, component, greedy

FLAT = 16

UNJUDGED_REASONS = (
    (ABSENT, b"no image"),
    (UNREADABLE, b"image is unreadable"),
    (TOO_LARGE, b"image is too large"),
    (UNSUPPORTED, b"image has no colours"),
    (FLAT, b"image is blank"),
)
"""Bit of ``flags`` -> why a picture has no hash."""

_BATCH = 16  # pictures that a thread takes at once
_Hashed: TypeAlias = tuple[NDArray[np.uint64] | None, int]


class PerceptualHashes(NamedTuple):
    """Hashes of pictures in order."""

    codes: Codes  # (n, bits / 64), the first bit the highest of word 0; zeros where there is no hash
    flags: NDArray[np.uint8]  # (n,) bits of ``UNJUDGED_REASONS``; 0 where there is a hash


def perceptual_hashes(
    images: Iterable[bytes | None],
    kind: HashKind = "phash",
    bits: HashBits = 64,
    *,
    dihedral: bool = False,
    threads: int | None = None,
) -> PerceptualHashes:
    """Hashes by which pictures look alike where their bytes differ: scaled, compressed again, slightly changed.

    Parameters
    ----------
    images
        Encoded pictures: JPEG, PNG, WebP, GIF (first frame), BMP, TIFF, PBM, PGM, PPM, AVIF; None where there is none.
        Taken a few at a time, so that a generator needs little memory. JPEGs are decoded at reduced scale, EXIF
        orientation is applied, transparent pixels lie over white.
    kind
        ``"phash"``: the lowest 8 x 8 (16 x 16) coefficients of the DCT of 32 x 32 (64 x 64) grey cells, above or below
        their median; ``"dhash"``: whether a pixel of 9 x 8 (17 x 16) is brighter than the one to its left.
    bits
        64 or 256.
    dihedral
        True: pictures that are turned or mirrored have the same hash.
    threads
        Threads that decode; every processor this process may run on by default. Changes nothing else.

    Returns
    -------
    PerceptualHashes
        A picture that cannot be judged is no error: ``flags`` says why, and which one.

    Raises
    ------
    ValueError
        ``kind``, ``bits`` or ``threads`` is not as above.
    """
    require_option("kind", kind, HashKind)
    require_option("bits", bits, HashBits)
    workers = thread_count(thread_count_of(threads))
    # Reduced scale is a filter of its own: at twice the cells, 99 % of hashes have at most 2 bits of 64 other than
    # without it.
    least_side = {64: 64, 256: 128}[bits]

    def hashed(encoded: bytes | None) -> _Hashed:
        pixels = decode(encoded, least_side)
        if isinstance(pixels, int):
            return None, pixels
        code = picture_hash(pixels, kind, bits, dihedral=dihedral)
        return code, FLAT if code is None else 0

    codes, flags = [np.empty((0, bits // 64), np.uint64)], [np.empty(0, np.uint8)]
    with quiet():
        for found in _in_order(hashed, images, workers):
            part = np.zeros((len(found), bits // 64), np.uint64)
            for row, (code, _) in enumerate(found):
                if code is not None:
                    part[row] = code
            codes.append(part)
            flags.append(np.array([flag for _, flag in found], np.uint8))
    return PerceptualHashes(np.concatenate(codes), np.concatenate(flags))


def perceptual_duplicates(
    codes: NDArray[Any],
    radius: int,
    rank: NDArray[np.int64],
    removal: Removal = "component",
    *,
    max_pairs: int = MAX_PAIRS,
    threads: int | None = None,
) -> Duplicates:
    """Which of the pictures that look alike go.

    Parameters
    ----------
    codes
        (n,) or (n, w) uint64 hashes of pictures that have one.
    radius
        Most bits in which two hashes of pictures that look alike differ.
    rank
        (n,) a permutation of 0 to n - 1; of two rows the one of lower rank survives.
    removal
        ``"component"``: of pictures that are linked, directly or through others, one is kept; ``"greedy"``: a picture
        goes if one that is kept is within the radius; ``"published"``: if any of lower rank is.
    max_pairs
        ``greedy`` holds the pairs; more of them are an error. The others hold none.
    threads
        Threads to use; every processor by default.

    Returns
    -------
    Duplicates
        ``similarity`` is 1 - distance / bits: to the nearest row of lower rank, to the nearest one kept, or for
        ``component`` that of the weakest link to it.

    Raises
    ------
    TypeError, ValueError
        ``codes``, ``radius``, ``rank`` or ``removal`` is not as above.
    InputError
        More than ``max_pairs`` pairs.
    """
    require_option("removal", removal, Removal)
    words = codes_of("codes", codes)
    bits = 64 * words.shape[1]

    def similarity(distances: NDArray[Any]) -> NDArray[np.float32]:
        alike: NDArray[np.float32] = (1 - distances / bits).astype(np.float32)
        return alike

    threshold = float(similarity(np.array(radius)))
    if removal == "published":
        order = np.empty(len(rank), np.int64)
        order[rank] = np.arange(len(rank))
        nearest = hamming_nearest_earlier(words, order, radius, threads=threads)
        near = similarity(nearest.distances)
        near[nearest.indices < 0] = np.nan
        return Duplicates(nearest.indices, near)
    if removal == "greedy":
        try:
            pairs = hamming_pairs(words, radius, max_pairs=max_pairs, threads=threads)
        except InputError as error:
            raise InputError(f"{error}; or remove by component or published") from error
        edges = (pairs.rows, pairs.cols, similarity(pairs.distances))
        return greedy(len(words), *edges, rank, threshold, copy_of=pairs.copy_of)
    linkage = hamming_linkage(words, radius, threads=threads)
    edges = (linkage.cols, linkage.rows, similarity(linkage.distances))
    return component(len(words), *edges, rank, threshold, copy_of=linkage.copy_of)


def hash_texts(hashes: PerceptualHashes) -> NDArray[np.bytes_]:
    """The hashes as (n,) lower-case hex, ``S16`` or ``S64``, the first bit first, as imagehash prints them; empty where
    there is none."""
    digits = 16 * hashes.codes.shape[1]
    text = hashes.codes.astype(">u8").tobytes().hex().encode()
    texts = np.frombuffer(text, f"S{digits}").copy() if len(hashes.codes) else np.empty(0, f"S{digits}")
    texts[hashes.flags != 0] = b""
    return texts


def hashes_of_texts(texts: NDArray[np.bytes_]) -> Codes:
    """(n, bits / 64) codes from what `hash_texts` made; none of them empty."""
    found = np.frombuffer(bytes.fromhex(texts.tobytes().decode()), ">u8").astype(np.uint64)
    return found.reshape(len(texts), texts.dtype.itemsize // 16)


def unjudged_reasons(flags: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Why each picture has no hash, as (n,) ``S20``; empty where it has one."""
    table = [next((reason for bit, reason in UNJUDGED_REASONS if code & bit), b"") for code in range(256)]
    return np.array(table, np.bytes_)[flags]


def _in_order(
    function: Callable[[bytes | None], _Hashed], images: Iterable[bytes | None], workers: int
) -> Iterator[list[_Hashed]]:
    """``function`` of each, in lists of a few; decoders let other threads run."""
    waiting = iter(images)
    if workers == 1:  # one picture is held at a time
        while done := [function(encoded) for encoded in islice(waiting, _BATCH)]:
            yield done
        return

    def of_all(batch: list[bytes | None]) -> list[_Hashed]:
        return [function(encoded) for encoded in batch]

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        running: deque[Future[list[_Hashed]]] = deque()
        try:
            while batch := list(islice(waiting, _BATCH)):
                running.append(pool.submit(of_all, batch))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
