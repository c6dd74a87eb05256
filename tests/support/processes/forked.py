"""Commands in a process of their own that need not import torch and transformers anew.

One server for each process of a test run imports them once and runs nothing; it forks for each command. Its arguments,
folder, environment, standard streams, signals and exit status are those of `python ...`, and it has a session of its
own. A test of what is imported, of memory, or of how `mi2p` starts takes a true process.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[3]
SUPPORT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "mi2p_inject.recipes.cli.app", "mi2p_inject.recipes.experiments.runner", "training_runs",
        "transformers.trainer", "timm", "open_clip", "sklearn.metrics", "matplotlib.pyplot",
    ]
)  # fmt: skip
ENVIRONMENT = {**os.environ}
"""What the server has, whatever a test that starts it has changed."""
RENDEZVOUS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
OF_PYTHON = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONIOENCODING"}
READ_LATER = {"COLUMNS", "NO_COLOR", "TMPDIR", "PYTEST_CURRENT_TEST", *OF_PYTHON, *RENDEZVOUS}
"""Variables that nothing reads while it is imported: a command may have others than the server. Those of Python are
applied here."""


class Forked:
    """`python *argv` as `subprocess.Popen` with pipes and text runs it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stderr: int = subprocess.PIPE,
    ) -> None:
        env = {**(os.environ if env is None else env)}
        if different := (_different(env, os.environ) | (_different(env, ENVIRONMENT) & {*ENVIRONMENT})) - READ_LATER:
            raise ValueError(f"the server has read another {sorted(different)}: take a true process")
        self.args = [sys.executable, *argv]
        start_server()
        (self.stdout, out), (self.stderr, errors) = _pipe(), (None, None)
        if stderr == subprocess.PIPE:
            self.stderr, errors = _pipe()
        self._process = SERVER.Process(target=_command, args=([*argv], cwd or Path.cwd(), env, out, errors or out))
        self._process.start()
        for end in filter(None, (out, errors)):
            end.close()
        self.pid = self._process.pid or 0

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.close()
        self.wait()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        said = {}

        def read(stream: IO[str]) -> None:
            said[stream] = stream.read()

        readers = [threading.Thread(target=read, args=(one,)) for one in (self.stdout, self.stderr) if one]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            for reader in readers:
                reader.join()
        return said[self.stdout], said[self.stderr] if self.stderr else ""


def run_forked(argv: Sequence[str], *, timeout: float | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *argv], capture_output=True, text=True)`."""
    with Forked(argv, **more) as process:
        said = process.communicate(timeout)
        return subprocess.CompletedProcess(process.args, process.wait(), *said)


def start_server() -> None:
    """Idempotent; it finds this checkout and the tests' modules from any folder."""
    paths = [str(ROOT), str(SUPPORT), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])]
    with _environment({**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}):
        forkserver.ensure_running()


def _different(first: Mapping[str, str], second: Mapping[str, str]) -> set[str]:
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {**os.environ}
    try:
        _set_environment(variables)
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in {*os.environ} - {*variables}:
        del os.environ[name]
    os.environ.update(variables)


def _pipe() -> tuple[IO[str], Connection]:
    read, write = SERVER.Pipe(duplex=False)
    with read:
        return open(os.dup(read.fileno()), encoding="utf-8"), write


def _command(argv: list[str], cwd: Path, env: dict[str, str], out: Connection, errors: Connection) -> None:
    """In the child: become `python *argv`."""
    gc.freeze()  # what the server has imported is no garbage
    os.setsid()
    os.chdir(cwd)
    _set_environment(env)
    tempfile.tempdir = None  # was found in the server's environment
    signal.signal(signal.SIGINT, signal.default_int_handler)
    encoding = env.get("PYTHONIOENCODING") or sys.stdout.encoding
    sys.stdout = sys.__stdout__ = _stream(out, 1, encoding, sys.stdout.errors, buffered="PYTHONUNBUFFERED" not in env)
    sys.stderr = sys.__stderr__ = _stream(errors, 2, encoding, sys.stderr.errors, buffered=False)
    for end in {out, errors}:
        end.close()
    first = str(Path(argv[0]).resolve().parent) if not argv[0].startswith("-") else str(cwd)
    tests = ROOT / "tests"
    found = [path for path in sys.path if not Path(path).is_relative_to(tests)]
    sys.path[:] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *found]
    try:
        _run(argv)
    except SystemExit:
        raise  # multiprocessing gives its code, as Python does
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        threading._shutdown()  # what an interpreter does at its end, and a process of multiprocessing does not
        atexit._run_exitfuncs()


def _stream(end: Connection, number: int, encoding: str, errors: str, buffered: bool) -> Any:
    os.dup2(end.fileno(), number)
    return open(number, "w", -1 if buffered else 1, encoding=encoding, errors=errors, closefd=False)


def _run(argv: list[str]) -> None:
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    elif argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        exec(compile(argv[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")
