"""Labels without a model of their own: rows are compared with the text embeddings of classes (zero-shot)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.exact import exact_nearest
from pycurate.index.rows import Rows, check_count, same_element
from pycurate.kernels.arrays import require_option
from pycurate.kernels.fused_similarity import log_sum_exp, nearest
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.uid import sort_uids
from pycurate.ops.labels.label_codes import Labels, label_codes
from pycurate.ops.labels.tables import nullable, row_table
from pycurate.types import UID_DTYPE, UidArray

RankBy: TypeAlias = Literal["similarity", "probability"]

CLIP_SCALE = 100.0
"""The inverse temperature of the published CLIP models."""


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabels:
    """Classes given to rows.

    Attributes
    ----------
    labels
        (n,) int32: the class that a row was selected for, -1 where for none.
    scores
        (n,) float32: its similarity or probability; NaN where the row was not selected.
    n_classes
        Classes there are.
    short
        Rising classes that got less than the rows asked for.
    unjudged
        (u,) rising rows whose embedding is zero or not finite.
    """

    labels: Labels
    scores: NDArray[np.float32]
    n_classes: int
    short: NDArray[np.int64]
    unjudged: NDArray[np.int64]

    @property
    def selected(self) -> NDArray[np.int64]:
        """Rows with a label, by class, the highest score first."""
        rows = np.flatnonzero(self.labels >= 0)
        return rows[np.lexsort((rows, -self.scores[rows], self.labels[rows]))]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n_classes,) rows of each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.n_classes)

    def to_arrow(self, uids: UidArray | None = None) -> pa.Table:
        """A row each: ``uid`` or ``row``, ``label`` (null for none), ``score`` (null without a label)."""
        columns = {"label": nullable(self.labels), "score": pa.array(self.scores, from_pandas=True)}
        return row_table(len(self.labels), uids, columns)


def class_means(x: NDArray[Any], labels: Any, n_classes: int | None = None) -> NDArray[np.float32]:
    """(n_classes, d) unit vectors: of each class the mean of its rows, each scaled to length 1, in float64.

    Of the texts of several prompts for each class, it makes the class embeddings of a prompt ensemble; of images with
    trusted labels, prototypes. Rows labelled -1, zero or not finite are left out.

    Raises
    ------
    InputError
        A class has no row, or its rows cancel.
    """
    rows = Rows.of("x", x)
    given, classes = label_codes(labels, len(rows), n_classes)
    sums, counts = np.zeros((classes, rows.dimension)), np.zeros(classes, np.int64)
    for start, block in rows.blocks():
        part = given[start : start + len(block)]
        used = np.flatnonzero((part >= 0) & block.judged("cosine"))
        np.add.at(sums, part[used], block.take(used).units().astype(np.float64))
        counts += np.bincount(part[used], minlength=classes)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    bad = np.flatnonzero((counts == 0) | (length[:, 0] == 0))
    if len(bad):
        why = "no row that can be judged" if counts[bad[0]] == 0 else "rows whose mean is zero"
        raise InputError(
            f"labels: class {bad[0]} has {why}; label one, or leave the class out and number the rest anew"
        )
    return np.asarray(sums / length, np.float32)


def zero_shot_labels(
    x: NDArray[Any],
    class_embeddings: NDArray[Any],
    k: int | None = None,
    *,
    spill: bool = False,
    rank_by: RankBy = "similarity",
    scale: float = CLIP_SCALE,
    minimum: float | None = None,
    metric: Metric = "cosine",
    uids: UidArray | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> PseudoLabels:
    """Pseudo-labels by similarity to class embeddings: for every row, or for the k best rows of each class.

    Parameters
    ----------
    x
        (n, d) image embeddings, float32, float16, bfloat16 or int8; may be a memory map, which is read in blocks.
    class_embeddings
        (K, d) one for each class, such as `class_means` of the texts of several prompts.
    k
        Rows to select for each class; None: every row gets its nearest class.
    spill
        ``False`` (default): a row competes only for its nearest class, so that a class may get less than k. ``True``: a
        row that is not among the best k of its nearest class competes for its next. The outcome is the one in which no
        class and row that prefer each other to what they have exist; it does not depend on the order of rows, as that
        of the published leaderboards does.
    rank_by
        ``"similarity"``, or ``"probability"``: softmax over classes of ``scale`` x similarity, by which the published
        code ranks; not with ``spill``.
    scale
        Inverse temperature of the softmax, 100 for CLIP.
    minimum
        Rows of a lower score are not selected.
    metric
        ``"cosine"`` (default), ``"inner_product"`` or ``"l2"``.
    uids
        (n,) by which ties break; by default the lower row is better. With ``spill``, copies ``x`` once.
    threads, dtype, device
        As in `pycurate.nearest`. A device changes nothing but probabilities, by as much as `pycurate.log_sum_exp`.

    Returns
    -------
    PseudoLabels
        The same for any number of threads and block size. Holds 20 bytes a row.

    Raises
    ------
    InputError
        A value is not as above, or a class embedding is zero or not finite.

    References
    ----------
    Huang, Chu, Wei: Unsupervised prompt learning for vision-language models (2022), for the k best of each class.
    """
    require_option("rank_by", rank_by, RankBy)
    require_option("metric", metric, Metric)
    rows, classes = Rows.of("x", x, dtype), Rows.of("class_embeddings", class_embeddings, None)
    _check(rows, classes, k, spill, rank_by, scale, uids, metric)
    if spill:
        assert k is not None
        return _spilled(rows, classes, k, minimum, metric, uids, threads, device)
    labels, scores = np.full(len(rows), -1, np.int32), np.full(len(rows), np.nan, np.float32)
    unjudged = [np.empty(0, np.int64)]
    ranks = np.arange(len(rows)) if uids is None else _ranks(uids)
    best = BestRows(len(classes), k)
    for start, of_block, near, lacking in _nearest_classes(rows, classes, rank_by, scale, metric, threads, device):
        unjudged.append(start + lacking)
        there = np.flatnonzero((of_block >= 0) & (near >= np.float32(-np.inf if minimum is None else minimum)))
        if k is None:
            labels[start + there], scores[start + there] = of_block[there], near[there]
        else:
            best.offer(ranks[start + there], of_block[there], near[there])
    if k is not None:
        selected = best.keys if uids is None else np.argsort(ranks)[best.keys]
        labels[selected], scores[selected] = best.labels, best.scores
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    return PseudoLabels(labels, scores, len(classes), np.flatnonzero(counts < (k or 0)), np.concatenate(unjudged))


def _check(
    rows: Rows,
    classes: Rows,
    k: int | None,
    spill: bool,
    rank_by: str,
    scale: float,
    uids: UidArray | None,
    metric: Metric,
) -> None:
    if k is not None:
        check_count("k", k)
    if spill and k is None:
        raise InputError("spill: needs k, the rows of each class; without k every row gets its nearest class")
    if spill and rank_by != "similarity":
        raise InputError("spill: rows are ranked by similarity, got rank_by='probability'; choose one of the two")
    if not scale > 0 or not np.isfinite(scale):
        raise InputError(f"scale: expected a number above 0, got {scale}")
    if uids is not None and (uids.dtype != UID_DTYPE or uids.shape != (len(rows),)):
        raise InputError(f"uids: expected ({len(rows)},) uids, got {uids.shape} of {uids.dtype}")
    if not len(classes):
        raise InputError("class_embeddings: expected at least one class, got none")
    if rows.dimension != classes.dimension:
        raise InputError(
            f"class_embeddings: expected {rows.dimension} elements as x has, got {classes.dimension}; images and texts "
            "must be embedded by one model"
        )
    bad = np.flatnonzero(~classes.judged(metric))
    if len(bad):
        raise InputError(f"class_embeddings: class {bad[0]} is zero or not finite, so nothing is similar to it")


def _ranks(uids: UidArray) -> NDArray[np.int64]:
    """(n,) place of each row by uid."""
    order = np.arange(len(uids), dtype=np.uint64)
    sort_uids(uids.copy(), order)
    ranks = np.empty(len(uids), np.int64)
    ranks[order.astype(np.int64)] = np.arange(len(uids))
    return ranks


def _nearest_classes(
    rows: Rows,
    classes: Rows,
    rank_by: RankBy,
    scale: float,
    metric: Metric,
    threads: int | None,
    device: str | None,
) -> Iterator[tuple[int, Labels, NDArray[np.float32], NDArray[np.int64]]]:
    """Blocks of rows: the first row, nearest classes (-1: unjudged), their scores, unjudged rows of the block."""
    for start, block in rows.blocks():
        part, others = same_element(block, classes, threads)
        found = nearest(part.values, 1, others.values, metric, threads=threads, dtype=part.dtype, device=device)
        scores = found.similarities[:, 0]
        if rank_by == "probability":
            sums = log_sum_exp(
                part.values, others.values, scale, metric, threads=threads, dtype=part.dtype, device=device
            ).rows
            scores = np.exp(scale * scores.astype(np.float64) - sums).astype(np.float32)
        yield start, found.indices[:, 0].astype(np.int32), scores, found.unjudged


class BestRows:
    """The k best rows of each class among those offered so far, and at most k of each are held.

    Attributes
    ----------
    keys
        (m,) what rows were offered with: numbers or uids, by which ties break, the lower is better.
    labels, scores
        (m,) their classes, rising, and scores, falling in each class.
    """

    def __init__(self, n_classes: int, k: int | None) -> None:
        self._n_classes, self._k = n_classes, k
        self.keys: NDArray[Any] = np.empty(0, np.int64)
        self.labels: Labels = np.empty(0, np.int32)
        self.scores: NDArray[np.float32] = np.empty(0, np.float32)
        self._floor = np.full(n_classes, -np.inf, np.float32)  # of a class with k rows: its lowest score

    def offer(self, keys: NDArray[Any], labels: Labels, scores: NDArray[np.float32]) -> None:
        """Some more rows: (m,) keys, classes and scores."""
        good = scores >= self._floor[labels]
        keys = np.concatenate([self.keys, keys[good]]) if len(self.keys) else keys[good]
        labels, scores = np.concatenate([self.labels, labels[good]]), np.concatenate([self.scores, scores[good]])
        tie = (keys["f1"], keys["f0"]) if keys.dtype == UID_DTYPE else (keys,)
        order = np.lexsort((*tie, -scores, labels))
        starts = np.searchsorted(labels[order], np.arange(self._n_classes))
        place = np.arange(len(order)) - starts[labels[order]]
        if self._k is not None:
            last = order[place == self._k - 1]
            self._floor[labels[last]] = scores[last]
            order = order[place < self._k]
        self.keys, self.labels, self.scores = keys[order], labels[order], scores[order]


def _spilled(
    rows: Rows,
    classes: Rows,
    k: int,
    minimum: float | None,
    metric: Metric,
    uids: UidArray | None,
    threads: int | None,
    device: str | None,
) -> PseudoLabels:
    """Each class asks its most similar rows in turn; a row stays with the most similar class that asks it.

    Both sides rank by the same similarities, so there is one outcome in which nobody would rather change (Gale and
    Shapley), whoever asks first. A class that has asked all rows it knows looks up twice as many.
    """
    judged = rows.judged(metric, threads)
    usable = np.flatnonzero(judged)
    if uids is not None:
        order = np.arange(len(rows), dtype=np.uint64)
        sort_uids(uids.copy(), order)
        usable = order.astype(np.int64)[judged[order.astype(np.int64)]]
    whole = len(usable) == len(rows) and uids is None
    taken = rows if whole else rows.take(usable)
    offers = _Offers(len(usable), len(classes), k)
    width, looking = min(2 * k, len(usable)), np.arange(len(classes))
    more = np.ones(len(classes), bool)  # there may be rows that a class has not looked up
    while len(looking):
        found, near = exact_nearest(classes.take(looking), taken, width, metric, threads=threads, device=device)
        known = near >= (-np.inf if minimum is None else np.float32(minimum))
        for place, c in enumerate(looking.tolist()):
            offers.rows[c], offers.scores[c] = found[place][known[place]], near[place][known[place]]
            more[c] = len(offers.rows[c]) == width < len(usable)
        offers.settle()
        known_rows = np.array([len(listed) for listed in offers.rows])
        looking = np.flatnonzero(offers.waiting & more & (offers.asked == known_rows))
        width = min(2 * int(known_rows[looking].max(initial=0)), len(usable))
    labels, scores = np.full(len(rows), -1, np.int32), np.full(len(rows), np.nan, np.float32)
    held = offers.holder >= 0
    labels[usable[held]], scores[usable[held]] = offers.holder[held], offers.score[held]
    return PseudoLabels(labels, scores, len(classes), np.flatnonzero(offers.held < k), np.flatnonzero(~judged))


class _Offers:
    """Who holds which row while classes ask."""

    def __init__(self, rows: int, n_classes: int, k: int) -> None:
        self.k = k
        self.holder = np.full(rows, -1, np.int32)
        self.score = np.full(rows, -np.inf, np.float32)
        self.asked = np.zeros(n_classes, np.int64)  # rows of its list that a class has asked
        self.rows = [np.empty(0, np.int64)] * n_classes
        self.scores = [np.empty(0, np.float32)] * n_classes

    @property
    def held(self) -> NDArray[np.int64]:
        """(n_classes,) rows that each class holds."""
        return np.bincount(self.holder[self.holder >= 0], minlength=len(self.asked))

    @property
    def waiting(self) -> NDArray[np.bool_]:
        """(n_classes,) classes with less than k rows."""
        return self.held < self.k

    def settle(self) -> None:
        """Let classes ask until each has k rows or has asked all that it knows."""
        while True:
            missing = self.k - self.held
            parts = []
            for c in np.flatnonzero(missing > 0).tolist():
                part = slice(int(self.asked[c]), int(self.asked[c] + missing[c]))
                rows = self.rows[c][part]
                self.asked[c] += len(rows)
                if len(rows):
                    parts.append((rows, np.full(len(rows), c, np.int32), self.scores[c][part]))
            if not parts:
                return
            rows, asking, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            order = np.lexsort((asking, -scores, rows))
            first = np.ones(len(order), bool)
            first[1:] = rows[order[1:]] != rows[order[:-1]]
            best = order[first]
            rows, asking, scores = rows[best], asking[best], scores[best]
            now = self.score[rows]
            better = (scores > now) | ((scores == now) & (asking < self.holder[rows]))
            self.holder[rows[better]], self.score[rows[better]] = asking[better], scores[better]
