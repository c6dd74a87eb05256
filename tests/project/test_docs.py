"""What the docs say is what the code does: README blocks run, pages are up to date, docstring examples pass."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import mi2p_inject
from benchmarks import render

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
MODULES = [module.name for module in pkgutil.walk_packages(mi2p_inject.__path__, "mi2p_inject.")]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {"__name__": "readme"})


def test_readme_has_exactly_two_shell_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Two commands")[1].split("\n## ")[0]
    assert re.findall(r"```sh\n(\S+ \S+)", section) == ["make demo", "make test"]


def test_generated_pages_are_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
    page, readme = (path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "adapters.md", ROOT / "README.md"))
    assert page == made["render_adapters"](), "run docs/make_tables.py"
    assert readme == made["render_readme"](readme), "run docs/make_tables.py"
    if any(made["RESULTS"].glob("*/*.json")):
        results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
        assert results == made["render_results"](), "run docs/make_tables.py"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs=vars(module))
    assert result.failed == 0


def test_nothing_of_a_workplace_is_in_the_project() -> None:
    """No absolute path of a machine, no registry's address: what is committed must work anywhere."""
    listed = [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".txt") or path.name == "Makefile"]
    for path in listed:
        assert not re.search(
            r"/(work|root|tmp|home)/|https?://[^ )]*(pypi|simple/)", path.read_text(encoding="utf-8")
        ), path


def test_the_performance_page_is_what_its_json_says() -> None:
    results = ROOT / "docs" / "performance.json"
    page = render.page(json.loads(results.read_text()), "performance.png")
    assert (ROOT / "docs" / "performance.md").read_text() == page
