"""Training in place and prediction, for every system and task."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import transformers
from numpy.typing import NDArray
from torch import nn

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.run_folder import keep_hold
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.systems.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.tasks import Task
from mi2p_inject.recipes.training.checkpoints import (
    CHECKPOINTS,
    check_processes,
    last_checkpoint,
    read_state,
    was_the_last,
)
from mi2p_inject.recipes.training.hf_trainer import Batches, Epochs, OurTrainer, Patience, SaveEvery, Watch, arguments
from mi2p_inject.recipes.training.progress.bars import OnStep, no_progress
from mi2p_inject.recipes.training.progress.logs import logging_to
from mi2p_inject.recipes.training.schedule import epochs_of, least_steps, steps_between_evaluations
from mi2p_inject.recipes.training.sharding import ShardedTrainer, gather, shard

__all__ = ["Fitted", "finite", "fit", "predict"]

_TIMES = ("eval_runtime", "eval_samples_per", "eval_steps_per")


@dataclass(frozen=True)
class Fitted:
    """What a training leaves besides the weights in the model.

    Attributes:
        history: one entry a step and one an evaluation, in order, a resumed run's earlier ones included.
        best_step: whose weights the model has.
        seconds: of this process; a resumed run counts its own time only.
    """

    history: list[dict[str, float]]
    best_step: int
    seconds: float


def fit(
    model: SystemModel,
    config: Config,
    task: Task,
    data: dict[str, ImageTextDataset],
    collator: Collator,
    folder: Path,
    *,
    metric: str,
    on_step: OnStep = no_progress,
    say: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Train in place, to the best checkpoint on the validation split; go on from the last checkpoint in the folder.

    Args:
        model: what to train.
        config: the schedule.
        task: measures on the validation split.
        data: split -> samples; without a validation split the last weights are kept.
        collator: items -> batch.
        folder: of the run; gets ``checkpoints/``, and ``logs/`` where asked for.
        metric: the one by which the best checkpoint is chosen.
        on_step: called after each step.
        say: called with a line after each evaluation, and where a run goes on.

    Raises:
        RecipeError: the loss is no number, or a checkpoint cannot be written.
    """
    started = time.perf_counter()
    watch = Watch(on_step, partial(_evaluated, folder, metric, say), metric)
    sharded = config.run.sharding == "fsdp"
    trained = shard(model, accelerate.PartialState().device) if sharded else model
    build = partial(_trainer, trained, config, task, data, collator, folder, metric, watch)
    resumed = last_checkpoint(folder / CHECKPOINTS)
    if resumed is not None:
        say(f"goes on from step {read_state(resumed).global_step}")
    if resumed is not None and was_the_last(resumed):
        state = read_state(resumed)
        best = resumed.with_name(f"checkpoint-{state.best_global_step or state.global_step}")
        build().load_weights(best)
    else:
        if resumed is not None:
            check_processes(resumed, accelerate.PartialState().num_processes)
        with logging_to(config, folder):
            trainer = build()
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        state = trainer.state
    if sharded:
        gather(trained, model)
    return Fitted(
        _history(state.log_history), state.best_global_step or state.global_step, time.perf_counter() - started
    )


def predict(
    model: nn.Module,
    data: ImageTextDataset,
    collator: Collator,
    config: Config,
    on_step: OnStep = no_progress,
) -> NDArray[np.float32]:
    """Logits (N, K) of every sample, in order, in eval mode; `on_step` is called after each batch.

    Raises:
        RecipeError: some are no numbers.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=model,
            args=arguments(config, Path(folder)),
            data_collator=collator,
            callbacks=[Batches(on_step)],
        )
        return finite(np.asarray(trainer.predict(data).predictions, dtype=np.float32))


def finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same logits (N, K).

    Raises:
        RecipeError: some are no numbers: what they would be answered with is the first class, and means nothing.
    """
    if wrong := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise RecipeError(
            f"the answers to {wrong} of {len(logits)} samples are no numbers",
            expected="finite logits",
            given="nan or inf: ruined weights, or too small a range of numbers",
            fix="train with a lower learning_rate and new_learning_rate (--overwrite), or take precision=fp32",
        )
    return logits


def _history(logged: list[dict[str, float]]) -> list[dict[str, float]]:
    """What is kept of the Trainer's log: no times, which differ from run to run."""
    return [
        {name: value for name, value in sorted(entry.items()) if not name.startswith(_TIMES)}
        for entry in logged
        if "train_runtime" not in entry
    ]


def _evaluated(
    folder: Path,
    metric: str,
    say: Callable[[str], None],
    logged: list[dict[str, float]],
    found: Mapping[str, float],
) -> None:
    """After an evaluation: a line, and history.json as far as it goes."""
    earlier = [entry["epoch"] for entry in logged if f"eval_{metric}" in entry and entry["epoch"] < found["epoch"]]
    since = max(earlier, default=0.0)
    losses = [entry["loss"] for entry in logged if "loss" in entry and entry["epoch"] > since]
    loss = f"loss {np.mean(losses):.3f}, " if losses else ""
    say(f"epoch {found['epoch']:.0f}: {loss}validation {metric} {found[f'eval_{metric}']:.3f}")
    content = json.dumps(_history(logged), indent=2) + "\n"
    keep_hold(folder)
    write_file(folder / "history.json", lambda file: file.write_text(content, encoding="utf-8"))


def _measured(task: Task, result: Any) -> dict[str, float]:
    """Every metric that may choose the best checkpoint."""
    true = result.label_ids.astype(np.int64)
    decided, probabilities = task.answers(result.predictions, task.usual_decision())
    return task.measure(true, decided) | task.measure_ranking(true, probabilities)


def _trainer(
    model: SystemModel,
    config: Config,
    task: Task,
    data: dict[str, ImageTextDataset],
    collator: Collator,
    folder: Path,
    metric: str,
    watch: Watch,
) -> OurTrainer:
    validation = data.get("validation")
    often = steps_between_evaluations(config.optimisation, len(data["train"]))
    when = "epoch" if often is None else "steps"
    callbacks: list[Any] = [Epochs(data["train"]), watch]
    if config.run.save_steps:
        callbacks.append(SaveEvery(config.run.save_steps))
    if config.optimisation.patience and validation is not None:
        callbacks.append(Patience(config.optimisation.patience, least_steps(config.optimisation)))
    kind = ShardedTrainer if config.run.sharding == "fsdp" else OurTrainer
    return kind(
        config,
        model=model,
        args=arguments(
            config,
            folder / CHECKPOINTS,
            num_train_epochs=epochs_of(config.optimisation, len(data["train"])),
            eval_strategy="no" if validation is None else when,
            save_strategy=when,
            **({} if often is None else {"eval_steps": often, "save_steps": often}),
            save_total_limit=2,  # the best and the last; with 1 the last would be gone when the training ends
            load_best_model_at_end=validation is not None,
            metric_for_best_model=metric if validation is not None else None,
            greater_is_better=True,
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to=config.run.log or "none",
        ),
        data_collator=collator,
        train_dataset=data["train"],
        eval_dataset=validation,
        compute_metrics=lambda result: _measured(task, result),
        callbacks=callbacks,
    )
