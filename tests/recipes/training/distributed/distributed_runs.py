"""Run by torchrun on two processes: one after the other, what tests of several processes look at.

A training that is one large batch, one that fills a source cache, a few sharded steps, and a sharded training that
ends half-way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsdp_steps
from rich.console import Console
from training_runs import settings, train

import mi2p_inject.recipes.training.train as training
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.training.progress.bars import OnStep

KILLED = 7
"""After this step of the sharded training the first process is gone."""


@contextmanager
def ending(console: Console, title: str) -> Iterator[OnStep]:
    def on_step(done: int, steps: int, note: str = "") -> None:
        if done == KILLED:
            os._exit(9)

    yield on_step


def main(table: Path, out: Path) -> None:
    """Each in a folder of `out`, or a file."""
    training.train_run(make_config(settings(table, **LARGE_BATCH)), out / "two", Console(width=200))
    train(table, out / "cached", source_cache=str(out / "sources"), **CACHED)
    fsdp_steps.main(out / "steps.json")
    training.row_progress = ending
    train(table, out / "sharded", **SHARDED)


LARGE_BATCH = {"dropout": 0.0, "epochs": 1, "keep_weights": False}
STILL = {"dropout": 0.0, "augment": False, "reading_check": False}
CACHED = {**STILL, "model": "me-text", "batch_size": 4, "max_steps": 3, "epochs": 1, "keep_weights": False}
WHOLE = {**STILL, "batch_size": 2, "max_steps": 12, "epochs": 1, "trainable": "all"}
SHARDED = {**WHOLE, "batch_size": 1, "sharding": "fsdp", "save_steps": 4}
"""One sample a process: in some steps one process has a source and the other has none."""

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
