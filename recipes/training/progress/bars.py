"""Progress: a bar while something trains, where the output is a terminal; else plain lines, one a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["OnStep", "row_progress"]

OnStep = Callable[[int, int], None]
"""(steps done, steps in all)"""

_SECONDS = 60.0


@contextmanager
def row_progress(console: Console, title: str) -> Iterator[OnStep]:
    """Yields the function to call after each step; the bar is gone afterwards.

    Args:
        console: where to draw.
        title: says what is done.
    """
    if not console.is_terminal:
        console.print(f"{title} …")
        yield _lines(console, title)
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, steps: bar.update(task, completed=done, total=steps)


def _lines(console: Console, title: str) -> OnStep:
    """Prints where it is, once a minute, with the time that is left at this pace."""
    started = said = time.monotonic()
    first: int | None = None

    def on_step(done: int, steps: int) -> None:
        nonlocal said, first
        now = time.monotonic()
        first = done - 1 if first is None else first
        if now - said >= _SECONDS and done > first:
            said = now
            left = (now - started) / (done - first) * (steps - done)
            console.print(f"{title}: step {done} of {steps}, about {left:.0f} s left", highlight=False)

    return on_step
