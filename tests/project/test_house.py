"""The house keeps its rules: files of at most 300 lines, functions of at most 60, folders of at most a dozen files."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("mi2p_inject", "adapters", "recipes", "benchmarks", "tests", "examples", "docs")
LINKS = (ROOT / "mi2p_inject" / "adapters", ROOT / "mi2p_inject" / "recipes")
FILES = [
    path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if not any(link in path.parents for link in LINKS)
]
MOST_LINES, MOST_OF_A_FUNCTION, MOST_FILES = 300, 60, 12


def lengths(tree: ast.AST) -> list[tuple[str, int]]:
    """Functions with their lengths in lines, docstrings left out."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            found.append((node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    long = [(name, lines) for name, lines in lengths(ast.parse(text)) if lines > MOST_OF_A_FUNCTION]
    assert not long


def test_folders_are_small() -> None:
    count = Counter(path.parent for path in FILES)
    assert {str(folder.relative_to(ROOT)): files for folder, files in count.items() if files > MOST_FILES} == {}


def _without_fix(path: Path) -> list[int]:
    """Lines where an error of the recipes is made without a word on what to do."""
    made = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return [
        node.lineno
        for node in made
        if isinstance(node.func, ast.Name)
        and node.func.id == "RecipeError"
        and not {"fix", None} & {one.arg for one in node.keywords}
    ]


def test_every_error_of_the_recipes_says_what_to_do() -> None:
    found = {str(path.relative_to(ROOT)): _without_fix(path) for path in sorted((ROOT / "recipes").rglob("*.py"))}
    assert {path: lines for path, lines in found.items() if lines} == {}


def _unknown_parameters(node: ast.FunctionDef) -> list[str]:
    """Names before a colon below "Args:" that are no parameter: the API pages would leave them without a type."""
    given = (ast.get_docstring(node) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    \*{0,2}(\w+(?:, [\w*]+)*):", given, re.MULTILINE)
    arguments = node.args
    known = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [entry for entry in entries if entry not in {one.arg for one in known if one is not None}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_name_parameters_as_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {node.name: names for node in functions if (names := _unknown_parameters(node))} == {}
