from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from pycurate.report.labels_page import (
    HeatMap,
    LabelsPage,
    ShownNeighbor,
    SuspiciousRow,
    Table,
    render_labels,
    shown_classes,
)
from pycurate.report.manifest import ExampleRow

HOSTILE = '<script>alert("1")</script>'


def page_of(classes: int, names: tuple[str, ...] | None = None) -> str:
    counts = np.random.default_rng(0).integers(0, 3, (classes, classes)) + 50 * np.eye(classes, dtype=np.int64)
    row = ExampleRow(uid="0" * 32, shard="", row=3, value=None, caption=HOSTILE, url="https://example.org/" + HOSTILE)
    return render_labels(
        LabelsPage(
            title=HOSTILE,
            lead="lead",
            figures=(("label issues", "3"),),
            notes=(HOSTILE,),
            heat_map=HeatMap("heat", "note.", "labelled", "likely", counts),
            class_names=names or tuple(f"class {k}" for k in range(classes)),
            tables=(Table("Classes", "", ("class", "rows"), ((HOSTILE, "5"),)),),
            rows=(SuspiciousRow(row, HOSTILE, "dog", 0.25, (ShownNeighbor(None, 0.5), ShownNeighbor(HOSTILE, 1.0))),),
        )
    )


@pytest.mark.parametrize("classes", [0, 1, 2, 12, 13, 30, 31, 400])
def test_a_page_is_whole_and_everything_is_escaped(classes: int) -> None:
    html = page_of(classes, tuple([HOSTILE] * classes) if classes < 30 else None)
    assert "<script" not in html
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        drawn = ElementTree.fromstring(svg)
        assert len(drawn.findall("g")) == min(classes, 30) ** 2
    assert ("Of 400 classes those 30" in html) == (classes == 400)
    assert "0.25" in html
    assert "no label (0.5)" in html


def test_classes_of_a_large_map_are_those_with_most_rows_off_the_diagonal() -> None:
    counts = 100 * np.eye(40, dtype=np.int64)
    counts[np.arange(5, 35), 39] = np.arange(1, 31)
    assert shown_classes(counts).tolist() == [*range(6, 35), 39]
    assert shown_classes(np.eye(3, dtype=np.int64)).tolist() == [0, 1, 2]


def test_numbers_stand_in_the_cells_of_few_classes_only() -> None:
    assert page_of(12).count("font-size: 9px") > 12
    assert "font-size: 9px" not in page_of(13)
