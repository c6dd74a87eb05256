"""What a finished training says: predictions and the numbers of metrics.json."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.samples import present, with_text
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.metrics.decisions import check_decision, choose_decision
from mi2p_inject.recipes.metrics.metric_info import info_of
from mi2p_inject.recipes.metrics.metrics import resampled_answers
from mi2p_inject.recipes.metrics.resampling import Resampled, few_groups
from mi2p_inject.recipes.systems import PRETRAINED, SystemModel
from mi2p_inject.recipes.systems.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.tasks import Decision, Labels, Task
from mi2p_inject.recipes.training.progress.bars import OnStep, no_progress
from mi2p_inject.recipes.training.trainer import predict

__all__ = ["described", "numbers_of", "predict_splits", "readable", "targets_of"]

_SPLITS = ("validation", "test")
_PACKAGES = (
    "mi2p-inject",
    "torch",
    "timm",
    "transformers",
    "accelerate",
    "datasets",
    "scikit-learn",
    "open_clip_torch",
)


def targets_of(task: Task, samples: Samples, split: str) -> Labels:
    """The targets of a split."""
    return task.encode(samples.splits[split]["label"][:])


def readable(rows: Any, modalities: Iterable[str]) -> NDArray[np.bool_]:
    """(N,) whether there is anything to read for a model of these modalities: a text, or a picture that opens.

    Args:
        rows: a split of `Samples`.
        modalities: one or more.
    """
    modalities = set(modalities)
    found = with_text(rows) if "text" in modalities else np.zeros(len(rows), dtype=np.bool_)
    if "image" in modalities and not found.all():
        rest = np.flatnonzero(~found)
        found[rest] = present(rows.select(rest), "image")
    return found


def predict_splits(
    model: SystemModel,
    config: Config,
    task: Task,
    samples: Samples,
    data: Mapping[str, ImageTextDataset],
    collator: Collator,
    on_step: OnStep = no_progress,
) -> dict[str, NDArray[Any]]:
    """``<split>_logits`` (N, outputs), ``<split>_labels`` (targets) and ``<split>_groups`` (N,) of what was not trained
    on; ``<split>_present`` (N,) where the model had nothing to read for some."""
    found: dict[str, NDArray[Any]] = {}
    for split in _SPLITS:
        if split in data:
            found[f"{split}_logits"] = predict(model, data[split], collator, config, on_step)
            found[f"{split}_labels"] = targets_of(task, samples, split)
            groups = np.asarray(samples.splits[split]["group"][:], dtype=object).astype(str)
            found[f"{split}_groups"] = np.unique(groups, return_inverse=True)[1].astype(np.int64)
            there = readable(samples.splits[split], config.model.system.modalities)
            if not there.all():
                found[f"{split}_present"] = there
    return found


def numbers_of(
    config: Config,
    task: Task,
    samples: Samples,
    encoders: Mapping[Modality, Encoder],
    model: SystemModel,
    predictions: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """metrics.json, but for what only the training knows: best step and seconds.

    Args:
        config: what was trained.
        task: what was learned.
        samples: the data.
        encoders: modality -> encoder.
        model: the trained one.
        predictions: of `predict_splits`.
    """
    decision = _decision(config, task, predictions)
    scores = _resampled_scores(config, task, predictions, decision)
    baseline = _resampled_baseline(config, task, samples, predictions)
    groups = model.parameter_groups()
    trained = [(groups[name], p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    return {
        "problem_type": task.name,
        "classes": list(task.classes),
        "decision": dict(decision),
        "splits": {name: len(rows) for name, rows in samples.splits.items()},
        **_scores(task, predictions, decision, scores),
        "baseline": _baseline(task, samples, baseline),
        "over_baseline": {split: _intervals(one - baseline[split]) for split, one in scores.items()},
        "remarks": [
            *check_decision(config, task, samples.splits),
            *(line for split in scores for line in few_groups(predictions[f"{split}_groups"], split)),
            *_remarks(task, predictions, decision, scores, baseline),
        ],
        "encoders": {modality: encoder.name for modality, encoder in encoders.items()},
        "parameters": {
            "pretrained": sum(count for group, count in trained if group in PRETRAINED),
            "new": sum(count for group, count in trained if group not in PRETRAINED),
        },
        "notes": list(samples.notes),
        "config": config.to_json(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def described(config: Config, encoders: Mapping[Modality, Encoder], model: SystemModel, samples: Samples) -> str:
    """What is about to be trained on what, in a line."""
    names = " + ".join(encoder.name for encoder in encoders.values())
    counts = " / ".join(f"{len(rows)} {name}" for name, rows in samples.splits.items())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    columns = f", columns {', '.join(config.data.column_names)}" if config.data.column_names else ""
    shown = f"{config.model.system.describe(config.model)} ({names}{columns})"
    return f"{shown}, {trained:,} trained parameters; {counts}, {len(samples.classes)} classes"


def _decision(config: Config, task: Task, predictions: Mapping[str, NDArray[Any]]) -> Decision:
    if "validation_logits" not in predictions:
        return task.usual_decision()
    logits, true = predictions["validation_logits"], predictions["validation_labels"]
    return choose_decision(task, logits, true, config.answers)


def _resampled_scores(
    config: Config, task: Task, predictions: Mapping[str, NDArray[Any]], decision: Decision
) -> dict[str, Resampled]:
    """Split -> all metrics of the model."""
    found = {}
    for split in _SPLITS:
        if f"{split}_logits" in predictions:
            true, groups = predictions[f"{split}_labels"], predictions[f"{split}_groups"]
            decided, likely = task.answers(predictions[f"{split}_logits"], decision)
            found[split] = resampled_answers(task, true, decided, likely, groups, seed=config.run.seed)
    return found


def _resampled_baseline(
    config: Config, task: Task, samples: Samples, predictions: Mapping[str, NDArray[Any]]
) -> dict[str, Resampled]:
    """Split -> all metrics of a model that reads nothing: always the same answer, and how common each class is."""
    targets = targets_of(task, samples, "train")
    answer, prior = task.baseline(targets), task.prior(targets)
    found = {}
    for split in _SPLITS:
        if f"{split}_labels" in predictions:
            true, groups = predictions[f"{split}_labels"], predictions[f"{split}_groups"]
            always, likely = np.broadcast_to(answer, true.shape), np.broadcast_to(prior, (len(true), len(prior)))
            found[split] = resampled_answers(task, true, always, likely, groups, seed=config.run.seed)
    return found


def _scores(
    task: Task, predictions: Mapping[str, NDArray[Any]], decision: Decision, scores: Mapping[str, Resampled]
) -> dict[str, dict[str, Any]]:
    """Split -> its metrics with intervals, and the F1 of each class."""
    found: dict[str, dict[str, Any]] = {}
    for split, resampled in scores.items():
        decided, _ = task.answers(predictions[f"{split}_logits"], decision)
        f1 = task.f1_of_classes(predictions[f"{split}_labels"], decided)
        found[split] = {**_intervals(resampled), "f1_of_classes": f1}
    return found


def _baseline(task: Task, samples: Samples, baseline: Mapping[str, Resampled]) -> dict[str, Any]:
    """What a model scores that reads nothing."""
    answer = task.text(task.baseline(targets_of(task, samples, "train")))
    values = {split: dict(zip(one.names, one.values[0].tolist(), strict=True)) for split, one in baseline.items()}
    return {"answer": answer, **values}


def _remarks(
    task: Task,
    predictions: Mapping[str, NDArray[Any]],
    decision: Decision,
    scores: Mapping[str, Resampled],
    baseline: Mapping[str, Resampled],
) -> list[str]:
    """What a user should know of the answers, from the last split that there is."""
    if not scores:
        return []
    split = list(scores)[-1]
    true = predictions[f"{split}_labels"]
    found = []
    if never := task.unanswered(true, task.answers(predictions[f"{split}_logits"], decision)[0]):
        found.append(f"{split}: never answers {len(never)} of {len(task.classes)} classes: {', '.join(never)}")
    over = (scores[split] - baseline[split]).intervals()
    for name in (task.metrics[0], "log_loss"):
        info = info_of(name)
        if (over[name].high if info.lower_is_better else -over[name].low) >= 0:
            what = f"not surely better in {info.title} than the trivial baseline"
            found.append(f"{split}: {what}, by the paired 95 % interval")
    return found


def _intervals(resampled: Resampled) -> dict[str, dict[str, float]]:
    return {name: asdict(one) for name, one in resampled.intervals().items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
