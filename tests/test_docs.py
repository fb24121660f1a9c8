"""What README and docs tell readers to type exists: commands, options, recipes, presets, names, files."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pycurate.cli.app import app
from pycurate.recipes import Recipe, preset_descriptions

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(language: str) -> list[tuple[str, str]]:
    return [(page, body) for page, text in PAGES.items() for kind, body in FENCE.findall(text) if kind == language]


def _commands(program: str) -> list[str]:
    """Distinct command lines of a program, in fenced blocks and in `backticks`."""
    fenced = [line for _, body in _blocks("bash") for line in body.replace("\\\n", " ").splitlines()]
    inline = [text for page in PAGES.values() for text in re.findall(r"`([^`\n]+)`", FENCE.sub("", page))]
    return sorted({line.partition(" #")[0].strip() for line in (*fenced, *inline) if line.startswith(f"{program} ")})


@pytest.mark.parametrize("line", _commands("pycurate"))
def test_a_command_of_the_docs_is_understood(line: str) -> None:
    command, context = typer.main.get_command(app), None
    arguments = shlex.split(line)[1:]
    while True:
        name = context.info_name if context else "pycurate"
        if not hasattr(command, "commands"):
            if not arguments:
                return  # a command spoken of, not one to type
            assert command.make_context(name, arguments, parent=context).params
            return
        context = command.make_context(name, arguments, parent=context, allow_interspersed_args=False)
        rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
        if not rest:
            return
        name, command, arguments = command.resolve_command(context, rest)


def test_make_targets_of_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {word for line in _commands("make") for word in line.split()[1:] if "=" not in word}
    assert {"demo", "test"} <= used <= targets


@pytest.mark.parametrize(("page", "text"), _blocks("yaml"))
def test_a_recipe_of_the_docs_is_valid(page: str, text: str) -> None:
    if "steps" in yaml.safe_load(text):
        assert Recipe.from_yaml(text).steps, page
    else:
        assert Recipe(name="steps", steps=yaml.safe_load(text)).steps, page


def test_presets_of_the_docs_are_the_presets() -> None:
    known = set(preset_descriptions())
    for page in ("README.md", "docs/recipes.md"):
        rows = [line.split("|")[1] for line in PAGES[page].splitlines() if line.startswith("| `")]
        named = {name for row in rows for name in re.findall(r"`([a-z][\w.-]*-?[\w.]*)`", row)}
        assert known & named, page
    shown = set(re.findall(r"`([\w.-]+)`", PAGES["README.md"] + PAGES["docs/recipes.md"]))
    assert known - shown == set(), "a preset that the docs do not name"


@pytest.mark.parametrize(("page", "code"), _blocks("python"))
def test_python_of_the_docs_uses_names_that_exist(page: str, code: str) -> None:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], page
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pycurate":
            assert hasattr(importlib.import_module("pycurate"), node.attr), f"{page}: pycurate.{node.attr}"


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", PAGES[page]):
        if "://" in target:
            continue
        folder = (ROOT / page).parent
        assert (folder / target).exists() or (folder / f"{target}.md").exists(), target


def test_options_the_docs_speak_of_exist() -> None:
    known = {
        option for command in _all_commands(typer.main.get_command(app)) for p in command.params for option in p.opts
    }
    spoken = {text.split()[0] for page in PAGES.values() for text in re.findall(r"`(--[^`\n]+)`", page)}
    assert {"--memory", "--set"} <= spoken <= known


def _all_commands(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _all_commands(below)
