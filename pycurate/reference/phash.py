"""The definition of the perceptual hashes in plain NumPy: in integers, as the kernels have it, and as textbooks do.

A picture is made grey (ITU-R 601 luma, rounded to 8 bits; RGBA over white) and reduced to cells of equal area: the mean
of each, a pixel that lies in several cells counting in each by the part that lies there (an area or box filter, so that
a picture decoded at a half or a quarter of its size has nearly the same cells).

DCT hash (pHash): 32 x 32 cells for 64 bits, 64 x 64 for 256, in 64ths of a grey level; their two-dimensional DCT-II; of
it the 8 x 8 (16 x 16) coefficients of lowest frequency, that of frequency 0 included, as imagehash has it; a bit is 1
where its coefficient is above the median of them.

Difference hash (dHash): 36 x 32 cells for 64 bits, 68 x 64 for 256, are reduced to 9 x 8 (17 x 16) pixels of whole
grey levels by Lanczos' window of three lobes, whose overshoot sets neighbours apart; a bit is 1 where a pixel is
brighter than the one to its left.

Bits are read by rows, the first is the highest of the first 64-bit word. Cells that differ by less than one grey level
have no structure, and their picture has no hash.

References
----------
Zauner: Implementation and benchmarking of perceptual image hash functions (2010). Krawetz: Looks like it (2011), Kind
of like that (2013).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["phash", "dhash"]

CELLS_PER_BIT = 4
GREY_STEPS = 64
COSINE_SCALE = 8192
LANCZOS_SCALE = 4096


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w) grey levels of (h, w), (h, w, 3) or (h, w, 4) pixels."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return pixels.reshape(pixels.shape[:2])
    red, green, blue = (pixels[:, :, channel].astype(np.int64) for channel in range(3))
    level = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3].astype(np.int64)
        level = (2 * (level * alpha + 255 * (255 - alpha)) + 255) // 510
    return level.astype(np.uint8)


def overlaps(n: int, cells: int) -> NDArray[np.int64]:
    """(cells, n) how much of each pixel lies in each cell, where a pixel is ``cells`` long and a cell ``n``."""
    cell, pixel = np.arange(cells)[:, None], np.arange(n)[None, :]
    shared: NDArray[np.int64] = np.minimum(n * (cell + 1), cells * (pixel + 1)) - np.maximum(n * cell, cells * pixel)
    return np.maximum(shared, 0)


def mean_cells(level: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.int64]:
    """(rows, cols) means of the cells in ``GREY_STEPS`` a grey level, halves rounded up."""
    height, width = level.shape
    total = overlaps(height, rows) @ level.astype(np.int64) @ overlaps(width, cols).T
    means: NDArray[np.int64] = (2 * GREY_STEPS * total + height * width) // (2 * height * width)
    return means


def lanczos(pixels: int) -> NDArray[np.int64]:
    """(pixels, 4 pixels) weights of cells in pixels: round(4096 sinc(x) sinc(x / 3)) at x pixels from the middle."""
    pixel, cell = np.arange(pixels)[:, None], np.arange(CELLS_PER_BIT * pixels)[None, :]
    x = (cell + 0.5) / CELLS_PER_BIT - (pixel + 0.5)
    return np.where(np.abs(x) < 3, np.rint(LANCZOS_SCALE * np.sinc(x) * np.sinc(x / 3)), 0).astype(np.int64)


def small_picture(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """A quarter of the rows and columns: whole grey levels, halves rounded up, within 0 to 255."""
    down, across = (lanczos(length // CELLS_PER_BIT) for length in cells.shape)
    one_level = GREY_STEPS * down.sum(axis=1)[:, None] * across.sum(axis=1)[None, :]
    pixels: NDArray[np.int64] = (2 * (down @ cells @ across.T) + one_level) // (2 * one_level)
    return np.clip(pixels, 0, 255)


def cosines(cells: int, bits: int) -> NDArray[np.float64]:
    """(bits, cells) cos(pi k (2n + 1) / (2 cells)): the DCT-II of the lowest frequencies."""
    k, n = np.arange(bits)[:, None], np.arange(cells)[None, :]
    return np.cos(np.pi * (k * (2 * n + 1)) / (2 * cells))


def hash_bits(pixels: NDArray[np.uint8], kind: Kind = "phash", bits: int = 64) -> NDArray[np.bool_] | None:
    """(bits,) bool; None where the picture has no structure."""
    side, level = {64: 8, 256: 16}[bits], grey(pixels)
    size = CELLS_PER_BIT * side
    cells = mean_cells(level, size, size + (CELLS_PER_BIT if kind == "dhash" else 0))
    if np.ptp(cells) < GREY_STEPS:
        return None
    if kind == "dhash":
        small = small_picture(cells)
        brighter: NDArray[np.bool_] = small[:, 1:] > small[:, :-1]
        return brighter.ravel()
    table = np.rint(COSINE_SCALE * cosines(size, side)).astype(np.int64)
    coefficients = (table @ cells @ table.T).ravel()
    middle = np.sort(coefficients)[bits // 2 - 1 : bits // 2 + 1].sum()  # twice the median
    above: NDArray[np.bool_] = 2 * coefficients > middle
    return above


def textbook_bits(pixels: NDArray[np.uint8], bits: int = 64) -> NDArray[np.bool_]:
    """(bits,) the DCT hash in float64 of the unrounded means: what `hash_bits` stands for."""
    side, level = {64: 8, 256: 16}[bits], grey(pixels)
    size = CELLS_PER_BIT * side
    height, width = level.shape
    cells = overlaps(height, size) / height @ level.astype(np.float64) @ overlaps(width, size).T / width
    table = cosines(size, side)
    coefficients = table @ cells @ table.T
    above: NDArray[np.bool_] = coefficients > np.median(coefficients)
    return above.ravel()


def words_of(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(bits / 64,) the first bit the highest of word 0."""
    return np.packbits(bits).view(">u8").astype(np.uint64)


def dihedral(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """The eight ways to lay a picture: turned and mirrored."""
    laid = [pixels, np.swapaxes(pixels, 0, 1)]
    return [part[::rows, ::cols] for part in laid for rows in (1, -1) for cols in (1, -1)]


def picture_hash(
    pixels: NDArray[np.uint8], kind: Kind = "phash", bits: int = 64, every_way: bool = False
) -> NDArray[np.uint64] | None:
    """(bits / 64,) words; with ``every_way`` the smallest of those of the eight ways to lay the picture."""
    found = [hash_bits(laid, kind, bits) for laid in (dihedral(pixels) if every_way else [pixels])]
    if any(code is None for code in found):
        return None
    codes = [words_of(code) for code in found if code is not None]
    return min(codes, key=lambda code: tuple(code.tolist()))
