"""Small trainings for the tests of the recipes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.runner import run_experiments
from mi2p_inject.recipes.experiments.sets.paper_tables import TABLES
from mi2p_inject.recipes.saving.checksums import CHECKSUMS, checksums_of
from mi2p_inject.recipes.saving.run_folder import FINISHED
from mi2p_inject.recipes.training.train import train_run

if TYPE_CHECKING:
    from forked import Forked

RATES = {"learning_rate": 3e-3, "new_learning_rate": 3e-3}
SMALL = {"vision": "tiny:vit", "text": "tiny:xlnet", "image_size": 32, "batch_size": 8, **RATES}


def settings(table: Path, **more: Any) -> dict[str, Any]:
    return {"data": str(table), "model": "me-fusion", "fusion": "cross-attention", "epochs": 2, **SMALL, **more}


def train(table: Path, out: Path, overwrite: bool = False, **more: Any) -> dict[str, Any]:
    return train_run(make_config(settings(table, **more)), out, Console(quiet=True), overwrite=overwrite)


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((out / "history.json").read_text()) if "loss" in entry]


def interrupted_at(step: int) -> Callable[[Console, str], AbstractContextManager[Callable[[int, int], None]]]:
    """In place of a training's `row_progress`: Ctrl-C after that many steps."""

    @contextmanager
    def interrupting(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
        def on_step(done: int, steps: int, note: str = "") -> None:
            if done == step:
                raise KeyboardInterrupt

        yield on_step

    return interrupting


def command(table: Path, out: Path, **more: Any) -> list[str]:
    sets = [f"--set={name}={value}" for name, value in settings(table, **more).items()]
    return ["-m", "mi2p_inject.recipes", "train", "--out", str(out), *sets]


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def resealed(folder: Path, change: Callable[[Path], object]) -> None:
    """Change a finished run as a forger would: its checksums are right."""
    change(folder)
    names = ["run.json", "metrics.json", "history.json", "predictions.safetensors", "model"]
    (folder / CHECKSUMS).write_text(json.dumps(checksums_of(folder, names, {})))


def wait_for(happened: Callable[[], bool], process: Forked, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.stdout.read() if process.stdout else "ended"
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def finish_training(table: Path, out: Path) -> None:
    """As `mi2p train`, with a source cache beside the run and checkpoints on the way."""
    given: dict[str, Any] = {"model": "me-text", "epochs": 1, "max_steps": 4, "save_steps": 2}
    try:
        train(table, out, **given, source_cache=str(out.parent / "sources"))
    except RecipeError:
        if not (out / FINISHED).exists():  # else it was killed after its last file: the command says that it is done
            raise


def finish_table(table: Path, out: Path) -> None:
    """As `mi2p table 6` of two experiments, with a source cache beside it and checkpoints on the way."""
    given = {"data": str(table), "epochs": 1, "max_steps": 2, "save_steps": 1, "batch_size": 8, "image_size": 32}
    config = TABLES[6].config({**given, **RATES, "source_cache": str(out.parent / "sources")}, preset="practical")
    only = ("clip-image", "me-clip-image")
    run_experiments(TABLES[6], config, out, Console(quiet=True), encoders="tiny", seeds=(0,), only=only)
