from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.selection.radix_select import RadixSelect, Ties, TopCut, fraction_count
from pycurate.types import UID_DTYPE, UidArray

Shard = tuple[NDArray[Any], UidArray, NDArray[np.bool_]]


def split(values: NDArray[Any], uids: UidArray, mask: NDArray[np.bool_], parts: int) -> list[Shard]:
    return list(zip(*(np.array_split(x, parts) for x in (values, uids, mask)), strict=True))


def run(n: int, ties: Ties, shards: Sequence[Shard]) -> tuple[TopCut, NDArray[np.bool_]]:
    """The driver: uids are handed over only where they are asked for; shards are counted last first."""
    select = RadixSelect(n, ties, shards[0][0].dtype)
    passes = 0
    while not select.done:
        counts = [select.count(v, u if select.needs_uids else None, m) for v, u, m in reversed(shards)]
        select.advance(np.sum(counts, axis=0))
        passes += 1
    assert passes <= 12
    cut = TopCut.from_dict(json.loads(json.dumps(select.cut.to_dict(), allow_nan=False)))
    assert cut == select.cut
    kept, before = [], 0
    for v, u, m in shards:
        kept.append(cut.keep(v, u if cut.needs_uids else None, m, before))
        before += cut.duplicates(v, u, m)
    return cut, np.concatenate(kept)


