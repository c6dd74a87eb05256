"""What a run and the mean of several answer alike, from Python: labels, probabilities, metrics."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.evaluation.answers import Answers
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file
from mi2p_inject.recipes.evaluation.mean import Answering, runs_of
from mi2p_inject.recipes.paths import home_path
from mi2p_inject.recipes.saving.saved import SavedRun, load_run
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.training.progress.bars import short_progress

__all__ = ["Asked", "LoadedRun", "read_run", "seen"]


class Asked:
    """What can be asked for labels and probabilities.

    Args:
        answering: a run, or the mean of several.

    Attributes:
        classes: names of the classes, in the order of probabilities.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering, self.classes = answering, answering.task.classes

    def predict(self, data: Any, **options: Any) -> NDArray[Any]:
        """The label of each row; a list of labels where there may be several; None where there was nothing to read.

        Args:
            data: as for `fit`, without labels.
            **options: of `mi2p predict`, such as ``text_col="title"``.

        Returns:
            (N,) objects, in the order of the rows.

        Raises:
            RecipeError: the data have nothing that the model reads.
        """
        key = "labels" if self._answering.task.multi_label else "label"
        found = [answer[key] for answer in self._asked(data, options)]
        labels = np.empty(len(found), dtype=object)
        labels[:] = found
        return labels

    def predict_proba(self, data: Any, **options: Any) -> NDArray[np.float64]:
        """(N, classes) probabilities in the order of `classes`; NaN where there was nothing to read; as `predict`."""
        nothing = dict.fromkeys(self.classes, float("nan"))
        rows = [answer["probabilities"] or nothing for answer in self._asked(data, options)]
        return np.array([[row[name] for name in self.classes] for row in rows], dtype=np.float64)

    def evaluate(self, data: Any = None, *, split: str = "test", **options: Any) -> dict[str, Any]:
        """Metrics with intervals, as `mi2p eval`; None: on the data of the training.

        Raises:
            RecipeError: no such split, or data that do not fit the model.
        """
        path = None if data is None else self._file(data, options)
        with short_progress(Console(stderr=True, quiet=not seen()), "evaluating") as on_step:
            return evaluate_run(self._answering, path, options, split, on_step)

    def _asked(self, data: Any, options: Mapping[str, Any]) -> Answers:
        return predict_file(self._answering, self._file(data, options), options, progress=seen())

    def _file(self, data: Any, options: Mapping[str, Any]) -> str:
        of_runs = [run.config.data.image_col for run in runs_of(self._answering)]
        return as_file(data, *([options["image_col"]] if "image_col" in options else of_runs))


class LoadedRun(SavedRun):
    """A saved run that builds its model once."""

    @cached_property
    def _built(self) -> tuple[SystemModel, Mapping[Modality, Encoder]]:
        return SavedRun.model(self)

    def model(self) -> tuple[SystemModel, Mapping[Modality, Encoder]]:
        return self._built


def read_run(path: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> LoadedRun:
    """A finished run, as `mi2p_inject.recipes.saving.saved.load_run` reads it."""
    found = load_run(home_path(path), revision=revision, token=token)
    return LoadedRun(found.path, found.config, found.task, found.decision, found.numbers)


def seen() -> bool:
    """Whether somebody looks on: in a terminal, or in a notebook."""
    return sys.stderr.isatty() or Console().is_jupyter
