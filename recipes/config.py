"""The settings of a training, apart from the code that trains: reading them imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TrainConfig", "View"]

View = Literal["picture", "text"]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        epochs: passes over the training part.
        batch_size: samples a step.
        rate_pretrained: learning rate of pre-trained parameters.
        rate_new: learning rate of units and classifier.
        weight_decay: AdamW's, on matrices and kernels only.
        warm_up: part of the steps with a rising rate; a cosine to zero follows.
        seed: of initial values, shuffling, dropout and augmentation.
    """

    epochs: int
    batch_size: int = 32
    rate_pretrained: float = 1e-3
    rate_new: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    seed: int = 0
