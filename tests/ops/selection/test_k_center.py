from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.kernels.rowwise import pair_similarity
from pycurate.ops.selection.k_center import k_center
from pycurate.reference import selection as reference


def similarities_of(x: np.ndarray, metric: Any) -> np.ndarray:
    return np.stack([pair_similarity(np.broadcast_to(row, x.shape), x, metric) for row in x])


def rows(n: int, d: int, dtype: Any = np.float32) -> np.ndarray:
    x = np.random.default_rng(d).normal(size=(n, d))
    x = (40 * x).astype(np.int8) if dtype == np.int8 else x.astype(dtype)
    x[40:60] = x[0]
    return x


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
@pytest.mark.parametrize("options", [{}, {"selected": [3, 5]}, {"first": 11}])
def test_it_is_the_farthest_first_traversal(metric: Any, dtype: Any, options: dict[str, Any]) -> None:
    x = rows(150, 17, dtype)
    x[7] = 0
    if dtype != np.int8:
        x[9, 0] = np.nan
    similarities = similarities_of(x, metric)
    found = k_center(x, 120 if metric == "l2" else 60, metric=metric, **options)
    centres, radii, centre = reference.k_center(
        similarities, len(found.rows), options.get("first", 0), options.get("selected", ())
    )
    assert found.rows.tolist() == centres
    np.testing.assert_array_equal(found.center, centre)
    expected = np.float64(radii)
    np.testing.assert_array_equal(found.radii, np.arccos(expected) if metric == "cosine" else np.sqrt(-expected))
    judged = ~np.isnan(np.diagonal(similarities))
    assert found.unjudged.tolist() == np.flatnonzero(~judged).tolist()
    np.testing.assert_array_equal(found.similarities[judged], similarities[judged, centre[judged]])


def test_blocks_threads_and_files_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(400, 24)
    expected = k_center(x, 50, threads=1)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr("pycurate.index.rows.BLOCK_BYTES", 5000)
    monkeypatch.setattr("pycurate.ops.selection.k_center._SCANNED_ROWS", 7)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for given in (x, mapped, [mapped[:123], mapped[123:124], mapped[124:]]):
        found = k_center(given, 50, threads=3)
        assert found.rows.tolist() == expected.rows.tolist()
        np.testing.assert_array_equal(found.center, expected.center)
        np.testing.assert_array_equal(found.radii, expected.radii)


def test_radii_fall_and_no_choice_is_twice_as_good() -> None:
    x = rows(12, 2)
    similarities = similarities_of(x, "l2")
    found = k_center(x, 3, metric="l2")
    assert (np.diff(k_center(x, 9, metric="l2").radii) <= 0).all()
    least = min(
        float(np.sqrt(-similarities[list(chosen)].max(axis=0).min())) for chosen in itertools.combinations(range(12), 3)
    )
    assert found.least_radius <= least <= found.radius


def test_every_row_a_centre_and_copies_last() -> None:
    x = rows(80, 6)
    found = k_center(x, 80)
    assert sorted(found.rows.tolist()) == list(range(80))
    copies = {0, *range(40, 60)}
    assert set(found.rows[-20:].tolist()) < copies
    assert found.rows[-20:].tolist() == sorted(found.rows[-20:].tolist())  # all at distance 0: by row
    assert found.radius == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": 0}, "k: expected a whole number of at least 1, got 0"),
        ({"k": 79}, "k: expected at most the 78 of 80 rows that can be judged and are no centre yet, got 79; lower k"),
        ({"k": 78, "selected": [1]}, "k: expected at most the 77 of 80 rows"),
        ({"metric": "inner_product"}, "metric: expected 'cosine' or 'l2', got 'inner_product'"),
        ({"first": 80}, "first: expected a row from 0 to 79, got 80"),
        ({"first": 2}, "first: row 2 cannot be judged: it is not finite, or zero for cosine"),
        ({"selected": [1, 1]}, "selected: expected every row once, but 1 are repeated"),
        ({"selected": [0.5]}, "selected: expected row numbers, got 1-D float64"),
        ({"x": []}, "x: expected at least one array, got none"),
        ({"x": [np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)]}, "x: expected rows of 3 float32 elements"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], sentence: str) -> None:
    x = rows(80, 6)
    x[2], x[4, 1] = 0, np.inf
    arguments: dict[str, Any] = {"x": x, "k": 5, **change}
    with pytest.raises(InputError if "expected '" not in sentence else ValueError, match=sentence):
        k_center(**arguments)
