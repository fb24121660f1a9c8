"""The stored result of a search for duplicates: a folder of .npy files that ``store.json`` describes.

``store.json`` is written last and removed first, so that a folder that has one is whole.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, WorkspaceError
from pycurate.io.atomic import write_json_atomic
from pycurate.pipeline.block_join.source import open_array
from pycurate.pipeline.block_join.task_folder import TaskFolder

FORMAT = 1
FACTS = "store.json"


class DuplicateFolder:
    """The files below ``root``; who writes holds the lock of the folder above."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def facts(self) -> dict[str, Any] | None:
        """What ``store.json`` says, None where the folder is not whole.

        Raises
        ------
        WorkspaceError
            It was written in a format that this version does not read, or an array is missing or cut short.
        """
        try:
            facts = json.loads((self.root / FACTS).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise WorkspaceError(f"{self.root / FACTS} cannot be read ({error}); delete it and run again") from error
        if facts.get("format") != FORMAT:
            raise WorkspaceError(
                f"{self.root} has format {facts.get('format')}, this version reads {FORMAT}; run into another folder"
            )
        for name, entry in facts["arrays"].items():
            path = self._path(name)
            if not path.exists() or path.stat().st_size != entry["bytes"]:
                raise WorkspaceError(f"{path} is missing or was cut short; delete {self.root} and run again")
        return dict(facts)

    def require_facts(self) -> dict[str, Any]:
        """What ``store.json`` says.

        Raises
        ------
        InputError
            The folder is no such result, or not a finished one.
        """
        facts = self.facts()
        if facts is None:
            raise InputError(
                f"{self.root} holds no finished search for duplicates; give the folder that pycurate dedup wrote, or "
                "run it again to finish"
            )
        return facts

    def array(self, name: str) -> NDArray[Any]:
        """One array, memory-mapped and read-only."""
        return open_array(self._path(name))

    def forget(self) -> None:
        """Before anything is written: the folder is not whole."""
        (self.root / FACTS).unlink(missing_ok=True)

    def write(self, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace all that the folder holds."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.forget()
        files = TaskFolder(self.root, {})
        entries = {}
        for name, array in arrays.items():
            path = self._path(name)
            files.write_file(path, array.nbytes, functools.partial(_write_array, array))
            entries[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "bytes": path.stat().st_size}
        for path in self.root.glob("*.npy"):
            if path.stem not in entries:
                path.unlink()
        write_json_atomic(self.root / FACTS, {"format": FORMAT, **facts, "arrays": entries})

    def _path(self, name: str) -> Path:
        return self.root / f"{name}.npy"


def _write_array(array: NDArray[Any], file: BinaryIO) -> None:
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
