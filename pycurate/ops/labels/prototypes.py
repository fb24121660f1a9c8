"""Labels mended by prototypes: kept, replaced, or the row removed as one of no class (MoPro, FoPro)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import Rows, same_element
from pycurate.kernels.fused_similarity import log_sum_exp, nearest
from pycurate.kernels.neighbor_limit import device_for_neighbors
from pycurate.kernels.rowwise import pair_similarity
from pycurate.ops.labels.label_codes import Labels, label_codes

KEPT, RELABELLED, OUTLIER, UNJUDGED = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class PrototypeLabels:
    """What became of each label.

    Attributes
    ----------
    labels
        (n,) int32: the label to train with; -1 for outliers and unjudged rows.
    verdict
        (n,) uint8: 0 kept, 1 relabelled (or labelled for the first time), 2 outlier, 3 unjudged.
    confidence
        (n,) float32 in [0, 1]: the soft label of the nearest class; NaN for unjudged rows.
    unjudged
        (u,) rising rows whose embedding is zero or not finite, or whose probabilities are not finite.
    """

    labels: Labels
    verdict: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    unjudged: NDArray[np.int64]

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each verdict."""
        names = ("kept", "relabelled", "outlier", "unjudged")
        return dict(zip(names, np.bincount(self.verdict, minlength=4).tolist(), strict=True))


def prototype_labels(
    x: NDArray[Any],
    labels: Any,
    prototypes: NDArray[Any],
    *,
    pred_probs: NDArray[Any] | None = None,
    mix: float = 0.5,
    temperature: float = 0.1,
    threshold: float = 0.8,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> PrototypeLabels:
    """Keep, replace or remove labels by the similarity of rows to one prototype for each class.

    A row's soft label is q = mix x pred_probs + (1 - mix) x softmax(cosine to prototypes / temperature). Where its
    largest value is above ``threshold``, that class is the label; else a given label with q above 1 / K is kept; else
    the row is an outlier. MoPro's prototypes are moving means of all rows of a class, FoPro's are of a few trusted
    ones: `class_means` of those.

    Parameters
    ----------
    x
        (n, d) embeddings, float32, float16, bfloat16 or int8; may be a memory map, which is read in blocks.
    labels
        (n,) integers from 0, -1 for a row without a label, which is labelled or an outlier.
    prototypes
        (K, d), such as `class_means`.
    pred_probs
        (n, K) floats, of a model; may be a memory map. None: the similarity alone decides, no rows x classes are held.
    mix, temperature, threshold
        In [0, 1], above 0, and in [0, 1]; 0.5, 0.1 and 0.8 as published for MoPro. FoPro tunes its threshold.
    threads, dtype, device
        As in `pycurate.nearest`. Without ``pred_probs`` the softmax has the sums of `pycurate.log_sum_exp`, which are
        those of the CPU within 1e-6; with them, and more than 128 classes, all is computed on the CPU.

    Returns
    -------
    PrototypeLabels

    Raises
    ------
    InputError
        A value is not as above, or a prototype is zero or not finite.

    References
    ----------
    Li, Xiong, Hoi: MoPro: webly supervised learning with momentum prototypes (ICLR 2021). Qin, Cui, Chen et al.: FoPro:
    few-shot guided robust webly-supervised prototypical learning (AAAI 2023).
    """
    rows, classes = Rows.of("x", x, dtype), Rows.of("prototypes", prototypes, None)
    given, _ = label_codes(labels, len(rows), max(len(classes), 1))
    _check(rows, classes, pred_probs, mix, temperature, threshold)
    out = PrototypeLabels(
        np.full(len(rows), -1, np.int32),
        np.full(len(rows), UNJUDGED, np.uint8),
        np.full(len(rows), np.nan, np.float32),
        np.empty(0, np.int64),
    )
    scale = 1 / temperature
    soft = (
        _by_similarity(rows, classes, given, scale, threads, device)
        if pred_probs is None
        else _mixed(rows, classes, given, pred_probs, mix, scale, threads, device)
    )
    for start, best, confidence, own in soft:
        part = slice(start, start + len(best))
        judged = best >= 0
        has_label = given[part] >= 0
        sure = judged & (confidence > threshold)
        keeps = judged & ~sure & has_label & (own > 1 / len(classes))
        same = (sure & (best == given[part])) | keeps
        verdict = np.where(same, KEPT, np.where(sure, RELABELLED, OUTLIER))
        out.verdict[part] = np.where(judged, verdict, UNJUDGED)
        out.labels[part] = np.where(sure, best, np.where(keeps, given[part], -1))
        out.confidence[part] = confidence
    return PrototypeLabels(out.labels, out.verdict, out.confidence, np.flatnonzero(out.verdict == UNJUDGED))


def _check(
    rows: Rows,
    classes: Rows,
    pred_probs: NDArray[Any] | None,
    mix: float,
    temperature: float,
    threshold: float,
) -> None:
    for name, value in (("mix", mix), ("threshold", threshold)):
        if not 0 <= value <= 1:
            raise InputError(f"{name}: expected from 0 to 1, got {value}")
    if not temperature > 0 or not np.isfinite(temperature):
        raise InputError(f"temperature: expected a number above 0, got {temperature}")
    if not len(classes) or rows.dimension != classes.dimension:
        raise InputError(f"prototypes: expected (K, {rows.dimension}), one for each class, got {classes.values.shape}")
    bad = np.flatnonzero(~classes.judged("cosine"))
    if len(bad):
        raise InputError(f"prototypes: class {bad[0]} is zero or not finite, so nothing is similar to it")
    wanted = (len(rows), len(classes))
    if pred_probs is not None and (pred_probs.shape != wanted or pred_probs.dtype.kind != "f"):
        raise InputError(f"pred_probs: expected {wanted} floats, got {pred_probs.shape} of {pred_probs.dtype}")


_Soft = Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]