def expected_exact(n: int, values: NDArray[Any], uids: UidArray, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Best value first, then smallest uid, then first row."""
    rows = [i for i in range(len(values)) if mask[i] and not np.isnan(values[i])]
    rows.sort(key=lambda i: (-float(values[i]), uids[i].item(), i))
    kept = np.zeros(len(values), np.bool_)
    kept[rows[:n]] = True
    return kept


def expected_datacomp(n: int, values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    competing = values[mask & ~np.isnan(values)]
    if n >= len(competing):
        return mask & ~np.isnan(values)
    return mask & (values >= -np.sort(-competing)[n])


def pool(n: int, dtype: type, levels: int, uid_levels: int, seed: int = 0) -> Shard:
    """Few levels: many ties. Few uid levels: one uid several times."""
    rng = np.random.default_rng(seed)
    choice = np.concatenate([[0.0, -0.0, np.inf, -np.inf, np.nan], rng.normal(0.2, 0.1, levels)]).astype(dtype)
    words = rng.integers(0, uid_levels, (n, 2), dtype=np.uint64) << np.uint64(16)
    return rng.choice(choice, n), words.reshape(-1).view(UID_DTYPE), rng.random(n) < 0.8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("levels", "uid_levels"), [(500, 2**40), (3, 2**40), (3, 3), (1, 1)])
@pytest.mark.parametrize("parts", [1, 7])
def test_the_kept_rows_are_those_of_a_full_sort(dtype: type, levels: int, uid_levels: int, parts: int) -> None:
    values, uids, mask = pool(300, dtype, levels, uid_levels)
    competing = int(np.count_nonzero(mask & ~np.isnan(values)))
    for n in sorted({0, 1, 2, 37, competing // 2, competing - 1, competing, competing + 1, 10_000}):
        shards = split(values, uids, mask, parts)
        cut, kept = run(n, "exact", shards)
        assert kept.sum() == min(n, competing)
        assert cut.competed == competing
        np.testing.assert_array_equal(kept, expected_exact(n, values, uids, mask))
        cut, kept = run(n, "datacomp", shards)
        np.testing.assert_array_equal(kept, expected_datacomp(n, values, mask))
        assert not cut.needs_uids


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.25, float("nan")]), max_size=40),
    data=st.data(),
)
def test_any_values_any_uids(values: list[float], data: st.DataObject) -> None:
    column = np.array(values, np.float32)
    word = st.sampled_from([0, 1, 2**16, 2**63, 2**64 - 1])
    uids = np.array([(data.draw(word), data.draw(word)) for _ in values], UID_DTYPE)
    mask = np.array([data.draw(st.booleans()) for _ in values], np.bool_)
    n = data.draw(st.integers(0, len(values) + 1))
    shards = split(column, uids, mask, data.draw(st.integers(1, 4)))
    np.testing.assert_array_equal(run(n, "exact", shards)[1], expected_exact(n, column, uids, mask))
    np.testing.assert_array_equal(run(n, "datacomp", shards)[1], expected_datacomp(n, column, mask))


def test_the_threshold_is_the_smallest_kept_value() -> None:
    values, uids, mask = pool(1000, np.float32, 600, 2**40, seed=3)
    for ties in ("exact", "datacomp"):
        cut, kept = run(300, ties, split(values, uids, mask, 3))
        assert cut.threshold == values[kept].min()
        assert np.float32(cut.threshold) in values


@pytest.mark.parametrize("values", [[], [np.nan] * 5, [1.0, 2.0]])
def test_nothing_competes(values: list[float]) -> None:
    column, uids = np.array(values, np.float32), np.zeros(len(values), UID_DTYPE)
    mask = np.zeros(len(values), np.bool_)
    for n in (0, 3):
        for ties in ("exact", "datacomp"):
            cut, kept = run(n, ties, [(column, uids, mask)])
            assert (cut.threshold, cut.competed, kept.any()) == (None, 0, False)


def test_without_ties_two_passes_over_float32_and_four_over_float64() -> None:
    for dtype, passes in ((np.float32, 2), (np.float64, 4)):
        values = np.random.default_rng(0).permutation(np.arange(5000)).astype(dtype)
        select = RadixSelect(700, "exact", np.dtype(dtype))
        for _ in range(passes):
            assert not select.done
            select.advance(select.count(values))
        assert select.cut.threshold == 4300
        assert select.cut.keep(values).sum() == 700


def test_the_state_travels_to_worker_processes() -> None:
    values, uids, mask = pool(500, np.float32, 3, 2**40)
    select = RadixSelect(100, "exact", values.dtype)
    while not select.done:
        elsewhere = pickle.loads(pickle.dumps(select))
        assert len(pickle.dumps(elsewhere)) < 1000
        select.advance(elsewhere.count(values, uids, mask))
    np.testing.assert_array_equal(select.cut.keep(values, uids, mask), expected_exact(100, values, uids, mask))


def test_fraction_count_is_that_of_the_public_script() -> None:
    assert fraction_count(0.3, 10) == int(10 * 0.3)
    assert fraction_count(0.29, 100) == 28  # 28.999999999999996
    assert fraction_count(1.0, 12_800_000) == 12_800_000
    with pytest.raises(InputError, match="fraction: expected a number from 0 to 1, got 30"):
        fraction_count(30, 100)


def test_wrong_use_is_named() -> None:
    with pytest.raises(InputError, match="dtype: expected float32 or float64, got int64"):
        RadixSelect(1, "exact", np.dtype(np.int64))
    with pytest.raises(InputError, match="n: expected at least 0 rows to keep, got -1"):
        RadixSelect(-1, "exact", np.dtype(np.float32))
    with pytest.raises(InputError, match="ties: expected 'exact' or 'datacomp', got 'first'"):
        RadixSelect(1, "first", np.dtype(np.float32))  # type: ignore[arg-type]
    select = RadixSelect(1, "exact", np.dtype(np.float32))
    with pytest.raises(InputError, match="values: expected dtype float32 as in the other shards, got float64"):
        select.count(np.zeros(3))
    with pytest.raises(InputError, match="cut: the selection is not done"):
        _ = select.cut
    with pytest.raises(InputError, match=r"total: expected shape \(65536,\), got \(3,\)"):
        select.advance(np.zeros(3, np.int64))
    ties = np.zeros(3, np.float32)
    select.advance(select.count(ties))
    select.advance(select.count(ties))
    with pytest.raises(InputError, match="uids: expected the uids of the rows, as several rows tie"):
        select.count(ties)
    done = RadixSelect(5, "exact", np.dtype(np.float32))
    done.advance(done.count(ties))
    with pytest.raises(InputError, match="advance: the selection is done"):
        done.advance(done.count(ties))
