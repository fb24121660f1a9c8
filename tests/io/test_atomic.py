from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from pycurate.errors import WorkspaceError
from pycurate.io.atomic import atomic_write, write_json_atomic


def test_a_file_appears_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" done")
    assert path.read_bytes() == b"half done"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_json_ends_with_a_newline_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"uid": "é", "n": [1, None]})
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(path.read_text(encoding="utf-8")) == {"uid": "é", "n": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(path, float("nan"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("writer", ["write", "tofile"])
def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    path = tmp_path / "a.bin"
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: real_open(Path("/dev/full"), "wb"))
    expected = r"cannot write .*a\.bin: (the disk is full; free some space|writing failed \(.*requested)"
    block = np.zeros(1 << 20, np.uint8)
    with pytest.raises(WorkspaceError, match=expected), atomic_write(path) as file:
        file.write(block.data) if writer == "write" else block.tofile(file)
    assert not path.exists()


def test_unwritable_places_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(WorkspaceError, match="the folder does not exist; choose another"),
        atomic_write(tmp_path / "no" / "a"),
    ):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(WorkspaceError, match="a folder of that name is in the way"), atomic_write(tmp_path / "folder"):
        pass
    assert os.listdir(tmp_path) == ["folder"]

    def read_only(self: Path, mode: str) -> object:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(WorkspaceError, match="the file system is read-only"), atomic_write(tmp_path / "a"):
        pass


def test_an_unrelated_error_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), atomic_write(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
