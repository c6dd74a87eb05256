"""A run folder -> one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.tables.in_memory import called
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.page.classes import as_flags, class_scores, confusion
from mi2p_inject.recipes.evaluation.page.figures import calibration_figure, confusion_figure, learning_curves
from mi2p_inject.recipes.evaluation.page.template import TEMPLATE
from mi2p_inject.recipes.evaluation.page.worst import Explain, worst_mistakes
from mi2p_inject.recipes.evaluation.run_report import number, reads, shown, title
from mi2p_inject.recipes.explain.loaded import load_expanded
from mi2p_inject.recipes.explain.result import Explanation
from mi2p_inject.recipes.explain.run import explain_run
from mi2p_inject.recipes.metrics.metric_info import info_of, metrics_of
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.columns import by_column, cells_of
from mi2p_inject.recipes.training.train import load_samples, quiet

__all__ = ["html_page"]

_SPLITS = ("validation", "test")


def html_page(run: SavedRun) -> str:
    """Everything worth seeing about a run, as one self-contained HTML file.

    Learning curves, scores with intervals beside the trivial baseline, remarks, the worst mistakes with picture and
    text (where the data are still there), each class, confusion, calibration, data notes and settings.

    Args:
        run: a finished one.

    Raises:
        RecipeError: its files are damaged, or it measured nothing.
    """
    from jinja2 import Environment

    quiet()
    numbers, predictions = run.numbers, run.predictions()
    splits = [split for split in _SPLITS if f"{split}_logits" in predictions]
    if not splits:
        raise RecipeError(
            f"{run.path} measured nothing", expected="a validation or a test split", fix="train on data that have one"
        )
    return (
        Environment(autoescape=True)
        .from_string(TEMPLATE)
        .render(
            title=run.config.model.system.describe(run.config.model),
            encoders=reads(run),
            data=called(Path(run.config.data.data)),
            trained=_trained(run),
            **_scores(run, splits),
            remarks=numbers.get("remarks", []),
            curves=_curves(run),
            **_answers(run, predictions, splits[-1]),
            notes=numbers["notes"],
            settings=", ".join(f"{name}={value}" for name, value in run.config.changed().items()),
            versions=", ".join(f"{name} {version}" for name, version in numbers["versions"].items()),
            shown=lambda one: shown("of a class", asdict(one)),
            tint=_tint,
        )
    )


def _trained(run: SavedRun) -> str:
    numbers = run.numbers
    parameters = numbers["parameters"]
    return (
        f"seed {run.config.run.seed}, {parameters['pretrained']:,} pre-trained and {parameters['new']:,} new parameters"
        f", {numbers['seconds']:.0f} s, weights of step {numbers['best_step']}"
    )


def _scores(run: SavedRun, splits: list[str]) -> dict[str, Any]:
    """The table of splits, with the trivial baseline last."""
    numbers = run.numbers
    names = metrics_of(numbers[splits[-1]])
    rows = [
        {
            "split": split,
            "samples": numbers["splits"][split],
            "cells": [shown(name, numbers[split][name]) if name in numbers[split] else "" for name in names],
        }
        for split in splits
    ]
    always = numbers["baseline"]
    scores = always[splits[-1]]
    cells = [number(name, scores[name]) if name in scores else "" for name in names]
    rows.append({"split": f"always {always['answer']}", "samples": numbers["splits"][splits[-1]], "cells": cells})
    titles = [f"{title(name)}{' ↓' if info_of(name).lower_is_better else ''}" for name in names]
    return {"metrics": titles, "scores": rows, "last": splits[-1]}


def _curves(run: SavedRun) -> str:
    metric = run.numbers["selected_by"]
    return learning_curves(run.history(), metric, title(metric), run.numbers["best_step"])


def _answers(run: SavedRun, predictions: dict[str, Any], split: str) -> dict[str, Any]:
    """What depends on single answers: classes, confusion, calibration, mistakes."""
    task, true = run.task, predictions[f"{split}_labels"]
    logits = predictions[f"{split}_logits"]
    decided, probabilities = run.task.answers(logits, run.decision)
    if task.multi_label:
        confidence, right = probabilities, as_flags(task, true)
    else:
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    samples = _samples(run)
    mistakes: dict[str, Any] = {"no_mistakes": samples} if isinstance(samples, str) else {}
    if not isinstance(samples, str):
        mistakes = {
            "mistakes_of": split,
            "mistakes": worst_mistakes(
                *(task, samples, split, true, decided, probabilities),
                explain=_explainer(run),
                columns=run.config.data.column_names,
            ),
        }
        mistakes["explained"] = any(one.reason for one in mistakes["mistakes"])
    thresholds = run.decision.get("thresholds")
    single = not task.multi_label
    return {
        "single": single,
        "classes": class_scores(task, true, decided, predictions[f"{split}_groups"], seed=run.config.run.seed),
        "thresholds": dict(zip(task.classes, thresholds, strict=True)) if thresholds else None,
        "confusion": confusion_figure(confusion(true, decided, task.classes), task.classes) if single else "",
        "calibration": calibration_figure(confidence.ravel(), np.asarray(right, dtype=bool).ravel(), single=single),
        **mistakes,
    }


def _explainer(run: SavedRun) -> Explain | None:
    """What explains one sample of a run; None where it is not expanded, or kept no weights."""
    try:
        loaded = load_expanded(run)
    except RecipeError:
        return None
    names = run.config.data.column_names

    def explain(image: Any, text: str, target: str, row: Mapping[str, Any]) -> Explanation:
        cells = cells_of(row)
        columns = None if cells is None or not names else by_column(names, cells)
        return explain_run(loaded, image, text, target, columns)

    return explain


def _tint(worth: float) -> str:
    """A background that leaves text readable, dark or light: blue above 0, orange below."""
    colour = "47, 129, 199" if worth > 0 else "217, 130, 43"
    return f"rgba({colour}, {0.6 * min(abs(worth), 1):.2f})"


def _samples(run: SavedRun) -> Samples | str:
    """The data of the training, or why they cannot be shown."""
    try:
        samples = load_samples(run.config)
    except RecipeError as error:
        return f"The data cannot be read any more: {str(error).splitlines()[0]}"
    return samples if samples.fingerprint == run.fingerprint else "The data have changed since the training."
