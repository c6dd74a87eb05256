"""What a finished training says: predictions and the numbers of metrics.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.evaluation.metrics import bootstrap_metrics
from mi2p_inject.recipes.systems import PRETRAINED, SystemModel
from mi2p_inject.recipes.tasks import Decision, Labels, Task
from mi2p_inject.recipes.training.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.training.trainer import predict

__all__ = ["numbers_of", "predict_splits", "targets_of"]

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


def predict_splits(
    model: SystemModel,
    config: Config,
    task: Task,
    samples: Samples,
    data: Mapping[str, ImageTextDataset],
    collator: Collator,
) -> dict[str, NDArray[Any]]:
    """``<split>_logits`` (N, outputs), ``<split>_labels`` (targets) and ``<split>_groups`` (N,) of what was not trained
    on."""
    found: dict[str, NDArray[Any]] = {}
    for split in _SPLITS:
        if split in data:
            found[f"{split}_logits"] = predict(model, data[split], collator, config)
            found[f"{split}_labels"] = targets_of(task, samples, split)
            groups = np.asarray(samples.splits[split]["group"][:], dtype=object).astype(str)
            found[f"{split}_groups"] = np.unique(groups, return_inverse=True)[1].astype(np.int64)
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
    decision = task.usual_decision()
    if "validation_logits" in predictions:
        decision = task.tune(predictions["validation_logits"], predictions["validation_labels"])
    groups = model.parameter_groups()
    trained = [(groups[name], p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    return {
        "problem_type": task.name,
        "classes": list(task.classes),
        "decision": dict(decision),
        "splits": {name: len(rows) for name, rows in samples.splits.items()},
        **_scores(config, task, predictions, decision),
        "baseline": _baseline(task, samples, predictions),
        "encoders": {modality: encoder.name for modality, encoder in encoders.items()},
        "parameters": {
            "pretrained": sum(count for group, count in trained if group in PRETRAINED),
            "new": sum(count for group, count in trained if group not in PRETRAINED),
        },
        "notes": list(samples.notes),
        "config": config.to_json(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def _scores(
    config: Config, task: Task, predictions: Mapping[str, NDArray[Any]], decision: Decision
) -> dict[str, dict[str, Any]]:
    """Split -> its metrics with intervals, and the F1 of each class."""
    scores: dict[str, dict[str, Any]] = {}
    for split in _SPLITS:
        if f"{split}_logits" in predictions:
            true, groups = predictions[f"{split}_labels"], predictions[f"{split}_groups"]
            decided = task.decide(predictions[f"{split}_logits"], decision)
            intervals = bootstrap_metrics(task, true, decided, groups, seed=config.run.seed)
            scores[split] = {name: asdict(one) for name, one in intervals.items()}
            scores[split]["f1_of_classes"] = task.f1_of_classes(true, decided)
    return scores


def _baseline(task: Task, samples: Samples, predictions: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What a model scores that reads nothing and always gives the same answer."""
    answer = task.baseline(targets_of(task, samples, "train"))
    found: dict[str, Any] = {"answer": task.text(answer)}
    for split in _SPLITS:
        if f"{split}_labels" in predictions:
            true = predictions[f"{split}_labels"]
            found[split] = task.measure(true, np.broadcast_to(answer, true.shape))
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
