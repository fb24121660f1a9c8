from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycurate.errors import MissingDependencyError, RecipeError
from pycurate.steps import SubsetStep
from pycurate.types import UID_DTYPE


def _file(folder: Path, name: str, numbers: list[int]) -> str:
    uids = np.zeros(len(numbers), UID_DTYPE)
    uids["f1"] = sorted(numbers)
    np.save(folder / name, uids)
    return str(folder / name)


def test_keep_intersects_and_drop_takes_away(curate, block, tmp_path: Path) -> None:
    keep = [_file(tmp_path, "k1.npy", [1, 2, 3, 4, 4, 9]), _file(tmp_path, "k2.npy", [2, 3, 4, 5])]
    drop = [_file(tmp_path, "d.npy", [3, 1])]
    rows = [block("a", uids=np.array([5, 4, 3])), block("b", uids=np.array([2, 1, 9]))]
    made = curate([SubsetStep(keep=keep, drop=drop)], *rows)
    assert made.reason["a"].tolist() == ["subset.keep_1", None, "subset.drop"]
    assert made.reason["b"].tolist() == [None, "subset.keep_2", "subset.keep_2"]


def test_one_path_may_stand_alone(curate, block, tmp_path: Path) -> None:
    drop = _file(tmp_path, "d.npy", [0])
    assert SubsetStep(drop=drop) == SubsetStep(drop=[drop]) == SubsetStep(drop=Path(drop))
    made = curate([SubsetStep(drop=drop)], block(uids=np.array([0, 1])))
    assert made.keep["a"].tolist() == [False, True]


def test_an_empty_file_keeps_nothing(curate, block, tmp_path: Path) -> None:
    made = curate([SubsetStep(keep=_file(tmp_path, "k.npy", []))], block(uids=np.array([0, 1])))
    assert not made.keep["a"].any()


def test_other_contents_under_the_same_path_are_another_fit(tmp_path: Path) -> None:
    step = SubsetStep(keep=_file(tmp_path, "k.npy", [1]))
    before = step.fit_parameters()
    _file(tmp_path, "k.npy", [2])
    assert step.fit_parameters() != before


def test_a_missing_file_and_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"subset: there is no file or folder .*none\.npy"):
        SubsetStep(keep=str(tmp_path / "none.npy")).check_files()
    with pytest.raises(RecipeError, match="subset: expected keep, drop or both"):
        SubsetStep()
