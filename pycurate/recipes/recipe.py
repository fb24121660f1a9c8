"""The Recipe model: a named list of steps, the same thing from YAML and from Python."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationError, field_validator

from pycurate.errors import InputError, RecipeError
from pycurate.pipeline.scan import UID_COLUMN
from pycurate.pipeline.step import Step
from pycurate.pipeline.workspace import digest
from pycurate.steps import RecipeStep, make_step
from pycurate.steps.base import sentence, suggestion

if TYPE_CHECKING:
    from pycurate.io.pool import Pool


class Recipe(BaseModel):
    """What is kept of a pool: steps asked in order; the first rule that drops a row is its reason.

    Attributes
    ----------
    name, description
        For people.
    steps
        Steps, or their YAML form: mappings of one key, ``{"threshold": {"score": "clip_l14", "minimum": 0.28}}``. Each
        gets a unique name, its kind with a number from the second on, unless it has one.

    Raises
    ------
    RecipeError
        A key, value or reference is wrong; says which step, what was expected and what was probably meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    description: str = ""
    steps: tuple[SerializeAsAny[Step], ...] = ()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(sentence("recipe", error, list(type(self).model_fields))) from None

    @field_validator("steps", mode="before")
    @classmethod
    def _place_steps(cls, steps: Any) -> tuple[Step, ...]:
        if not isinstance(steps, Sequence) or isinstance(steps, str):
            raise ValueError(f"expected a list of steps, got {steps!r}")
        made = [step if isinstance(step, Step) else _step_of(step, place) for place, step in enumerate(steps, 1)]
        placed: list[Step] = []
        earlier: dict[str, str] = {}  # score column -> step that makes it
        for step, name in zip(made, _unique_names(made), strict=True):
            known = frozenset(earlier)
            bound = step.bind(name, known) if isinstance(step, RecipeStep) else step.model_copy(update={"name": name})
            for column in bound.produces():
                if column in earlier or column == UID_COLUMN:
                    owner = f"step {earlier[column]!r}" if column in earlier else "the pipeline"
                    raise ValueError(f"step {name!r} makes score {column!r}, which {owner} makes too; rename one")
                earlier[column] = name
            placed.append(bound)
        _check_order(placed, earlier)
        return tuple(placed)

    @classmethod
    def load(cls, source: str | os.PathLike[str], **parameters: Any) -> Recipe:
        """A preset by its name, or a recipe from a YAML file.

        Parameters
        ----------
        source
            Name of a preset (``pycurate.recipes.preset_descriptions``) or path of a YAML file.
        parameters
            What the preset asks for, such as ``fasttext_model="lid.176.bin"``; a YAML file takes none.
        """
        from pycurate.recipes.presets import build_preset, preset_descriptions

        built = build_preset(os.fspath(source), parameters)
        if built is not None:
            return built
        path = Path(source)
        if not path.is_file():
            guess = suggestion(str(source), list(preset_descriptions()))
            raise RecipeError(f"recipe: there is no preset and no file {str(source)!r}{guess}")
        if parameters:
            raise RecipeError(f"recipe: only presets take parameters, and {path} is a file; got {sorted(parameters)}")
        try:
            return cls.from_yaml(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: expected UTF-8 text ({error})") from error
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """A recipe from its YAML text."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"recipe: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise RecipeError(f"recipe: expected the keys name, description and steps, got {type(values).__name__}")
        wrong = [key for key in values if not isinstance(key, str)]
        if wrong:
            raise RecipeError(f"recipe: expected keys of text, got {wrong[0]!r}")
        return cls(**values)

    def to_yaml(self) -> str:
        """The recipe as YAML; ``Recipe.from_yaml`` of it gives an equal recipe."""
        values = {"name": self.name, "description": self.description, "steps": [_plain(step) for step in self.steps]}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)

    @property
    def key(self) -> str:
        """Changes whenever the rows kept from the same pool may: parameters, files they name, code versions."""
        return digest(
            [
                (step.kind, step.version, _plain(step), step.score_parameters(), step.fit_parameters())
                for step in self.steps
            ]
        )

    @property
    def uses_processes(self) -> bool:
        """True when worker processes pay, as a step runs Python for every row, and all steps can be sent to them."""
        if any(step.stays_in_process for step in self.steps):
            return False
        return any(step.python_bound for step in self.steps)

    def needed(self) -> tuple[list[str], list[str]]:
        """Columns and embeddings that the steps read from the pool, by the names the steps use."""
        columns: dict[str, None] = {}
        embeddings: dict[str, None] = {}
        for step in self.steps:
            columns |= dict.fromkeys((*step.score_needs().columns, *step.decide_needs().columns))
            embeddings |= dict.fromkeys((*step.score_needs().embeddings, *step.fit_needs().embeddings))
        return list(columns), list(embeddings)

    def check(self, pool: Pool) -> None:
        """Raise where the pool lacks what a step reads, or where a file or package that a step uses is not there.

        Raises
        ------
        RecipeError
            Names the step, the column or embedding and the likely one.
        MissingDependencyError
            Names what to install or where to get the file.
        """
        scores = [column for step in self.steps for column in step.produces()]
        for step in self.steps:
            needs = step.score_needs()
            for column in dict.fromkeys((*needs.columns, *step.decide_needs().columns)):
                try:
                    pool.stored_name(column)
                except InputError as error:
                    near = suggestion(column, scores).replace("; did you mean", "; or the score")
                    raise RecipeError(f"step {step.name!r}: {error}{near}") from error
            for embedding in dict.fromkeys((*needs.embeddings, *step.fit_needs().embeddings)):
                if embedding not in pool.embeddings:
                    known = sorted(pool.embeddings)
                    raise RecipeError(
                        f"step {step.name!r}: the pool has no embedding {embedding!r}{suggestion(embedding, known)} "
                        f"It has: {', '.join(known) or 'none'}"
                    )
            if isinstance(step, RecipeStep):
                step.check_pool(pool)
                step.check_files()


def _step_of(step: Any, place: int) -> Step:
    if not isinstance(step, dict) or len(step) != 1:
        raise ValueError(f"step {place}: expected one key, as in 'threshold: {{...}}', got {step!r}")
    ((kind, parameters),) = step.items()
    return make_step(kind, parameters)


def _unique_names(steps: Sequence[Step]) -> Iterator[str]:
    given = [step.name for step in steps if step.name]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two steps are named {twice!r}; name them differently")
    taken = set(given)
    for step in steps:
        name, number = step.name or step.kind, 1
        while not step.name and name in taken:
            number += 1
            name = f"{step.kind}_{number}"
        taken.add(name)
        yield name


def _check_order(steps: Sequence[Step], made_by: dict[str, str]) -> None:
    """A name must not mean a pool column in one step and a score made by another step later."""
    for step in steps:
        if not isinstance(step, RecipeStep):
            continue
        for column in step.references():
            if column in made_by and column not in step.earlier:
                raise ValueError(
                    f"step {step.name!r} uses {column!r}, which step {made_by[column]!r} makes only later; "
                    "move that step up, or rename its score"
                )


def _plain(step: Step) -> dict[str, Any]:
    """The YAML form of one step: only what differs from the defaults."""
    values = step.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if values.get("name") == step.kind:
        del values["name"]
    shorthand = step.shorthand if isinstance(step, RecipeStep) else ""
    if shorthand and set(values) == {shorthand}:
        return {step.kind: values[shorthand]}
    return {step.kind: values}
