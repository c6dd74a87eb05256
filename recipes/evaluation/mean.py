"""The mean of several runs, as `mi2p table` reports it of models that were trained apart: one answer of all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mi2p_inject.fusion import mean_scores
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.metrics.decisions import choose_decision
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.columns import Cells, given_cells
from mi2p_inject.recipes.tasks import Decision, Logits, Task, scaled_logits

__all__ = [
    "Answering",
    "MeanRun",
    "cells_of_runs",
    "check_something_read",
    "combined",
    "mean_logits",
    "mean_of",
    "models_of",
    "notes_of",
    "runs_of",
    "unread_note",
]

_SHOWN = 8  # classes that an error names


@dataclass(frozen=True)
class MeanRun:
    """Several runs of one task, whose mean probability answers.

    Attributes:
        runs: two or more; each is scaled by its own temperature before.
        task: of all.
        decision: what the mean is decided by, chosen on the validation split that all runs share.
        notes: why that could not be done, or how, where the runs do not choose alike.
    """

    runs: tuple[SavedRun, ...]
    task: Task
    decision: Decision
    notes: tuple[str, ...] = ()


Answering = SavedRun | MeanRun
"""What answers: a run, or the mean of several."""


def runs_of(answering: Answering) -> tuple[SavedRun, ...]:
    """The runs that an answer is made of."""
    return answering.runs if isinstance(answering, MeanRun) else (answering,)


def notes_of(answering: Answering) -> tuple[str, ...]:
    """What there is to say of how a mean decides; of a run nothing."""
    return answering.notes if isinstance(answering, MeanRun) else ()


def models_of(runs: Sequence[SavedRun]) -> str:
    """The names of their models, for messages."""
    return " and ".join(dict.fromkeys(repr(run.config.model.model) for run in runs))


def cells_of_runs(answering: Answering, given: Mapping[str, Any] | None) -> Iterator[tuple[SavedRun, Cells | None]]:
    """Each run with the cells that it reads of those that somebody names for one sample.

    Args:
        answering: a run, or the mean of several.
        given: cells by name.

    Raises:
        RecipeError: a name that no run reads.
        SourceError: no number where there must be one.
    """
    known = [(run, run.columns()) for run in runs_of(answering)]
    read = {name for _, columns in known if columns is not None for name in columns.names}
    for run, columns in known:
        others = read - set(() if columns is None else columns.names)
        yield run, given_cells(columns, {name: cell for name, cell in (given or {}).items() if name not in others})


def check_something_read(runs: Sequence[SavedRun], modalities: Sequence[Collection[str]], name: str) -> list[str]:
    """Notes on the runs that have nothing to read in data of which others read something.

    Args:
        runs: one, or those of a mean.
        modalities: which of image and text there is, as each reads the data.
        name: of the data.

    Raises:
        RecipeError: no run has anything to read.
    """
    reads = [run.config.model.system.modalities for run in runs]
    without = [run for run, own, there in zip(runs, reads, modalities, strict=True) if not {*own} & {*there}]
    if len(without) == len(runs):
        raise RecipeError(
            f"model {models_of(runs)} has nothing to read in {name}",
            expected=" or ".join(dict.fromkeys(f"{modality}s" for own in reads for modality in own)),
            given=", ".join(sorted({modality for there in modalities for modality in there})) or "neither",
            fix="name the column: --image-col, --text-col",
        )
    return [unread_note(run) for run in without]


def unread_note(run: SavedRun) -> str:
    """On a run that has nothing to read in data which the others of a mean read."""
    return f"model {run.config.model.model!r} has nothing to read in these data and does not count"


def mean_of(runs: Sequence[SavedRun]) -> Answering:
    """The mean of runs; of a single one the run itself.

    Temperature and thresholds of the mean are chosen on the validation split, from the predictions that each run keeps,
    as `mi2p table` does for its means: tuned and calibrated as the first run is, with a note where others are not.

    Args:
        runs: finished ones, of the same classes.

    Raises:
        RecipeError: one is given twice, or they answer different questions.
    """
    first, *others = runs
    if not others:
        return first
    places = [run.path.resolve() for run in runs]
    if twice := [run.path for run, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise RecipeError(f"{twice[0]} is given twice", expected="runs that differ", fix="name it once")
    for run in others:
        _check_same_task(first, run)
    fault = _why_not_chosen(runs)
    if fault:
        return MeanRun(tuple(runs), first.task, first.task.usual_decision(), (fault,))
    found = [run.predictions() for run in runs]
    true = found[0]["validation_labels"]
    logits = mean_logits(
        first.task,
        [_scaled(run, one["validation_logits"]) for run, one in zip(runs, found, strict=True)],
        [one["validation_present"] for one in found],
    )
    decision = choose_decision(first.task, logits, true, first.config.answers)
    return MeanRun(tuple(runs), first.task, decision, _unlike(runs))


def combined(answering: Answering, logits: Sequence[Logits], present: Sequence[NDArray[np.bool_]]) -> Logits:
    """The logits that an answer is decided by: a run's own, or those of the mean.

    Args:
        answering: a run, or the mean of several.
        logits: of each of its runs, (N, outputs), as its model gives them.
        present: of each, (N,) whether it had anything to read.
    """
    if not isinstance(answering, MeanRun):
        return logits[0]
    found = [_scaled(run, one) for run, one in zip(answering.runs, logits, strict=True)]
    return mean_logits(answering.task, found, present)


def mean_logits(task: Task, logits: Sequence[Logits], present: Sequence[NDArray[np.bool_]]) -> Logits:
    """(N, outputs) logits of the mean probability.

    Args:
        task: of all models.
        logits: of each model, (N, outputs), scaled by its temperature.
        present: of each model, (N,) whether it had anything to read; a row without any counts all.
    """
    given = torch.stack([torch.from_numpy(np.asarray(one, dtype=np.float64)) for one in logits])
    there = torch.stack([torch.from_numpy(one) for one in present])
    found: NDArray[np.float64] = mean_scores(given, there, multi_label=task.independent).numpy()
    return found


def _scaled(run: SavedRun, logits: Logits) -> Logits:
    """A run's logits after its own temperature."""
    return scaled_logits(logits, run.decision.get("temperature", 1.0))


