"""Embeddings that look like CLIP's: a cone per modality, clusters, a power-law spectrum, matched pairs nearer.

Only elementwise arithmetic and no matrix product, whose rounding would depend on the BLAS library and its threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONE = 0.4  # share of every vector's squared length that is its modality's mean
CENTROID = 0.6  # share of what remains that the cluster explains
PAIRING = 0.5  # cosine that a perfect caption has with its image, once both means are taken away

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Arch:
    """One model: its name in the files, its dimension and the cosine of its two modality means."""

    name: str
    dimension: int
    gap: float


ARCHES = (Arch("b32", 512, 0.295), Arch("l14", 768, 0.2465))


class EmbeddingSpace:
    """What all shards of a pool share for one model: spectrum, modality means, clusters, often copied pictures."""

    def __init__(self, arch: Arch, seed: int, clusters: int, viral_clusters: NDArray[np.int64]) -> None:
        rng = np.random.default_rng([seed, arch.dimension, 1 << 30])
        spectrum = np.arange(1, arch.dimension + 1, dtype=np.float32) ** np.float32(-0.35)
        self._deviation = rng.permutation(spectrum / np.sqrt(np.sum(spectrum**2)))
        shared, image, text = _unit(rng.standard_normal((3, arch.dimension), dtype=np.float32))
        common, own = np.float32(arch.gap**0.5), np.float32((1 - arch.gap) ** 0.5)
        self._image_mean = common * shared + own * image
        self._text_mean = common * shared + own * text
        self._centroids = _unit(self._draw(rng, clusters))
        self._viral = self._meanings(rng, viral_clusters)

    def _draw(self, rng: np.random.Generator, n: int) -> Vectors:
        return rng.standard_normal((n, len(self._deviation)), dtype=np.float32) * self._deviation

    def _meanings(self, rng: np.random.Generator, clusters: NDArray[np.int64]) -> Vectors:
        own = _unit(self._draw(rng, len(clusters)))
        return _unit(np.float32(CENTROID**0.5) * self._centroids[clusters] + np.float32((1 - CENTROID) ** 0.5) * own)

    def pairs(
        self,
        rng: np.random.Generator,
        clusters: NDArray[np.int64],
        viral: NDArray[np.int64],
        alteration: NDArray[np.float32],
        caption_of: NDArray[np.int64],
        quality: NDArray[np.float32],
    ) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Image and text embeddings of one shard.

        Parameters
        ----------
        clusters : ndarray
            (n,) int64: the cluster of each image.
        viral : ndarray
            (n,) int64: the often copied picture that the row shows, -1 for a picture of its own.
        alteration : ndarray
            (n,) float32: length of the noise that separates a copy from the original.
        caption_of : ndarray
            (n,) int64: the row whose image the caption is about.
        quality : ndarray
            (n,) float32 in [0, 1]: how well the caption tells what it is about.

        Returns
        -------
        images, texts : ndarray
            (n, d) float16, of length 1 up to rounding.
        """
        meaning = self._meanings(rng, clusters)
        copied = np.flatnonzero(viral >= 0)
        noise = _unit(self._draw(rng, len(copied))) * alteration[copied, None]
        meaning[copied] = _unit(self._viral[viral[copied]] + noise)
        cone, rest = np.float32(CONE**0.5), np.float32((1 - CONE) ** 0.5)
        images = _unit(cone * self._image_mean + rest * meaning).astype(np.float16)
        pairing = np.float32(PAIRING) * quality[:, None]
        told = pairing * meaning[caption_of] + np.sqrt(1 - pairing**2) * _unit(self._draw(rng, len(clusters)))
        texts = _unit(cone * self._text_mean + rest * told).astype(np.float16)
        return images, texts


def cosines(images: NDArray[np.float16], texts: NDArray[np.float16]) -> NDArray[np.float32]:
    """(n,) float32 cosine of each pair of rows of (n, d); NaN where a row is zero or not finite."""
    out = np.empty(len(images), np.float32)
    for start in range(0, len(images), 1024):
        a, b = (rows[start : start + 1024].astype(np.float64) for rows in (images, texts))
        with np.errstate(invalid="ignore"):
            out[start : start + 1024] = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return out


def _unit(rows: Vectors) -> Vectors:
    length: Vectors = np.sqrt(np.sum(rows * rows, axis=1, keepdims=True))
    return rows / length
