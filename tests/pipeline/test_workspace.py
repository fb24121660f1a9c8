from __future__ import annotations

import contextlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from pycurate.errors import WorkspaceError
from pycurate.pipeline.workspace import Workspace, digest
from pycurate.types import UID_DTYPE

COLUMNS = {
    "uid": np.array([(1, 2), (3, 4), (5, 6)], UID_DTYPE),
    "score": np.array([0.5, np.nan, -0.0], np.float32),
    "wide": np.array([1e300, np.inf, 0.0]),
    "flags": np.array([0, 255, 3], np.uint8),
    "count": np.array([-1, 2**62, 0], np.int64),
    "language": np.array([b"en", b"", b"de"], "S8"),
}


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_columns_come_back_as_the_same_bytes(tmp_path: Path, rows: int) -> None:
    workspace = Workspace(tmp_path)
    columns = {name: values[:rows] for name, values in COLUMNS.items()}
    workspace.write_columns("step-1", "part/00001", "key", columns)
    found = workspace.read_columns("step-1", "part/00001")
    assert {name: values.dtype for name, values in found.items()} == {n: v.dtype for n, v in columns.items()}
    for name, values in columns.items():
        assert found[name].tobytes() == values.tobytes()
        assert not rows or not found[name].flags.writeable


def test_a_marker_holds_for_its_key_and_size_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert not workspace.has_columns("step-1", "a", "key")
    workspace.write_columns("step-1", "a", "key", COLUMNS)
    assert workspace.has_columns("step-1", "a", "key")
    assert not workspace.has_columns("step-1", "a", "another key")
    path = workspace.columns_path("step-1", "a")
    path.write_bytes(path.read_bytes()[:-1])
    assert not workspace.has_columns("step-1", "a", "key")


def test_columns_without_a_marker_are_not_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_columns("step-1", "a", "key", COLUMNS)
    (tmp_path / "columns" / "step-1" / "a.arrow.json").unlink()  # killed between the two files
    assert not workspace.has_columns("step-1", "a", "key")


def test_a_broken_column_file_says_what_to_do(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_columns("step-1", "a", "key", COLUMNS)
    workspace.columns_path("step-1", "a").write_bytes(b"not arrow")
    with pytest.raises(WorkspaceError, match=r"a\.arrow cannot be read .*delete it and run again"):
        workspace.read_columns("step-1", "a")


def test_artefacts_keep_values_and_arrays(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.read_artefact("fit-1") is None
    workspace.write_artefact("fit-1", {"threshold": 0.25, "keys": COLUMNS["uid"], "none": None})
    found = workspace.read_artefact("fit-1")
    assert found is not None
    assert found["threshold"] == 0.25
    assert found["none"] is None
    assert found["keys"].tolist() == COLUMNS["uid"].tolist()


def _hold(root: Path, ready: object, release: object) -> None:
    with Workspace(root).lock():
        ready.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_a_workspace_in_use_is_refused_and_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, release = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=_hold, args=(tmp_path, ready, release))
    holder.start()
    assert ready.wait(30)
    with (
        pytest.raises(WorkspaceError, match=rf"is in use by process {holder.pid} on .*; wait for that run to end"),
        Workspace(tmp_path).lock(),
    ):
        pass
    holder.kill()
    holder.join()
    with Workspace(tmp_path).lock():
        pass


def test_a_workspace_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text(json.dumps({"format": 99}))
    with (
        pytest.raises(WorkspaceError, match="workspace format 99, this version writes 1; delete the folder"),
        Workspace(tmp_path).lock(),
    ):
        pass


def test_digest_sees_every_change_and_no_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(1), digest("1"), digest([1]), digest(1.5), digest(None)}) == 5


def test_scratch_is_gone_after_it_unless_a_fit_that_resumes_was_stopped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def stopped(name: str, resumes: bool) -> list[str]:
        """What was there at the beginning; leaves a file and fails."""
        with contextlib.suppress(KeyboardInterrupt), workspace.scratch(name, resumes=resumes) as folder:
            found = sorted(path.name for path in folder.iterdir())
            (folder / "file").touch()
            raise KeyboardInterrupt
        return found

    assert stopped("a", False) == stopped("a", False) == []
    assert stopped("b", True) == []
    assert stopped("b", True) == ["file"]
    assert stopped("c", True) == []  # and b is nobody's any more
    assert stopped("b", True) == []
    with workspace.scratch("b", resumes=True) as folder:
        assert (folder / "file").exists()
    assert list(folder.parent.iterdir()) == []
