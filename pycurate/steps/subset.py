"""``subset``: intersect with, or take away, rows listed in uid files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import field_validator, model_validator

from pycurate.io.subset import Subset
from pycurate.kernels.uid import find
from pycurate.pipeline.step import Artefact, FitView, Needs
from pycurate.steps.base import DecidingStep
from pycurate.steps.files import existing_path, file_fingerprint, file_version
from pycurate.types import Rule, ScoreArray, UidArray, Verdict


class SubsetStep(DecidingStep):
    """Keep rows that are in all files of ``keep`` and in none of ``drop``; at least one file is needed.

    Files are DataComp subset files: ``.npy`` of ``u8,u8``, sorted. They are looked up as memory maps; repeats do not
    matter. Their contents belong to the recipe: another file under the same path is another recipe.

    Attributes
    ----------
    keep, drop
        One path or several.
    """

    kind: ClassVar[str] = "subset"
    fits: ClassVar[bool] = True

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    @field_validator("keep", "drop", mode="before")
    @classmethod
    def _one_or_several(cls, paths: Any) -> Any:
        paths = [paths] if isinstance(paths, str | Path) else paths
        return [str(path) if isinstance(path, Path) else path for path in paths] if isinstance(paths, list) else paths

    @model_validator(mode="after")
    def _some_file(self) -> Self:
        if not self.keep and not self.drop:
            raise ValueError("expected keep, drop or both, each a path or a list of paths")
        return self

    def check_files(self) -> None:
        for path in (*self.keep, *self.drop):
            existing_path(path, "subset")

    def decide_needs(self) -> Needs:
        return Needs(uids=True)

    def fit_parameters(self) -> dict[str, Any]:
        return {
            "keep": [file_fingerprint(path, "subset: keep") for path in self.keep],
            "drop": [file_fingerprint(path, "subset: drop") for path in self.drop],
        }

    def fit(self, view: FitView) -> Artefact:
        """Rows of each file, after a look at whether it is sorted; ties the decisions to the files' contents."""
        return {"rows": [len(_uids_of(path)) for path in (*self.keep, *self.drop)]}

    def rules(self, artefact: Artefact) -> list[Rule]:
        kept = [Rule(f"{self.title}.keep", f"in {Path(path).name}") for path in self.keep]
        dropped = [Rule(f"{self.title}.drop", f"not in {Path(path).name}") for path in self.drop]
        return [*_numbered(kept), *_numbered(dropped)]

    def decide(
        self, shard: str, columns: Mapping[str, ScoreArray], uids: UidArray | None, artefact: Artefact
    ) -> Verdict:
        assert uids is not None
        code = np.zeros(len(uids), np.uint8)
        for number, path in enumerate((*self.keep, *self.drop), start=1):
            listed = find(_uids_of(path), np.ascontiguousarray(uids)) >= 0
            out = ~listed if number <= len(self.keep) else listed
            code[out & (code == 0)] = number
        return Verdict(code, np.full(len(uids), np.nan))


def _numbered(rules: list[Rule]) -> list[Rule]:
    if len(rules) < 2:
        return rules
    return [Rule(f"{rule.name}_{number}", rule.description) for number, rule in enumerate(rules, start=1)]


def _uids_of(path: str) -> UidArray:
    return _open(*file_version(path, "subset"))


@cache
def _open(path: Path, size_bytes: int, modified_ns: int) -> UidArray:
    uids: UidArray = Subset.load(path).uids
    return uids
