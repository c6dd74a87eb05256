"""The one training entry of the recipes: Hugging Face's Trainer, with our parameter groups, checkpoints and errors."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from mi2p_inject.recipes.config import Config, OptimisationConfig
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.classifier import Classifier
from mi2p_inject.recipes.training.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.training.progress import OnStep

__all__ = ["Fitted", "Measure", "fit", "last_checkpoint", "predict"]

Measure = Callable[[NDArray[np.float32], NDArray[np.int64]], dict[str, float]]
"""(logits, labels) -> metrics"""

_TIMES = ("eval_runtime", "eval_samples_per", "eval_steps_per")
_STATE = "trainer_state.json"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"


@dataclass(frozen=True)
class Fitted:
    """What a training leaves besides the weights in the model.

    Attributes:
        history: one entry a step and one an evaluation, in order, a resumed run's earlier ones included.
        best_step: whose weights the model has.
        seconds: of this process; a resumed run counts its own part only.
    """

    history: list[dict[str, float]]
    best_step: int
    seconds: float


def fit(
    model: Classifier,
    config: Config,
    train: ImageTextDataset,
    validation: ImageTextDataset | None,
    collator: Collator,
    folder: Path,
    *,
    measure: Measure,
    metric: str,
    on_step: OnStep = lambda done, steps: None,
) -> Fitted:
    """Train in place, to the best checkpoint on the validation part; go on from the last checkpoint in the folder.

    Args:
        model: what to train.
        config: the schedule.
        train, validation: the data; without a validation part the last weights are kept.
        collator: items -> batch.
        folder: of the run; gets ``checkpoints/``, and ``tensorboard/`` where asked for.
        measure: metrics on the validation part.
        metric: the one by which the best checkpoint is chosen.
        on_step: called after each step.

    Raises:
        RecipeError: the loss is no number, or a checkpoint cannot be written.
    """
    started = time.perf_counter()
    callbacks: list[Any] = [_Epochs(train), _Watch(on_step)]
    if config.run.save_steps:
        callbacks.append(_SaveEvery(config.run.save_steps))
    if config.optimisation.patience and validation is not None:
        callbacks.append(transformers.EarlyStoppingCallback(config.optimisation.patience))
    evaluated = "no" if validation is None else "epoch"
    if config.run.tensorboard:
        if not any(map(find_spec, ("tensorboard", "tensorboardX"))):
            raise RecipeError("tensorboard is not installed", fix="pip install 'mi2p-inject[logs]'")
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / TENSORBOARD)
    arguments = _arguments(
        config,
        folder / CHECKPOINTS,
        eval_strategy=evaluated,
        save_strategy="epoch",
        save_total_limit=2,  # the best and the last; with 1 the last would be gone when the training ends
        load_best_model_at_end=validation is not None,
        metric_for_best_model=metric if validation is not None else None,
        greater_is_better=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=["tensorboard"] if config.run.tensorboard else "none",
    )
    trainer = _Trainer(
        config,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=lambda result: measure(result.predictions, result.label_ids),
        callbacks=callbacks,
    )
    if trainer.is_fsdp_enabled:
        raise RecipeError(
            "this training does not write sharded checkpoints",
            fix="launch it with torchrun (DDP); for FSDP take `recipes.classifier` and a loop of your own",
        )
    resumed = last_checkpoint(folder / CHECKPOINTS)
    if resumed is not None and _was_the_last(resumed):
        state = _read_state(resumed)
        best = resumed.with_name(f"checkpoint-{state.best_global_step or state.global_step}")
        load_model(model, best / "model.safetensors")
    else:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        state = trainer.state
    history = [
        {name: value for name, value in sorted(entry.items()) if not name.startswith(_TIMES)}
        for entry in state.log_history
        if "train_runtime" not in entry
    ]
    return Fitted(history, state.best_global_step or state.global_step, time.perf_counter() - started)


def predict(model: nn.Module, data: ImageTextDataset, collator: Collator, config: Config) -> NDArray[np.float32]:
    """Logits (N, K) of every row, in order, in eval mode."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(model=model, args=_arguments(config, Path(folder)), data_collator=collator)
        return np.asarray(trainer.predict(data).predictions, dtype=np.float32)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones, of a run that was killed while it wrote, are removed.

    The Trainer writes ``trainer_state.json`` last, so what has a readable one is whole.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    whole = [path for path in found if _is_whole(path)]
    for path in found:
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)
    return whole[0] if whole else None


