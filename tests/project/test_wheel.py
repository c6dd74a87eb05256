"""The wheel, built from the checkout and used from another directory: all packages are in it, under their one name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from mi2p_inject.recipes.errors import LIBRARIES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the unpacked wheel, built from a copy: a build leaves its traces in the source tree."""
    source, target = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("site")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def test_works_from_another_directory(installed: Path, tmp_path: Path) -> None:
    code = (
        "import torch, mi2p_inject, mi2p_inject.adapters, mi2p_inject.recipes, mi2p_inject.fusion\n"
        "print(mi2p_inject.__file__, mi2p_inject.adapters.__file__, mi2p_inject.recipes.__file__, sep='\\n')\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)); x = torch.zeros(2, 3, 5, 5)\n"
        "me = mi2p_inject.inject(net, layers='0', source_spec=mi2p_inject.ViewSpec.tokens(3), example_inputs=x)\n"
        "me.save_pretrained('out'); print(len(mi2p_inject.adapters.adapters()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *files, rows = done.stdout.split()
    assert all(Path(file).is_relative_to(installed) for file in files)
    assert int(rows) > 20


def test_the_command_line_needs_no_clone(installed: Path, tmp_path: Path) -> None:
    def mi2p(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mi2p_inject.recipes", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    shown = mi2p("--help")
    assert shown.returncode == 0, shown.stderr
    assert "sweep" in shown.stdout
    refused = mi2p("sweep", "--only", "vit*")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "clone" in refused.stderr


FIRST_BLOCK = """
import re, sys
from pathlib import Path

sys.modules.update(dict.fromkeys(sys.argv[2].split(",")))  # None: importing it fails
block = re.findall(r"```python\\n(.*?)```", Path(sys.argv[1]).read_text(encoding="utf-8"), re.DOTALL)[0]
exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
"""
#: PyYAML and tqdm are not here: huggingface_hub brings them
EXTRAS = "timm,transformers,open_clip,torchvision,datasets,accelerate,sklearn,scipy,PIL,pandas,typer,rich"


def test_the_readmes_first_block_runs_without_extras(installed: Path, tmp_path: Path) -> None:
    """What `pip install mi2p-inject` brings is enough for it: no library of an extra is imported."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", FIRST_BLOCK, str(ROOT / "README.md"), EXTRAS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WITHOUT = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(','))); "


def test_a_missing_extra_is_said_in_a_line(installed: Path, tmp_path: Path) -> None:
    """Whatever of the extra is missing, as where other packages have brought a part of it."""

    def ran(without: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT + code, without, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    main = "from mi2p_inject.recipes.cli.main import main; main()"
    (tmp_path / "my.csv").write_text("text,label\na,b\n", encoding="utf-8")
    train = ("train", "--data", "my.csv", "--model", "text", "--text", "tiny:bert", "--out", "run")
    for without, arguments in ((EXTRAS, ()), ("datasets", train)):
        done = ran(without, main, *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.endswith("is missing; run: pip install 'mi2p-inject[recipes]'\n")
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "my.csv"]
    done = ran(EXTRAS, "from mi2p_inject.recipes import fit")
    assert "which is not installed\n  fix: pip install 'mi2p-inject[recipes]'" in done.stderr
    caught = ran(EXTRAS, "\ntry: from mi2p_inject.recipes import load_run\nexcept ImportError: print('none')")
    assert caught.stdout == "none\n", caught.stderr


def test_the_libraries_of_the_extra_are_those_that_it_installs() -> None:
    distributions = {one for names in map(packages_distributions().get, LIBRARIES) for one in names or ()}
    wanted = [one for one in requires("mi2p-inject") or () if re.search(r"extra *== *['\"]recipes['\"]", one)]
    assert {re.split(r"[^\w.-]", one)[0].lower().replace("_", "-") for one in wanted} == {
        one.lower().replace("_", "-") for one in distributions
    }


def test_holds_every_module_once_and_the_licence(installed: Path) -> None:
    def names(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}

    for package, folder in (("adapters", "adapters"), ("recipes", "recipes")):
        assert names(installed / "mi2p_inject" / package) == names(ROOT / folder)
    core = {name for name in names(ROOT / "mi2p_inject") if not name.startswith(("adapters/", "recipes/"))}
    assert core <= names(installed / "mi2p_inject")
    assert not (installed / "adapters").exists()
    assert (installed / "mi2p_inject" / "py.typed").exists()
    assert list(installed.glob("mi2p_inject-*.dist-info/licenses/LICENSE"))


def test_the_adapters_have_one_name(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import adapters"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "mi2p_inject.adapters" in done.stderr
