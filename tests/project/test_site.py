"""The site's pages: every tutorial runs to its end, and what it prints is shown."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import mi2p_inject

ROOT = Path(__file__).parents[2]
HOOKS = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_and_shows_what_it_prints(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    made = HOOKS["run_blocks"](text, page.name)
    assert made.count("```text") >= 2
    assert len(made) > len(text)
    assert all(line in made for line in text.splitlines())


def test_a_block_that_raises_ends_the_build() -> None:
    with pytest.raises(ZeroDivisionError):
        HOOKS["run_blocks"]("```python\n1 / 0\n```\n", "page")


def test_output_and_pictures_stand_below_their_block() -> None:
    text = "```python\nopen('a.png', 'wb').write(b'x')\nprint('said')  # shows a.png\n```\nafter\n"
    made = HOOKS["run_blocks"](text, "page")
    assert "```text\nsaid\n```" in made
    assert 'src="data:image/png;base64,eA=="' in made
    assert made.endswith("after\n")


def _found(path: str) -> Any:
    """What a dotted path names: a module, or something in one."""
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return getattr(_found(module), name)


def _named(text: str) -> set[str]:
    """Dotted paths of what Python code imports of this package."""
    imports = re.findall(r"^ *from (mi2p_inject[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
    return {f"{module}.{name.strip()}" for module, names in imports for name in names.split(",")}


def test_what_the_docs_use_is_in_the_reference() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")]
    used = {f"mi2p_inject.{name}" for name in mi2p_inject.__all__ if name != "__version__"}
    used = used.union(*(_named(page.read_text(encoding="utf-8")) for page in pages))
    assert "mi2p_inject.recipes.fit" in used
    api = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    documented: list[Any] = []
    for path in re.findall(r"^::: (\S+)$", api, re.MULTILINE):
        found = _found(path)
        names = found.__all__ if isinstance(found, ModuleType) else ()
        documented += [found, *(getattr(found, name) for name in names)]
    missing = [
        path
        for path in sorted(used)
        if not any(one is _found(path) or one is getattr(_found(path), "__self__", None) for one in documented)
    ]
    assert missing == []


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.md", config.split("\nnav:")[1]))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert yaml.safe_load(config.split("\nnav:")[0].replace("!!python/name:", ""))["strict"]
