"""The sweep around its models: the file of results, the command, and the page that is made from them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
from forked import Forked, run_forked
from typer.testing import CliRunner

from benchmarks.sweep import Result
from benchmarks.sweep.report import render, totals
from benchmarks.sweep.run import ResultFile
from benchmarks.sweep.verdict import Answer
from mi2p_inject.core.errors import SweepError
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.testing import iter_checks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

VERSIONS = {"torch": "1", "timm": "2"}
RESULT = Result("a", "timm", "x.A", Answer("ok", what=("layer1 NCHW",)), Answer("refused", "LayoutError: a | b"), 1.5)


def test_results_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    ResultFile(path, VERSIONS).add(RESULT)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name":"b","fam')
    again = ResultFile(path, VERSIONS)
    assert again.results == {"a": RESULT}
    assert path.read_bytes() == whole
    assert Result.from_json(json.loads(json.dumps(RESULT.to_json()))) == RESULT


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"versions":{"torch":"0","timm":"2"}}\n', r"other versions(.|\n)*torch 1(.|\n)*torch 0(.|\n)*--overwrite"),
        (b"[1, 2]\n", "no file of sweep results"),
        (b"\x89PNG\n\x1a", "no file of sweep results"),
        (b"my notes, one line", "no file of sweep results"),
        (b'{"versions":{"torch":"1","timm":"2"}}\n{"name":"a"}\n', "no file of sweep results"),
    ],
)
def test_foreign_results_are_refused_and_kept(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(SweepError, match=says):
        ResultFile(path, VERSIONS)
    assert path.read_bytes() == content


DRIVER = """
import sys, time
from functools import partial
from pathlib import Path
from torch import nn
from benchmarks.sweep.picks import Pick
from benchmarks.sweep.run import Limits, ResultFile, sweep

def build(wait):
    time.sleep(wait)
    raise ValueError("judged")

results = ResultFile(Path(sys.argv[1]), {})
names = [name for name in "abc" if name not in results.results]
picks = [Pick(name, "timm", partial(build, float(sys.argv[2]) * (name == "b"))) for name in names]
for result in sweep(picks, Limits()):
    results.add(result)
"""


def test_kill_9_loses_the_running_model_only(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Forked(["-c", DRIVER, str(path), "600"]) as process:
        end = time.monotonic() + 600
        while time.monotonic() < end and not (path.exists() and len(path.read_bytes().splitlines()) == 2):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert list(ResultFile(path, {}).results) == ["a"]
    assert run_forked(["-c", DRIVER, str(path), "0"], timeout=600).returncode == 0
    assert list(ResultFile(path, {}).results) == ["a", "b", "c"]


def test_the_command(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("test_resnet", "other_vit"), ("_test", "T", 1))
    (tmp_path / f"timm-{timm.__version__}.json").write_text(json.dumps(sizes))
    command = ["sweep", "--family", "timm", "--only", "test*", "--out", str(tmp_path)]
    apart = ["-m", "mi2p_inject.recipes.cli.main", *command, "--json", str(tmp_path / "support.json")]
    # Not a fork of a fork: it runs backward passes in forks of its own.
    first = subprocess.run([sys.executable, *apart], capture_output=True, text=True, timeout=1200)
    assert first.returncode == 0, first.stderr
    assert "Models by verdict" in first.stderr
    data = json.loads((tmp_path / "support.json").read_text())
    [result] = data["results"]
    assert result["backbone"]["verdict"] == "ok"
    assert data["checks"] == {str(check): check.contract for check in iter_checks()}
    assert set(data["versions"]) == {"torch", "timm", "transformers", "open_clip", "python", "mi2p_inject"}
    kept = (tmp_path / "results.jsonl").read_bytes()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "results.jsonl").read_bytes() == kept


def test_the_command_finds_the_tool_from_any_directory(tmp_path: Path) -> None:
    """Also from one that holds a package of the same name."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise SystemExit('another project')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = f"import sys; sys.path.append({str(ROOT)!r}); from mi2p_inject.recipes.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--family" in done.stdout


@pytest.mark.parametrize("option", [["--family", "keras"], ["--again", "bad"], ["--jobs", "0"], ["--memory", "0"]])
def test_bad_options_are_refused_before_anything_is_written(tmp_path: Path, option: list[str]) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["sweep", "--out", str(out), *option])
    assert result.exit_code == 2
    assert not out.exists()


def test_the_page_escapes_what_a_table_takes_for_markup(tmp_path: Path) -> None:
    path = tmp_path / "support.json"
    path.write_text(
        json.dumps({"versions": VERSIONS, "checks": {"a": "A."}, "of": {"timm": 7}, "results": [RESULT.to_json()]})
    )
    page = render(path)
    assert "| timm | backbone | 1 of 7 | 1 | 0 |" in page
    assert "- `a`: A." in page
    assert "| `a` (A) | layer1 NCHW | **refused**: LayoutError: a \\| b |" in page


def committed() -> list[Result]:
    data = json.loads((DOCS / "support.json").read_text(encoding="utf-8"))
    return [Result.from_json(one) for one in data["results"]]


def test_the_support_page_is_up_to_date() -> None:
    assert (DOCS / "support.md").read_text(encoding="utf-8") == render(DOCS / "support.json"), "run docs/make_tables.py"


def test_what_the_readme_says() -> None:
    """What the README says of the reach, on the results that are committed."""
    counts = {(family, role): count for family, role, count in totals(committed())}
    assert all(not (count["silent"] + count["crashed"] + count["time"] + count["memory"]) for count in counts.values())
    assert counts["timm", "backbone"]["ok"] >= 0.97 * counts["timm", "backbone"].total()
    assert counts["transformers", "backbone"]["ok"] >= 130
    assert counts["open_clip", "backbone"]["ok"] == counts["open_clip", "backbone"].total() > 0
    for result in committed():
        for answer in (result.backbone, result.source):
            assert answer.verdict != "refused" or re.match(r"\w+Error: .{20}", answer.reason), result
