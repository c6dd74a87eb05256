"""What the docs say is what the code does: README blocks run, pages are up to date, docstring examples pass."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import mi2p_inject
from benchmarks import render, systems
from mi2p_inject.fusion import FUSIONS
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.config import OPTIONS
from mi2p_inject.units import UNITS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
MODULES = [module.name for module in pkgutil.walk_packages(mi2p_inject.__path__, "mi2p_inject.")]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for table in (UNITS, FUSIONS):  # what a block registers is gone after it
        monkeypatch.setattr(table, "entries", dict(table.entries))
    exec(compile(block, "a block of the docs", "exec"), {"__name__": "docs"})


def test_readme_is_short_and_its_images_show_on_pypi() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all(link.startswith("https://") for link in links), links  # relative links break on PyPI
    for link in links:
        _, here, path = link.partition("mi2p_inject/blob/main/")
        if not here:
            _, here, path = link.partition("mi2p_inject/main/")
        assert (ROOT / path).exists(), link


def test_relative_links_of_the_pages_lead_somewhere() -> None:
    for page in PAGES[1:]:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.stem)
def test_options_that_the_pages_name_are_there(page: Path) -> None:
    """After `mi2p COMMAND` those of the command; after --set an option of a training."""
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8")
    assert {name for name in re.findall(r"--set (\w+)", text) if name not in OPTIONS} == set()
    for name, rest in re.findall(r"(?:^|`)mi2p (\w+)((?: [^`|#\n]*)?)", text, re.MULTILINE):
        assert name in commands, f"mi2p {name}"
        known = {one for parameter in commands[name].params for one in (*parameter.opts, *parameter.secondary_opts)}
        if name != "sweep":  # its options are in a clone alone
            assert {flag for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", rest) if flag not in known} == set(), name


def test_readme_has_exactly_two_shell_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Two commands")[1].split("\n## ")[0]
    assert re.findall(r"```sh\n(\S+ \S+)", section) == ["make demo", "make test"]


def test_generated_pages_are_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
    page, readme = (path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "adapters.md", ROOT / "README.md"))
    reliability = runpy.run_path(str(ROOT / "docs" / "make_reliability.py"))
    assert (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8") == reliability["render"](), (
        "run docs/make_reliability.py"
    )
    assert page == made["render_adapters"](), "run docs/make_tables.py"
    assert readme == made["render_readme"](readme), "run docs/make_tables.py"
    explain = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    assert explain == made["render_explain"](explain), "run docs/make_tables.py"
    settings = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert settings == made["settings_page"](), "run docs/make_tables.py"
    if any(made["RESULTS"].glob("*/*.json")):
        results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
        assert results == made["render_results"](), "run docs/make_tables.py"


def test_the_commands_that_write_the_pages_run_as_the_docs_name_them(tmp_path: Path) -> None:
    """In a shell that knows nothing but the checkout; what they write is what is committed."""
    copy, unwanted = (
        tmp_path / "project",
        shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs"),
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndocs-pages:")[1].split("\n\n")[0]
    commands = re.findall(r"/python (docs/\S+\.py)", makefile)
    assert commands == ["docs/make_tables.py", "docs/make_reliability.py"]
    for script in commands:
        done = subprocess.run([sys.executable, script], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            assert (copy / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), (
                f"run make docs-pages: {path.name}"
            )


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


def test_the_cost_of_the_systems_is_what_its_json_says() -> None:
    results, page = ROOT / "docs" / "systems.json", (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    data = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
    between = page.split(systems.BEGIN)[1].split(systems.END)[0]
    assert between == f"\n{systems.section(data)}\n", "run python -m benchmarks.systems --page"