def _was_the_last(checkpoint: Path) -> bool:
    """Whether the training had ended there, and only its result was not written yet."""
    control = _read_state(checkpoint).stateful_callbacks.get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


def _read_state(checkpoint: Path) -> Any:
    return transformers.TrainerState.load_from_json(str(checkpoint / _STATE))


def _is_whole(checkpoint: Path) -> bool:
    try:
        return isinstance(json.loads((checkpoint / _STATE).read_text()), dict)
    except (OSError, ValueError):
        return False


def _arguments(config: Config, folder: Path, **more: Any) -> Any:
    cuda = torch.cuda.is_available()
    precision = config.run.precision
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and not cuda:
        raise RecipeError("precision=fp16 needs a GPU", fix="--set precision=bf16, or fp32")
    given = {"save_strategy": "no", "report_to": "none", **more}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder.absolute()),
        num_train_epochs=config.optimisation.epochs,
        max_steps=config.optimisation.max_steps or -1,
        per_device_train_batch_size=config.optimisation.batch_size,
        per_device_eval_batch_size=config.run.eval_batch_size,
        gradient_accumulation_steps=config.optimisation.gradient_accumulation_steps,
        learning_rate=config.optimisation.learning_rate,
        lr_scheduler_type={"cosine": "cosine", "constant": "constant_with_warmup"}[config.optimisation.schedule],
        warmup_steps=config.optimisation.warmup_ratio,
        max_grad_norm=config.optimisation.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        seed=config.run.seed,
        data_seed=config.run.seed,
        dataloader_num_workers=config.run.num_workers,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        ddp_find_unused_parameters=True,  # a batch may lack a modality
        **given,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # never nn.DataParallel: several GPUs are torchrun's business
    return arguments


class _Trainer(transformers.Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Our parameter groups; weights as safetensors even where tensors are shared; errors that say what to do."""

    def __init__(self, config: Config, **given: Any) -> None:
        super().__init__(**given)
        self._config = config
        self._new_parameters: set[str] = given["model"].new_parameters()
        self.remove_callback(transformers.PrinterCallback)

    optimizer: Any

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self._config.optimisation.optimizer]
            self.optimizer = kind(
                parameter_groups(model or self.model, self._new_parameters, self._config.optimisation)
            )
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_model(self.model, str(folder / "model.safetensors"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RecipeError(
                f"cannot write a checkpoint after step {self.state.global_step}: {error}",
                expected="room for weights and optimiser state",
                given=str(self.args.output_dir),
                fix="make room and give the same command again: it goes on from the checkpoint before",
            ) from error


def parameter_groups(model: nn.Module, new: set[str], config: OptimisationConfig) -> list[dict[str, Any]]:
    """A rate for what is new and one for each pre-trained encoder; matrices and kernels decay, vectors do not.

    Args:
        model: whose parameters; a wrapper's prefixes in their names do not count.
        new: names of those with ``new_learning_rate``.
        config: the rates and the decay.
    """
    rates = {
        "image": config.vision_learning_rate or config.learning_rate,
        "text": config.text_learning_rate or config.learning_rate,
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = name.removeprefix("module.").replace("_fsdp_wrapped_module.", "")
            rate = config.new_learning_rate if plain in new else rates[plain.split(".")[1]]  # branches.<modality>.…
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": listed, "lr": rate, "weight_decay": decay} for (rate, decay), listed in groups.items()]


class _Epochs(transformers.TrainerCallback):  # type: ignore[misc]
    """Tells the data which epoch it is: their augmentation depends on it."""

    def __init__(self, data: ImageTextDataset) -> None:
        self._data = data

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._data.epoch = int(state.epoch or 0)


class _SaveEvery(transformers.TrainerCallback):  # type: ignore[misc]
    """Checkpoints between the epochs, to resume from."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._steps == 0:
            control.should_save = True


class _Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Progress, and a loss that is no number ends the training at once."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._on_step(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise RecipeError(
                f"the loss is {loss} at step {state.global_step}",
                fix="lower learning_rate and new_learning_rate, raise warmup_ratio, or use --set precision=fp32",
            )
