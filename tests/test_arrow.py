from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pycurate.arrow import arrow_texts, arrow_values, numpy_floats, numpy_values, text_buffers

NUMBERS = [pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 5), slice(2, 5)])
def test_numbers_come_as_they_are(kind: pa.DataType, part: slice) -> None:
    values = np.array([0, 1, 2, 100, 7], kind.to_pandas_dtype())
    array = pa.array(values)[part.start : part.stop]
    np.testing.assert_array_equal(numpy_values(array), values[part])
    assert numpy_values(array).dtype == values.dtype


@pytest.mark.parametrize("kind", [*NUMBERS, pa.bool_()], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_null_becomes_nan(kind: pa.DataType, dtype: type) -> None:
    array = pa.array([1, None, 0, 1], pa.int8()).cast(kind)[1:]
    found = numpy_floats(array, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [np.nan, 0, 1])
    assert np.isnan(numpy_floats(pa.nulls(2), dtype)).all()


def test_truth_values_and_a_stand_in_for_null() -> None:
    array = pa.array([True, False, None, True])
    np.testing.assert_array_equal(numpy_values(array[:2]), [True, False])
    assert numpy_values(array[:2]).dtype == np.bool_
    np.testing.assert_array_equal(numpy_values(array, missing=2), [1, 0, 2, 1])


@pytest.mark.parametrize(
    "values", [np.array([1.5, -2.5, 3.0]), np.array([1, 2, 3], np.int16), np.array([True, False, True])]
)
def test_arrays_come_back(values: np.ndarray) -> None:
    assert arrow_values(values).to_pylist() == values.tolist()
    assert arrow_values(values, np.array([True, False, True])).to_pylist() == [
        values.tolist()[0],
        None,
        values.tolist()[2],
    ]
    assert arrow_values(values[::2]).to_pylist() == values[::2].tolist()


@pytest.mark.parametrize("texts", [[], ["a", "", "é中😀"], ["a", None, "b"], [None]])
def test_texts_come_back(texts: list[str | None]) -> None:
    assert arrow_texts(texts).to_pylist() == texts


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_text_buffers_are_those_of_the_part(kind: pa.DataType) -> None:
    array = pa.array(["skipped", "one", None, "", "two"], kind)[1:]
    data, offsets = text_buffers(array)
    parts = [bytes(data[offsets[i] : offsets[i + 1]]).decode() for i in range(len(array))]
    assert [parts[0], parts[2], parts[3]] == ["one", "", "two"]
    data, offsets = text_buffers(array[:0])
    assert offsets.tolist() in ([0], [7])


def test_a_run_never_imports_pandas(tmp_path: Path, pool_factory: Any) -> None:
    pool = pool_factory.datacomp(tmp_path / "pool", shards=1, rows=50)
    (tmp_path / "recipe.yaml").write_text(
        "name: r\nsteps:\n  - clip_score: {embeddings: l14, as: clip}\n  - caption_rules: {min_words: 2}\n"
        "  - image_rules: {min_side: 100}\n  - filter: \"url like '%jpg'\"\n"
        "  - frequency: {key: caption, max_rows: 9}\n"
        "  - top_fraction: {score: clip, fraction: 0.5}\n"
    )
    script = (
        "import sys, pycurate\n"
        "pycurate.run(sys.argv[1], sys.argv[2], sys.argv[3], processes=False)\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules, 'pandas was imported'\n"
    )
    arguments = [sys.executable, "-c", script, tmp_path / "recipe.yaml", pool, tmp_path / "out"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
