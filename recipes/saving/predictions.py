"""What a training's model gave for the splits that it was not trained on: a file of the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.tasks import Labels, Logits, Task

__all__ = ["PREDICTIONS", "load_predictions"]

PREDICTIONS = "predictions.safetensors"


def load_predictions(folder: Path, task: Task, decide: Callable[[Logits], Labels]) -> dict[str, NDArray[Any]]:
    """Arrays by name, of the validation and test splits.

    Args:
        folder: of the run.
        task: what was learned.
        decide: its answers to logits.

    Returns:
        ``<split>_logits`` (N, outputs), ``<split>_labels``, ``<split>_groups`` (N,), and ``<split>_present`` (N,),
        whether the model had anything to read: stored where it had not for some.

    Raises:
        RecipeError: the file was left out.
        OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError: it is damaged.
    """
    if not (folder / PREDICTIONS).exists():
        raise RecipeError(
            f"{folder} has no predictions of its splits: `mi2p push` leaves them out",
            expected=PREDICTIONS,
            given="a run from the Hub",
            fix="mi2p eval, with --data",
        )
    found = {name: value.numpy() for name, value in load_file(folder / PREDICTIONS).items()}
    for split in {name.partition("_")[0] for name in found}:
        logits, labels, groups = (found[f"{split}_{kind}"] for kind in ("logits", "labels", "groups"))
        whole = logits.ndim == 2 and logits.shape[1] == task.outputs and len(logits)
        if not whole or not np.isfinite(logits).all():
            raise ValueError(f"logits {logits.shape} of {task.outputs} outputs, or no numbers")
        decide(logits)
        present = found.setdefault(f"{split}_present", np.ones(len(logits), dtype=np.bool_))
        rows = logits.shape[:1]
        if labels.shape not in (rows, logits.shape) or groups.shape != rows or present.shape != rows:
            raise ValueError(
                f"{len(logits)} logits, {labels.shape} labels, {groups.shape} groups, {present.shape} present"
            )
        if present.dtype != np.bool_:
            raise ValueError(f"present of {present.dtype}")
        most = 1 if labels.ndim == 2 else len(task.classes) - 1
        if labels.min() < 0 or labels.max() > most:
            raise ValueError(f"labels from {labels.min()} to {labels.max()}")
    return found
