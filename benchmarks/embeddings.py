"""Embeddings to race similarity kernels on: generated spectra of a stated seed, and real rows where they are at hand.

All are (n, d) float32 in C order with rows of unit length, so that a peer without a cosine metric need not normalise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_FILES = {
    "aerial photographs": Path("ucm_captions") / "feat_mobilenet1024_fp16.npy",  # 2,100 x 1024, MobileNet
    "aerial captions": Path("ucm_captions") / "minilm_emb_fp16.npy",  # 10,500 x 384, MiniLM; 80.6 % are repeats
    "web captions": Path("laion_sample_10k") / "minilm_emb_fp16.npy",  # 10,000 x 384, MiniLM
}
PLANTED_SHARE = 0.01
BLOCK_ROWS = 16_384


def normalised(x: NDArray[Any]) -> Rows:
    x = np.ascontiguousarray(x, np.float32)
    rows: Rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    return rows


def rotated_towards(x: Rows, similarity: NDArray[Any], random: np.random.Generator) -> Rows:
    """Unit rows of the given (n,) cosine to the unit rows ``x``, in random directions beside that."""
    beside = random.standard_normal(x.shape, dtype=np.float32)
    beside -= np.einsum("nd,nd->n", beside, x)[:, None] * x
    cosine = np.asarray(similarity, np.float32)[:, None]
    return normalised(cosine * x + np.sqrt(1 - cosine**2) * normalised(beside))


def plant_near_duplicates(x: Rows, threshold: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Overwrite 1 % of the rows of ``x`` by near-duplicates of others, half of them above the threshold and half below,
    1e-5 to 0.05 away from it, evenly in the logarithm.

    Returns (m, 2) rows: the original and its near-duplicate.
    """
    n = len(x)
    count = int(n * PLANTED_SHARE)
    rows = random.permutation(n)[: 2 * count].reshape(2, count)
    distance = 10 ** random.uniform(-5, np.log10(0.05), count) * random.choice([-1, 1], count)
    x[rows[1]] = rotated_towards(x[rows[0]], np.minimum(threshold + distance, 0.99999), random)
    return rows.T


def flat_spectrum(n: int, d: int, threshold: float = 0.9, seed: int = 0) -> Rows:
    """Gaussian rows: every direction holds the same energy, nothing but the planted pairs is similar."""
    random = np.random.default_rng([seed, n, d])
    x = normalised(random.standard_normal((n, d), dtype=np.float32))
    plant_near_duplicates(x, threshold, random)
    return x


def clip_like_blocks(n: int, d: int, threshold: float = 0.9, seed: int = 0) -> Iterator[Rows]:
    """Rows shaped as CLIP image embeddings are, in blocks of 16,384 with near-duplicates planted inside each.

    Energy of the principal directions falls as 1 / rank; a common offset (the cone of one modality) puts two random
    rows at a cosine near 0.5; four coordinates stand out, as in CLIP's natural basis; a cluster's size falls as 1 /
    rank (Zipf) and half of a row's energy beside the offset is its cluster's.
    """
    random = np.random.default_rng([seed, d])
    basis = np.linalg.qr(random.standard_normal((d, d)))[0].astype(np.float32)
    spread = (np.arange(1, d + 1) ** -0.5).astype(np.float32)
    spread /= np.linalg.norm(spread)
    clusters = max(8, int(np.sqrt(n)))
    centres = (random.standard_normal((clusters, d), dtype=np.float32) * spread) @ basis.T
    share = 1 / np.arange(1, clusters + 1)
    offset = random.standard_normal(d).astype(np.float32)
    offset[random.permutation(d)[:4]] *= 8
    offset /= np.linalg.norm(offset)
    for start in range(0, n, BLOCK_ROWS):
        count = min(BLOCK_ROWS, n - start)
        member = random.choice(clusters, count, p=share / share.sum())
        own = (random.standard_normal((count, d), dtype=np.float32) * spread) @ basis.T
        block = normalised(offset + np.sqrt(np.float32(0.5)) * (centres[member] + own))
        plant_near_duplicates(block, threshold, random)
        yield block


def clip_like(n: int, d: int, threshold: float = 0.9, seed: int = 0) -> Rows:
    """All of :func:`clip_like_blocks`, shuffled: near-duplicates are anywhere."""
    x = np.concatenate([*clip_like_blocks(n, d, threshold, seed), np.empty((0, d), np.float32)])
    return x[np.random.default_rng([seed, n]).permutation(n)]


def noisy_copies(n: int, d: int, similarity: float = 0.95, seed: int = 0) -> Rows:
    """One clump: copies of one row with Gaussian noise, any two at about the given cosine."""
    random = np.random.default_rng([seed, n, d])
    centre = normalised(random.standard_normal((1, d)))
    noise = random.standard_normal((n, d), dtype=np.float32) / np.float32(np.sqrt(d))
    return normalised(centre + np.float32(np.sqrt(1 / similarity - 1)) * noise)


def identical_copies(n: int, d: int, seed: int = 0) -> Rows:
    return np.tile(normalised(np.random.default_rng([seed, d]).standard_normal((1, d))), (n, 1))


def real_rows(name: str) -> Rows | None:
    """One of ``REAL_FILES``, None where the real data are not at hand."""
    path = REAL_DATA / REAL_FILES[name]
    return normalised(np.load(path)) if path.exists() else None


def tiled_with_noise(x: Rows, n: int, seed: int = 0) -> Rows:
    """``n`` rows made of the real, distinct rows ``x``: each repeated, every repetition of the matrix turned by a small
    rotation of its own (10 degrees) and every row given isotropic Gaussian noise, so that repetitions of a row have a
    cosine of 0.8 to 0.95 to one another. Shuffled.

    Isotropic noise flattens the spectrum: principal prefixes reject fewer pairs than in as many real rows.
    """
    random = np.random.default_rng([seed, n])
    x = np.unique(x, axis=0)
    d = x.shape[1]
    tiles = []
    for start in range(0, n, len(x)):
        tile = x[: n - start] @ small_rotation(d, np.deg2rad(10), random)
        noise = random.standard_normal(tile.shape, dtype=np.float32) / np.float32(np.sqrt(d))
        # Two rows at cosine r to what they were made of have r * r to each other: with the rotation, 0.8 to 0.95.
        cosine = random.uniform(0.92, 0.98, (len(tile), 1)).astype(np.float32)
        tiles.append(normalised(tile + np.sqrt(1 / cosine**2 - 1) * noise))
    return np.concatenate(tiles)[random.permutation(n)]


def small_rotation(d: int, angle: float, random: np.random.Generator) -> Rows:
    """(d, d) rotation (Cayley's map of a random skew matrix) that turns a vector by about ``angle`` radians."""
    skew = random.standard_normal((d, d)) * (np.tan(angle / 2) / np.sqrt(2 * d))
    skew -= skew.T
    rotation: Rows = np.linalg.solve(np.eye(d) + skew, np.eye(d) - skew).astype(np.float32)
    return rotation
