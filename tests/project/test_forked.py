"""What stands in for a process of its own gives what one gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Forked, run_forked

COMMANDS = {
    "arguments": ["-c", "import sys; print(sys.argv)", "one", "--two"],
    "folder": ["-c", "import os, sys; print(os.getcwd(), __name__, sys.path[0] in ('', os.getcwd()))"],
    "input": ["-c", "import sys; print(repr(sys.stdin.read()))"],
    "both streams": ["-c", "import sys; print('out'); print('error', file=sys.stderr)"],
    "an end with a status": ["-c", "raise SystemExit(3)"],
    "an end with words": ["-c", "import sys; sys.exit('no')"],
    "an error": ["-c", "import sys; sys.tracebacklimit = 0; 1 / 0"],
    "what is left to do": [
        "-c",
        "import atexit, threading, time; atexit.register(print, 'bye')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()",
    ],
    "killed": ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    "interrupted": ["-c", "import os, signal, sys; sys.tracebacklimit = 0; os.kill(os.getpid(), signal.SIGINT)"],
    "a script": ["script.py", "one"],
    "a module": ["-m", "module", "one"],
    "encoding": ["-c", "import sys; print(sys.stdout.encoding, sys.stderr.encoding, ascii('☃'))"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("changed", [{}, {"PYTHONIOENCODING": "cp1252", "COLUMNS": "33"}], ids=["same", "other"])
def test_it_is_as_a_process(name: str, changed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import module")
    (tmp_path / "module.py").write_text("import os, sys; print(__name__, sys.argv[1:], os.environ.get('COLUMNS'))")
    there = {"cwd": tmp_path, "env": {**os.environ, **changed}}
    # A test run in a shell's background ignores SIGINT, and so would its children.
    wanted = subprocess.run(
        [sys.executable, *COMMANDS[name]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **there,  # type: ignore[arg-type]
    )
    found = run_forked(COMMANDS[name], timeout=100, **there)
    assert (found.returncode, found.stdout) == (wanted.returncode, wanted.stdout)
    assert found.stderr.splitlines()[-1:] == wanted.stderr.splitlines()[-1:]


def test_it_is_killed_and_waited_for() -> None:
    with Forked(["-c", "print('here', flush=True); import time; time.sleep(600)"], stderr=subprocess.STDOUT) as process:
        assert process.stdout.readline() == "here\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)  # it has a session of its own
        assert process.wait(100) == -signal.SIGKILL


def test_the_server_has_run_nothing() -> None:
    """One thread, beside the one with which Arrow's jemalloc gives memory back."""
    said = run_forked(["-c", "import os; print(*os.listdir(f'/proc/{os.getppid()}/task'), os.getppid())"]).stdout
    *tasks, server = said.split()
    names = {Path(f"/proc/{server}/task/{task}/comm").read_text().strip() for task in tasks if task != server}
    assert names <= {"jemalloc_bg_thd"}


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_HOME"])
def test_what_the_server_has_read_cannot_be_another(name: str) -> None:
    with pytest.raises(ValueError, match=f"another .*{name}.*true process"):
        Forked(["-c", "pass"], env={**os.environ, name: "other"})
