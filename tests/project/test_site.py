"""The site's pages: every tutorial runs to its end, and what it prints is shown."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

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


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.md", config.split("\nnav:")[1]))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert yaml.safe_load(config.split("\nnav:")[0].replace("!!python/name:", ""))["strict"]
