"""One label for each row of a file of votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pycurate.api.label_inputs import (
    PathLike,
    PoolRows,
    named_classes,
    write_manifest,
    write_page,
    write_table,
)
from pycurate.api.out import claim_out
from pycurate.errors import InputError
from pycurate.io.atomic import atomic_write
from pycurate.io.vote_files import VoteTable, read_votes
from pycurate.ops.labels.annotator_votes import (
    Majority,
    SparseVotes,
    TieRule,
    Votes,
    annotator_confusion,
    majority_vote,
    soft_average,
)
from pycurate.ops.labels.dawid_skene import dawid_skene
from pycurate.ops.labels.label_model import LabelModel
from pycurate.report.formats import format_share, format_value
from pycurate.report.labels_page import HeatMap, LabelsPage, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

AggregateMethod: TypeAlias = Literal["majority", "dawid-skene", "label-model"]

LABELS, SOFT, CONFUSION = "labels.parquet", "soft_labels.npy", "confusion.npy"
_SHOWN_ANNOTATORS = 100


@dataclass(frozen=True, slots=True, eq=False)
class AggregatedLabels:
    """What came of the votes: ``labelled`` of ``rows`` have a label, ``tied`` had no majority of their own."""

    out: Path
    method: str
    rows: int
    labelled: int
    tied: int
    annotators: int
    classes: int
    votes: int
    mean_agreement: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "out": str(self.out), "method": self.method, "rows": self.rows, "labelled": self.labelled,
            "tied": self.tied, "annotators": self.annotators, "classes": self.classes, "votes": self.votes,
            "mean_agreement": None if np.isnan(self.mean_agreement) else self.mean_agreement,
            "notes": list(self.notes),
        }  # fmt: skip

    def render(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.text import Text

        return Group(
            Text(f"{self.labelled:,} of {self.rows:,} rows labelled by {self.votes:,} votes ({self.method})"),
            Text(f"{self.tied:,} rows had a tie; the first class has {format_value(self.mean_agreement)} of the votes"),
            *[Text(note, style="yellow") for note in self.notes],
            Text(f"\nlabels   {self.out / LABELS}\npage     {self.out}/report.html"),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]
    soft: NDArray[np.float64]
    facts: dict[str, Any]
    notes: tuple[str, ...]


def aggregate_labels(
    votes: PathLike,
    out: PathLike,
    *,
    method: AggregateMethod = "dawid-skene",
    columns: Sequence[str] | None = None,
    counts: bool = False,
    num_classes: int | None = None,
    ties: TieRule = "lowest",
) -> AggregatedLabels:
    """Make one label of the votes of each row.

    Writes ``labels.parquet`` (``uid`` or ``row``, ``label``, ``confidence``, ``agreement``, ``num_votes``; all rows in
    order), which `pycurate.io.label_files.read_labels` reads; ``soft_labels.npy`` (n, K) float32, ``confusion.npy``
    (M, K, K) int64 counts of votes by label, ``manifest.json`` and ``report.html``.

    Parameters
    ----------
    votes, columns, counts
        As `pycurate.io.vote_files.read_votes`.
    out
        Folder to write.
    method
        ``majority``: `pycurate.majority_vote` with ``ties``, soft labels are shares of votes. ``dawid-skene``:
        `pycurate.dawid_skene`. ``label-model``: `pycurate.LabelModel`, the class balance taken from the majority.
    num_classes
        K. None: as many as are named or voted for.
    """
    if method not in get_args(AggregateMethod):
        raise InputError(f"method: expected {', '.join(get_args(AggregateMethod))}, got {method!r}")
    table = read_votes(votes, columns, counts=counts)
    named = len(table.class_names) if table.class_names is not None else 0
    if counts:
        given: Votes = SparseVotes.of_counts(table.votes)
    else:
        given = table.votes
    classes = (
        num_classes if num_classes is not None else named or (int(table.votes.max()) + 1 if table.votes.size else 0)
    )
    if classes < max(2, named):
        raise InputError(f"num_classes: expected at least {max(2, named)}, got {classes}")
    folder = claim_out(Path(out))
    majority = majority_vote(given, classes, ties=ties)
    answer = _answered(given, classes, method, majority)
    confusion = annotator_confusion(given, answer.labels, classes)
    names = table.class_names if table.class_names is None else _padded(table.class_names, classes)
    columns_out = {
        "label": named_classes(answer.labels, names), "confidence": answer.confidence,
        "agreement": majority.agreement, "num_votes": majority.num_votes,
    }  # fmt: skip
    write_table(folder / LABELS, PoolRows(None, table.uids), columns_out, len(answer.labels))
    for name, array in ((SOFT, answer.soft.astype(np.float32)), (CONFUSION, confusion)):
        with atomic_write(folder / name) as file:
            np.save(file, array)
    agreement = majority.agreement[~np.isnan(majority.agreement)]
    found = AggregatedLabels(
        folder, method, len(answer.labels), int((answer.labels >= 0).sum()), int(majority.tied.sum()),
        len(confusion), classes, int(majority.num_votes.sum()),
        float(agreement.mean()) if len(agreement) else float("nan"), answer.notes,
    )  # fmt: skip
    write_manifest(
        folder,
        {
            "command": "labels aggregate", "input": str(votes), "counts": counts, "columns": list(table.columns),
            "class_names": names, "ties": ties, **answer.facts,
            **{key: value for key, value in found.to_dict().items() if key != "out"},
        },
    )  # fmt: skip
    write_page(folder, _page(found, table, confusion, names, counts))
    return found


def _answered(votes: Votes, classes: int, method: AggregateMethod, majority: Majority) -> _Answer:
    shares = soft_average(votes, classes)
    if method == "majority":
        confidence = np.where(majority.labels >= 0, np.nan_to_num(majority.agreement), 0.0)
        return _Answer(majority.labels, confidence, shares, {}, ())
    if method == "dawid-skene":
        model = dawid_skene(votes, classes)
        facts = {
            "iterations": len(model.log_likelihood), "log_likelihood": model.log_likelihood[-1],
            "prior": model.prior.tolist(),
        }  # fmt: skip
        notes = () if model.converged else (f"not converged after {len(model.log_likelihood)} iterations",)
        return _Answer(model.labels, model.confidence, model.predict_proba(votes), facts, notes)
    seen = np.bincount(majority.labels[majority.labels >= 0], minlength=classes) + 1.0
    fitted = LabelModel(classes).fit(votes, seen / seen.sum())
    soft = fitted.predict_proba(votes)
    labels = fitted.predict(votes, "lowest")
    confidence = np.where(labels >= 0, soft.max(axis=1, initial=0.0), 0.0)
    weights = [None if np.isnan(w) else float(w) for w in fitted.get_weights()]
    notes = () if fitted.converged else (f"not converged after {fitted.iterations} iterations",)
    return _Answer(labels, confidence, soft, {"iterations": fitted.iterations, "weights": weights}, notes)


def _padded(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    return (*names, *(f"class {k}" for k in range(len(names), classes)))


def _page(
    found: AggregatedLabels,
    table: VoteTable,
    confusion: NDArray[np.int64],
    names: tuple[str, ...] | None,
    counts: bool,
) -> LabelsPage:
    shown = names if names is not None else tuple(str(k) for k in range(found.classes))
    tables = []
    if not counts:
        right = confusion.diagonal(axis1=1, axis2=2).sum(axis=1)
        total = confusion.sum(axis=(1, 2))
        order = np.argsort(np.divide(right, total, out=np.full(len(total), 2.0), where=total > 0), kind="stable")
        note = "Those first whose votes are least often the label."
        if len(order) > _SHOWN_ANNOTATORS:
            note += f" The first {_SHOWN_ANNOTATORS} of {len(order):,}."
        rows = tuple(
            (table.columns[m], format_share(int(right[m]), int(total[m])), f"{total[m]:,}")
            for m in order[:_SHOWN_ANNOTATORS].tolist()
        )
        tables.append(Table("Annotators", note, ("annotator", "agree with the label", "votes"), rows))
    heat = HeatMap(
        "What rows of each label were voted", "Each row of the map is one label; darker: more of its votes.",
        "label", "votes", confusion.sum(axis=0),
    )  # fmt: skip
    return LabelsPage(
        title=f"{found.labelled:,} of {found.rows:,} rows labelled",
        lead=f"By {found.votes:,} votes for {found.classes} classes, method {found.method}.",
        figures=(
            ("rows labelled", f"{found.labelled:,}"),
            ("of all rows", format_share(found.labelled, found.rows)),
            ("rows with a tie", f"{found.tied:,}"),
            ("mean share of the most voted class", format_value(found.mean_agreement)),
        ),
        notes=found.notes,
        heat_map=heat,
        class_names=shown,
        tables=tuple(tables),
    )
