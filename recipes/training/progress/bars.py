"""Progress: a bar while something runs, in a terminal and in a notebook; else plain lines, one a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["OnStep", "busy", "no_progress", "row_progress", "short_progress"]


class OnStep(Protocol):
    """Called with the steps that are done, how many there are in all, and what to say beside them."""

    def __call__(self, done: int, steps: int, note: str = "") -> None: ...


_SECONDS = 60.0


def no_progress(done: int, steps: int, note: str = "") -> None:
    """Shows nothing."""


@contextmanager
def row_progress(console: Console, title: str) -> Iterator[OnStep]:
    """Yields the function to call after each step; the bar is gone afterwards.

    Args:
        console: where to draw.
        title: says what is done; a log has it where it begins.
    """
    if not (console.quiet or console.is_jupyter or console.is_terminal):
        console.print(f"{title} …")
    with short_progress(console, title) as on_step:
        yield on_step


@contextmanager
def short_progress(console: Console, title: str) -> Iterator[OnStep]:
    """As `row_progress`; a log has a line only where it takes more than a minute."""
    if console.quiet:
        yield no_progress
    elif console.is_jupyter:
        with _notebook_bar(title) as on_step:
            yield on_step
    elif console.is_terminal:
        note, left = TextColumn("{task.fields[note]}"), TimeRemainingColumn()
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), note, left)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=None, note="")
            yield lambda done, steps, note="": bar.update(task, completed=done, total=steps, note=note)
    else:
        yield _lines(console, title)


@contextmanager
def busy(console: Console, title: str) -> Iterator[None]:
    """A terminal shows that something of unknown length goes on, such as reading data; nothing elsewhere."""
    if console.quiet or console.is_jupyter or not console.is_terminal:
        yield
    else:
        with console.status(title):
            yield


@contextmanager
def _notebook_bar(title: str) -> Iterator[OnStep]:
    """transformers' bar for notebooks, which needs no widgets, as rich's and tqdm's do."""
    from transformers.utils.notebook import NotebookProgressBar

    bars: list[NotebookProgressBar] = []

    def on_step(done: int, steps: int, note: str = "") -> None:
        if not bars:
            bars.append(NotebookProgressBar(steps, prefix=title, leave=False))
        bars[0].update(done, comment=note or None)

    try:
        yield on_step
    finally:
        if bars and bars[0].output is not None:
            bars[0].close()


def _lines(console: Console, title: str) -> OnStep:
    """Prints where it is, once a minute, with the time that is left at this pace."""
    started = said = time.monotonic()
    first: int | None = None

    def on_step(done: int, steps: int, note: str = "") -> None:
        nonlocal said, first
        now = time.monotonic()
        first = done - 1 if first is None else first
        if now - said >= _SECONDS and done > first:
            said = now
            left = (now - started) / (done - first) * (steps - done)
            beside = f", {note}" if note else ""
            console.print(f"{title}: step {done} of {steps}{beside}, about {left:.0f} s left", highlight=False)

    return on_step