def _check_same_task(first: SavedRun, other: SavedRun) -> None:
    if (first.task.name, first.task.classes) == (other.task.name, other.task.classes):
        return
    ours, theirs = (f"{run.path}: {run.task.name}, {_listed(run.task.classes)}" for run in (first, other))
    raise RecipeError(
        "runs of different classes have no mean",
        expected=ours,
        given=theirs,
        fix="name runs that were trained on the same labels",
    )


def _listed(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
    return f"{len(classes)} classes ({shown})"


def _unlike(runs: Sequence[SavedRun]) -> tuple[str, ...]:
    """A note where the runs do not choose alike what they decide by."""
    first, *others = [_choices(run) for run in runs]
    differ = [name for name in first if any(one[name] != first[name] for one in others)]
    if not differ:
        return ()
    shown = ", ".join(f"{name}={first[name]}" for name in differ)
    return (f"the runs differ in {' and '.join(differ)}: the mean is decided as {runs[0].path} is, by {shown}",)


def _choices(run: SavedRun) -> dict[str, str]:
    """The options of `choose_decision` that count for a run's task."""
    answers = run.config.answers
    of_labels = {"thresholds": answers.thresholds or "tuned"} if run.task.usual_decision() else {}
    return of_labels | {"calibrate": "false" if answers.calibrate is False else "true"}


def _why_not_chosen(runs: Sequence[SavedRun]) -> str:
    """Why the mean's temperature and thresholds cannot be chosen; "" where they can."""
    usual = "the mean is decided " + ("by labels from 0.5 on" if runs[0].task.usual_decision() else "as it comes")
    if any(run.fingerprint != runs[0].fingerprint for run in runs):
        return f"the runs were trained on other samples, or split otherwise: {usual}"
    if not all(run.has_predictions for run in runs):
        return f"a run from the Hub has no predictions of its validation split: {usual}"
    if any("validation" not in run.numbers["splits"] for run in runs):
        return f"there is no validation split: {usual}"
    return ""
