"""Hugging Face's Trainer with our optimizer, checkpoints, errors and callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.run_folder import keep_hold
from mi2p_inject.recipes.systems.inputs import ImageTextDataset
from mi2p_inject.recipes.training.optimizer import make_optimizer
from mi2p_inject.recipes.training.progress.bars import OnStep

OnEpoch = Callable[[list[dict[str, float]], Mapping[str, float]], None]
"""(everything that was logged, the evaluation that has just been made)"""

__all__ = ["Batches", "Epochs", "OurTrainer", "Patience", "SaveEvery", "Watch", "arguments"]


def arguments(config: Config, folder: Path, **more: Any) -> Any:
    """The configuration as `transformers.TrainingArguments`.

    Args:
        config: schedule, precision, processes.
        folder: for checkpoints.
        more: further arguments.

    Raises:
        RecipeError: a precision that this machine does not have.
    """
    optimisation, run = config.optimisation, config.run
    cuda = torch.cuda.is_available()
    precision = run.precision
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and not cuda:
        raise RecipeError("precision=fp16 needs a GPU", fix="--set precision=bf16, or fp32")
    given = {"save_strategy": "no", "report_to": "none", **more}
    made = transformers.TrainingArguments(
        output_dir=str(folder.absolute()),
        max_steps=optimisation.max_steps or -1,
        per_device_train_batch_size=optimisation.batch_size,
        per_device_eval_batch_size=run.eval_batch_size,
        gradient_accumulation_steps=optimisation.gradient_accumulation_steps,
        learning_rate=optimisation.learning_rate,
        lr_scheduler_type={"cosine": "cosine", "constant": "constant_with_warmup"}[optimisation.schedule],
        warmup_steps=optimisation.warmup_ratio,
        max_grad_norm=optimisation.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        seed=run.seed,
        data_seed=run.seed,
        dataloader_num_workers=run.num_workers,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        ddp_find_unused_parameters=True,  # a batch may lack a modality
        **given,
    )
    made._n_gpu = min(made.n_gpu, 1)  # never nn.DataParallel: several GPUs are torchrun's business
    return made


class OurTrainer(transformers.Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Our parameter groups; weights as safetensors even where tensors are shared; errors that say what to do."""

    optimizer: Any

    def __init__(self, config: Config, **given: Any) -> None:
        super().__init__(**given)
        self._config = config
        self.remove_callback(transformers.PrinterCallback)

    def load_weights(self, folder: Path) -> None:
        """Put the weights of a checkpoint into the model."""
        load_model(self.model, folder / "model.safetensors")

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer over the model's groups; a wrapper's parameters are the model's own."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self._config.optimisation)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule; a training of a single step has no warm-up, which would begin, and end, with a rate of 0."""
        if num_training_steps < 2:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_model(self.model, str(folder / "model.safetensors"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        keep_hold(Path(self.args.output_dir).parent)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RecipeError(
                f"cannot write a checkpoint after step {self.state.global_step}: {error}",
                expected="room for weights and optimiser state",
                given=str(self.args.output_dir),
                fix="make room and give the same command again: it goes on from the checkpoint before",
            ) from error


class Epochs(transformers.TrainerCallback):  # type: ignore[misc]
    """Gives the data the number of the epoch: their augmentation depends on it."""

    def __init__(self, data: ImageTextDataset) -> None:
        self._data = data

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Sets the data's epoch."""
        self._data.epoch = int(state.epoch or 0)


class Patience(transformers.EarlyStoppingCallback):  # type: ignore[misc]
    """Early stopping that waits for a number of steps.

    Args:
        early_stopping_patience: evaluations without a better metric.
        min_steps: it does not stop before.
    """

    def __init__(self, early_stopping_patience: int = 1, min_steps: int = 0) -> None:
        super().__init__(early_stopping_patience)
        self._min_steps = min_steps

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **given: Any) -> None:
        """Stops, or goes on; a training that ends by itself does."""
        ended = control.should_training_stop
        super().on_evaluate(args, state, control, metrics, **given)
        if state.global_step < self._min_steps:
            control.should_training_stop = ended

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; what it is built from is `__init__`'s arguments."""
        kept: dict[str, Any] = super().state()
        return kept | {"args": {"early_stopping_patience": self.early_stopping_patience, "min_steps": self._min_steps}}


class SaveEvery(transformers.TrainerCallback):  # type: ignore[misc]
    """Checkpoints between the epochs, to resume from.

    None where an epoch or the training ends: the Trainer evaluates first there, then saves. A checkpoint of that step
    from before would go on without the evaluation, and would be written twice in place.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Asks for a checkpoint after every so many steps."""
        if state.global_step % self._steps == 0 and not _ends(args, state):
            control.should_save = True


def _ends(args: Any, state: Any) -> bool:
    """Whether the Trainer saves after this step by itself."""
    at_end = float(state.epoch).is_integer() or state.global_step >= state.max_steps
    return bool(args.save_strategy == "epoch" and at_end)


class Batches(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports each batch of a prediction, in the first process.

    Args:
        on_step: called after each batch.
    """

    def __init__(self, on_step: OnStep) -> None:
        self._on_step, self._done = on_step, 0

    def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **_: Any) -> None:
        """Reports a batch."""
        self._done += 1
        if state.is_world_process_zero:
            self._on_step(self._done, len(eval_dataloader))


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Progress, and a loss that is no number ends the training at once.

    Args:
        on_step: called after each step, in the first process.
        on_epoch: called after each evaluation, likewise.
        metric: of an evaluation, shown beside the loss.
    """

    def __init__(self, on_step: OnStep, on_epoch: OnEpoch, metric: str) -> None:
        self._on_step, self._on_epoch, self._metric = on_step, on_epoch, metric
        self._loss = self._score = ""
        self._batches = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports a step, in the first process."""
        if state.is_world_process_zero:
            self._on_step(state.global_step, state.max_steps, self._loss + self._score)

    def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **_: Any) -> None:
        """Reports how far an evaluation is."""
        self._batches += 1
        if state.is_world_process_zero and state.max_steps:
            note = f"validating, batch {self._batches} of {len(eval_dataloader)}"
            self._on_step(state.global_step, state.max_steps, note)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Reports an evaluation."""
        self._batches, score = 0, (metrics or {}).get(f"eval_{self._metric}")
        self._score = "" if score is None else f", validation {self._metric} {score:.3f}"
        if state.is_world_process_zero:
            self._on_epoch(state.log_history, metrics or {})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Raises where the loss is no number."""
        loss = (logs or {}).get("loss")
        self._loss = self._loss if loss is None else f"loss {loss:.3f}"
        if loss is not None and not math.isfinite(loss):
            raise RecipeError(
                f"the loss is {loss} at step {state.global_step}",
                fix="lower learning_rate and new_learning_rate, raise warmup_ratio, or use --set precision=fp32",
            )
