"""Processes that are killed: at a place that they reach, or at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forked import SERVER, start_server

FORK = multiprocessing.get_context("fork")
KILLS = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 4
"""How many a test of random moments does."""


def killed_in(action: Callable[[Callable[[], None]], object]) -> int:
    """Run `action(here)` in a process, and kill that process where it calls `here`; gives its pid."""
    reached = FORK.Event()

    def here() -> None:
        reached.set()
        time.sleep(60)

    process = FORK.Process(target=action, args=(here,))
    process.start()
    assert reached.wait(30)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    return process.pid or 0


def killed_after(action: Callable[[], object], most: float) -> bool:
    """Run `action` in a process, and kill it after a random time of at most `most` seconds; False: it was faster."""
    started = FORK.Event()

    def run() -> None:
        started.set()
        action()

    process = FORK.Process(target=run)
    process.start()
    assert started.wait(30)
    time.sleep(random.uniform(0, most))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    return process.exitcode == -signal.SIGKILL


def _started(action: Callable[..., object], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """A process of its own, which has just begun with `action`, a function of a module, and what is set at its end."""
    start_server()
    began, ended = SERVER.Event(), SERVER.Event()
    process = SERVER.Process(target=_begin, args=(began, ended, action, args))
    process.start()
    assert began.wait(300)
    return process, ended


def _begin(began: Any, ended: Any, action: Callable[..., object], args: tuple[Any, ...]) -> None:
    began.set()
    action(*args)
    ended.set()


def ends_after(action: Callable[..., object], *args: Any) -> float:
    """Run `action` to its end; the seconds that it takes."""
    process, _ = _started(action, args)
    began = time.monotonic()
    process.join(900)
    process.kill()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - began


def kill_until_done(action: Callable[..., object], *args: Any, seconds: float, kills: int) -> int:
    """Begin `action`, kill it within so many seconds, some times; then let it end. Gives how often it was killed."""
    for number in range(kills):
        process, ended = _started(action, args)
        process.join(random.uniform(0, seconds))
        process.kill()
        process.join()
        if ended.is_set():  # it was faster, if only by the time that a process takes to go
            return number
        assert process.exitcode == -signal.SIGKILL
    ends_after(action, *args)
    return kills


def files_below(folder: Path) -> list[str]:
    """Names of all files and folders, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
