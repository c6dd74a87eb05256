"""Options of the optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mi2p_inject.recipes.config.option import FRACTION, NOT_NEGATIVE, POSITIVE, option
from mi2p_inject.recipes.tasks import metric_names

__all__ = ["OptimisationConfig"]


@dataclass(frozen=True)
class OptimisationConfig:
    """How it is trained: loss, optimizer, schedule, augmentation, selection."""

    loss: Literal["cross-entropy", "focal"] = option(
        "cross-entropy", "of the right class, or of each label's yes or no; focal gives hard samples more weight"
    )
    focal_gamma: float = option(2.0, "how much more weight the focal loss gives to hard samples", check=NOT_NEGATIVE)
    class_weights: bool = option(False, "weigh classes by the inverse of their frequency in training")
    optimizer: Literal["adamw", "adam"] = option("adamw", "adam is the paper's")
    learning_rate: float = option(5e-5, "of pre-trained parameters", check=POSITIVE)
    new_learning_rate: float = option(5e-4, "of new parameters: units, fusion, classifier", check=POSITIVE)
    unit_learning_rate: float | None = option(
        None,
        "of units; default: new_learning_rate in an image encoder, a third of it in a text encoder",
        check=POSITIVE,
    )
    vision_learning_rate: float | None = option(
        None, "of the image encoder's pre-trained parameters; default: learning_rate", check=POSITIVE
    )
    text_learning_rate: float | None = option(
        None, "of the text encoder's pre-trained parameters; default: learning_rate", check=POSITIVE
    )
    weight_decay: float = option(0.01, "on matrices and kernels only", check=NOT_NEGATIVE)
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "of the learning rates: to zero along a cosine, or constant"
    )
    warmup_ratio: float = option(0.1, "of all steps: the learning rates rise from zero", check=FRACTION)
    epochs: int | None = option(
        None, "passes over the training split; default: 10, or as many as min_steps needs", check=POSITIVE
    )
    min_steps: int = option(
        300,
        "a small training split is passed over until there were so many steps, where epochs is not given",
        check=NOT_NEGATIVE,
    )
    max_steps: int = option(0, "end after so many optimizer steps; 0: as long as the epochs", check=NOT_NEGATIVE)
    batch_size: int = option(32, "samples a batch of one process", check=POSITIVE)
    gradient_accumulation_steps: int = option(1, "batches an optimizer step", check=POSITIVE)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm; 0: not at all", check=NOT_NEGATIVE)
    augment: bool = option(True, "random crops and mirrored pictures in training")
    metric: str | None = option(
        None,
        "chooses the best checkpoint on the validation split; default: accuracy, with several labels a sample "
        "macro_average_precision, which needs no threshold",
        choices=metric_names,
    )
    patience: int = option(
        3,
        "epochs without a better metric before the training ends, but not before min_steps; 0: never ends early",
        check=NOT_NEGATIVE,
    )
