"""Progress: a bar while a row trains, where the output is a terminal; else plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["OnStep", "row_progress"]

OnStep = Callable[[int, int], None]
"""(steps done, steps in all)"""


@contextmanager
def row_progress(console: Console, title: str) -> Iterator[OnStep]:
    """Yields the function to call after each step; the bar is gone afterwards.

    Args:
        console: where to draw.
        title: names the row.
    """
    if not console.is_terminal:
        console.print(f"{title} …")
        yield lambda done, steps: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, steps: bar.update(task, completed=done, total=steps)
