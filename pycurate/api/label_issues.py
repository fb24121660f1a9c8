"""``find label issues`` of files: scores and suggestions of all rows, a manifest and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pycurate.api.label_inputs import (
    PathLike,
    PoolRows,
    named_classes,
    open_probabilities,
    warnings_as_notes,
    write_manifest,
    write_page,
    write_table,
)
from pycurate.api.out import claim_out
from pycurate.arrow import arrow_values
from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.io.atomic import atomic_write
from pycurate.io.label_files import RowLabels, read_labels
from pycurate.kernels.device import device_of
from pycurate.ops.labels.class_quality import class_quality, largest_confusions
from pycurate.ops.labels.confident_learning import RowScan, class_counts, class_thresholds, scan_rows
from pycurate.ops.labels.joint import calibrated
from pycurate.ops.labels.label_issues import FilterBy, check_filter, issue_mask
from pycurate.ops.labels.label_quality import ScoreMethod, check_method, lowest_rows, quality_scores, scan_scores
from pycurate.ops.labels.probabilities import ProbabilityBlocks, probability_blocks
from pycurate.report.formats import format_share, format_value
from pycurate.report.labels_page import HeatMap, LabelsPage, ShownNeighbor, SuspiciousRow, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

ISSUES, JOINT, SUBSET = "label_issues.parquet", "joint.npy", "subset.npy"
SHOWN_ROWS, SHOWN_NEIGHBORS, SHOWN_CONFUSIONS, SHOWN_CLASSES = 24, 8, 12, 60


@dataclass(frozen=True, slots=True, eq=False)
class LabelIssues:
    """What was found: ``issues`` of ``labelled`` of ``rows``, and the largest confusions as (given, likely, rows)."""

    out: Path
    rows: int
    labelled: int
    classes: int
    issues: int
    filter_by: str
    confusions: tuple[tuple[str, str, int], ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "out": str(self.out), "rows": self.rows, "labelled": self.labelled, "classes": self.classes,
            "issues": self.issues, "filter_by": self.filter_by, "notes": list(self.notes),
            "confusions": [{"given": a, "likely": b, "rows": n} for a, b, n in self.confusions],
        }  # fmt: skip

    def render(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False)
        for name in ("labelled", "likely"):
            table.add_column(name)
        table.add_column("rows", justify="right")
        for given, likely, rows in self.confusions:
            table.add_row(Text(given), Text(likely), f"{rows:,}")
        share = format_share(self.issues, self.labelled)
        head = Text(f"{self.issues:,} of {self.labelled:,} labelled rows ({share}) are likely labelled wrongly")
        notes = [Text(note, style="yellow") for note in self.notes]
        return Group(
            head, *notes, Text(""), table, Text(f"\nrows     {self.out / ISSUES}\npage     {self.out}/report.html")
        )


def label_issues(
    labels: PathLike,
    pred_probs: PathLike,
    out: PathLike,
    *,
    num_classes: int | None = None,
    pool: PathLike | None = None,
    layout: Any = None,
    graph: PathLike | None = None,
    filter_by: FilterBy = "prune_by_noise_rate",
    rank_by: ScoreMethod = "self_confidence",
    frac_noise: float = 1.0,
    min_examples_per_class: int = 1,
    threads: int | None = None,
    device: str | None = None,
) -> LabelIssues:
    """Find the labels of a file that are likely wrong, given class probabilities of another.

    Writes ``label_issues.parquet`` (``uid`` or ``row``, ``label``, ``suggested_label``, ``score``, ``is_issue``; all
    rows in order), ``joint.npy`` (K, K) int64, ``manifest.json`` and ``report.html``; with a pool also ``subset.npy``,
    the uids of the rows that are no issue.

    Parameters
    ----------
    labels
        ``.npy``, ``.parquet`` or ``.csv``, see `pycurate.io.label_files.read_labels`. Rows without a label are scored
        null and never found.
    pred_probs, num_classes
        Out-of-sample probabilities: see `pycurate.api.label_inputs.open_probabilities`.
    out
        Folder to write.
    pool
        The rows' pool: its uids match labels and name rows, its captions and pictures are shown.
    graph
        Folder of a `KnnGraph` of the rows, whose neighbours are shown beside suspicious rows.
    filter_by, frac_noise, min_examples_per_class
        As in `pycurate.find_label_issues`.
    rank_by
        The score, as in `pycurate.get_label_quality_scores`.
    threads, device
        None: every processor; the CPU, to which ``"auto"`` leaves a file's probabilities.
    """
    device_of(device)
    check_filter(filter_by, frac_noise, None, None)
    check_method(rank_by, False)
    rows = PoolRows.of(pool, layout)
    given = read_labels(labels, rows.uids)
    probabilities = open_probabilities(pred_probs, num_classes)
    neighbors = _graph_of(graph, len(given.labels))
    folder = claim_out(Path(out))
    with warnings_as_notes() as notes:
        blocks = probability_blocks(probabilities, given.labels, unlabelled=True, device=device)
        thresholds = class_thresholds(blocks, threads)
        scan = scan_rows(blocks, thresholds, threads)
        mask = issue_mask(
            blocks, scan, filter_by, frac_noise=frac_noise, min_examples_per_class=min_examples_per_class,
            threads=threads,
        )  # fmt: skip
        scores = _scores(blocks, scan, rank_by, threads)
    joint = np.ascontiguousarray(calibrated(scan.joint, class_counts(blocks)))
    names = _class_names(given, blocks.num_classes)
    stored_names = None if given.class_names is None else names
    _write_rows(folder, rows, scan, stored_names, scores, mask)
    rows.save_subset(folder / SUBSET, ~mask)
    with atomic_write(folder / JOINT) as file:
        np.save(file, joint)
    found = LabelIssues(
        folder, len(mask), int((blocks.labels >= 0).sum()), blocks.num_classes, int(mask.sum()), filter_by,
        tuple((names[c.given], names[c.likely], c.rows) for c in largest_confusions(joint, SHOWN_CONFUSIONS)),
        tuple(notes),
    )  # fmt: skip
    facts = {
        "command": "labels issues", "labels": str(labels), "pred_probs": str(pred_probs), "pool": _text(pool),
        "graph": _text(graph), "rank_by": rank_by, "frac_noise": frac_noise,
        "min_examples_per_class": min_examples_per_class, "class_names": stored_names,
        "thresholds": [round(float(t), 12) for t in thresholds],
    }  # fmt: skip
    write_manifest(folder, facts | {key: value for key, value in found.to_dict().items() if key != "out"})
    shown = _suspicious(blocks, scan, np.where(mask, scores, np.nan), names, rows, neighbors)
    write_page(folder, _page(found, joint, names, shown, rank_by))
    return found


def _text(path: PathLike | None) -> str | None:
    return None if path is None else str(path)


def _graph_of(graph: PathLike | None, rows: int) -> KnnGraph | None:
    if graph is None:
        return None
    opened = KnnGraph.open(graph)
    if len(opened) != rows:
        raise InputError(f"graph: expected {rows} rows, as there are labels, got {len(opened)}")
    return opened


def _scores(blocks: ProbabilityBlocks, scan: RowScan, method: ScoreMethod, threads: int | None) -> NDArray[np.float64]:
    """Those that the scan has, or by another pass."""
    if method == "confidence_weighted_entropy":
        return quality_scores(blocks, method, threads=threads)
    return scan_scores(scan, method)


def _write_rows(
    folder: Path,
    rows: PoolRows,
    scan: RowScan,
    names: tuple[str, ...] | None,
    scores: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> None:
    columns = {
        "label": named_classes(scan.labels, names),
        "suggested_label": named_classes(scan.predicted, names),
        "score": arrow_values(scores, ~np.isnan(scores)),
        "is_issue": mask,
    }
    write_table(folder / ISSUES, rows, columns, len(mask))


def _class_names(given: RowLabels, classes: int) -> tuple[str, ...]:
    if given.class_names is None:
        return tuple(str(k) for k in range(classes))
    if len(given.class_names) != classes:
        raise InputError(
            f"labels: the file names {len(given.class_names)} classes, but pred_probs has {classes} columns, which "
            "must be the sorted names; give class ids where some class has no label"
        )
    return given.class_names


def _suspicious(
    blocks: ProbabilityBlocks,
    scan: RowScan,
    scores: NDArray[np.float64],
    names: tuple[str, ...],
    rows: PoolRows,
    graph: KnnGraph | None,
) -> tuple[SuspiciousRow, ...]:
    worst = lowest_rows(scores, SHOWN_ROWS).tolist()
    told = rows.shown(worst)
    shown = []
    for row in worst:
        near: list[ShownNeighbor] = []
        if graph is not None:
            for other, similarity in zip(*graph.neighbors(row), strict=True):
                if int(other) != row and len(near) < SHOWN_NEIGHBORS:
                    known = int(blocks.labels[int(other)])
                    near.append(ShownNeighbor(names[known] if known >= 0 else None, float(similarity)))
        label, suggested = names[int(blocks.labels[row])], names[int(scan.predicted[row])]
        shown.append(SuspiciousRow(told[row], label, suggested, float(scores[row]), tuple(near)))
    return tuple(shown)


def _page(
    found: LabelIssues,
    joint: NDArray[np.int64],
    names: tuple[str, ...],
    shown: tuple[SuspiciousRow, ...],
    rank_by: str,
) -> LabelsPage:
    quality = class_quality(joint)
    order = np.argsort(np.where(np.isnan(quality.quality), np.inf, quality.quality), kind="stable")
    worst = [k for k in order.tolist() if quality.given[k]]
    note = "Worst first. Quality is the share of a class's labels that are likely right."
    if len(worst) > SHOWN_CLASSES:
        note += f" The {SHOWN_CLASSES} worst of {len(worst):,}."
    classes = Table(
        "Classes", note, ("class", "quality", "labelled", "likely", "wrong labels", "labels missing"),
        tuple(
            (
                names[k], format_value(quality.quality[k]), f"{quality.given[k]:,}", f"{quality.true[k]:,}",
                f"{quality.given[k] - joint[k, k]:,}", f"{quality.true[k] - joint[k, k]:,}",
            )
            for k in worst[:SHOWN_CLASSES]
        ),
    )  # fmt: skip
    confusions = Table(
        "Largest confusions", "Rows, as the calibrated joint counts them.", ("labelled, and likely", "rows"),
        tuple((f"{given} → {likely}", f"{rows:,}") for given, likely, rows in found.confusions),
    )  # fmt: skip
    unlabelled = found.rows - found.labelled
    heat = HeatMap(
        "What rows of each label likely are", "Each row of the map is one label; darker is a larger share of its rows.",
        "labelled", "likely", joint,
    )  # fmt: skip
    return LabelsPage(
        title=f"{found.issues:,} of {found.labelled:,} labels are likely wrong",
        lead=f"Confident learning, filter {found.filter_by}.",
        figures=(
            ("label issues", f"{found.issues:,}"),
            ("of labelled rows", format_share(found.issues, found.labelled)),
            ("labelled rows", f"{found.labelled:,}"),
            ("classes", f"{found.classes:,}"),
            *((("rows without label", f"{unlabelled:,}"),) if unlabelled else ()),
        ),
        notes=found.notes,
        heat_map=heat,
        class_names=names,
        tables=(confusions, classes),
        rows=shown,
        rows_note=f"Of the label issues those of lowest {rank_by.replace('_', ' ')}: the label, and what it likely is.",
    )