def _by_similarity(
    rows: Rows, classes: Rows, given: Labels, scale: float, threads: int | None, device: str | None
) -> _Soft:
    """Blocks: first row, nearest class (-1: unjudged), its softmax, and that of the given label."""
    for start, block in rows.blocks():
        part, others = same_element(block, classes, threads)
        found = nearest(part.values, 1, others.values, threads=threads, dtype=part.dtype, device=device)
        sums = log_sum_exp(part.values, others.values, scale, threads=threads, dtype=part.dtype, device=device).rows
        labels = np.maximum(given[start : start + len(block)], 0)
        own = pair_similarity(part.values, others.values[labels], threads=threads, dtype=part.dtype)
        yield (
            start,
            found.indices[:, 0],
            np.exp(scale * found.similarities[:, 0].astype(np.float64) - sums),
            np.exp(scale * own.astype(np.float64) - sums),
        )


def _mixed(
    rows: Rows,
    classes: Rows,
    given: Labels,
    pred_probs: NDArray[Any],
    mix: float,
    scale: float,
    threads: int | None,
    device: str | None,
) -> _Soft:
    """The same with a model's probabilities mixed in; dense for a block at a time."""
    step = max(1, min(rows.block_rows, (1 << 22) // len(classes)))
    place = device_for_neighbors(device, len(classes))
    for start in range(0, len(rows), step):
        block = rows.take(slice(start, start + step))
        part, others = same_element(block, classes, threads)
        found = nearest(part.values, len(classes), others.values, threads=threads, dtype=part.dtype, device=place)
        q = np.zeros(found.indices.shape)
        np.put_along_axis(q, np.maximum(found.indices, 0), scale * found.similarities.astype(np.float64), axis=1)
        q = np.exp(q - q.max(axis=1, keepdims=True))
        model = np.asarray(pred_probs[start : start + step], np.float64)
        q = mix * model + (1 - mix) * q / q.sum(axis=1, keepdims=True)
        judged = (found.indices[:, 0] >= 0) & np.isfinite(model).all(axis=1)
        best = np.where(judged[:, None], q, 0).argmax(axis=1)
        every, labels = np.arange(len(q)), np.maximum(given[start : start + len(block)], 0)
        yield (
            start,
            np.where(judged, best, -1),
            np.where(judged, q[every, best], np.nan),
            np.where(judged, q[every, labels], np.nan),
        )
