"""The one training entry of all recipes: Hugging Face's Trainer; rows differ by data and model only."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from mi2p_inject.recipes.config import TrainConfig
from mi2p_inject.recipes.models import Classifier

__all__ = ["Collator", "OnStep", "predict", "train"]

Collator = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
OnStep = Callable[[int, int], None]  # steps done, steps in all


def train(model: Classifier, data: Any, collator: Collator, config: TrainConfig, on_step: OnStep) -> float:
    """Train in place.

    Args:
        model: anything with ``forward(**batch) -> {"loss", "logits"}`` that knows its new parameters.
        data: a `datasets.Dataset`.
        collator: list of rows -> batch.
        config: the schedule.
        on_step: called after each optimiser step with (done, all).

    Returns:
        Seconds.
    """
    steps = math.ceil(len(data) / config.batch_size) * config.epochs
    optimizer = torch.optim.AdamW(_parameter_groups(model, config))
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, round(config.warm_up * steps), steps)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(
            model,
            collator,
            config,
            folder,
            train_dataset=data,
            optimizers=(optimizer, scheduler),
            callbacks=[_Progress(on_step)],
        )
        trainer.train()
    return time.perf_counter() - started


def predict(model: Classifier, data: Any, collator: Collator, config: TrainConfig) -> NDArray[np.float32]:
    """Logits (N, K) of every row, in order, in eval mode."""
    with tempfile.TemporaryDirectory() as folder:
        logits = _trainer(model, collator, config, folder).predict(data).predictions
    return np.asarray(logits, dtype=np.float32)


def _trainer(model: nn.Module, collator: Collator, config: TrainConfig, folder: str, **more: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=64,
        seed=config.seed,
        data_seed=config.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(model=model, args=arguments, data_collator=collator, **more)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _parameter_groups(model: Classifier, config: TrainConfig) -> list[dict[str, Any]]:
    """Two rates; matrices and kernels decay, vectors (biases, norms, gates) do not."""
    groups = []
    parts = ((model.pretrained_parameters(), config.rate_pretrained), (model.new_parameters(), config.rate_new))
    for parameters, rate in parts:
        listed = list(parameters)
        for chosen, decay in (
            ([p for p in listed if p.ndim > 1], config.weight_decay),
            ([p for p in listed if p.ndim <= 1], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return groups


class _Progress(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._on_step(state.global_step, state.max_steps)
