"""The Trainer's checkpoints in a run folder: which is whole, who wrote it, and whether the training ended with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import transformers

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["CHECKPOINTS", "check_processes", "last_checkpoint", "read_state", "was_the_last"]

CHECKPOINTS = "checkpoints"
_STATE = "trainer_state.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones, of a run that was killed while it wrote, are removed.

    The Trainer writes ``trainer_state.json`` last, so what has a readable one is whole.
    """
    steps = {path: path.name.rpartition("-")[2] for path in folder.glob("checkpoint-*")}
    numbered = {path: int(step) for path, step in steps.items() if step.isdecimal()}  # others are a person's copies
    found = sorted(numbered, key=numbered.__getitem__, reverse=True)
    whole = [path for path in found if _is_whole(path)]
    for path in found:
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)
    return whole[0] if whole else None


def was_the_last(checkpoint: Path) -> bool:
    """Whether the training had ended there, and only its result was not written yet."""
    control = read_state(checkpoint).stateful_callbacks.get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


def check_processes(checkpoint: Path, processes: int) -> None:
    """Refuse to go on with another number of processes: batches, schedule and order of the samples would change midway.

    Args:
        checkpoint: a whole one.
        processes: of this training.

    Raises:
        RecipeError: it was written by another number.
    """
    written_by = len(list(checkpoint.glob("rng_state_*.pth"))) or 1  # one file of random numbers a process
    if written_by != processes:
        raise RecipeError(
            f"the checkpoint {checkpoint} was written by another number of processes",
            expected=str(written_by),
            given=str(processes),
            fix=f"go on with {written_by}"
            + (f" (torchrun --nproc-per-node {written_by} ...)" if written_by > 1 else "")
            + ", or --overwrite to train anew",
        )


def read_state(checkpoint: Path) -> Any:
    """The `transformers.TrainerState` of a whole checkpoint."""
    return transformers.TrainerState.load_from_json(str(checkpoint / _STATE))


def _is_whole(checkpoint: Path) -> bool:
    try:
        return isinstance(json.loads((checkpoint / _STATE).read_text()), dict)
    except (OSError, ValueError):
        return False
