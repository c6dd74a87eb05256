"""Processes that are killed: at a place that they reach, or at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable

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
