"""Options of the answers: how they are decided, and what is checked of them after the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mi2p_inject.recipes.config.option import option

__all__ = ["AnswersConfig"]


@dataclass(frozen=True)
class AnswersConfig:
    """How answers are decided, on the validation split, and checked."""

    thresholds: Literal["tuned", "fixed"] | None = option(
        None,
        "with several labels a sample: tuned on the validation split, one for all classes and an own one for classes "
        "with enough samples, or 0.5 for all; default: tuned where there is a validation split",
    )
    calibrate: bool | None = option(
        None,
        "divide the logits by a temperature that is fitted on the validation split: better probabilities; default: "
        "where there is a validation split",
    )
    reading_check: bool = option(
        True,
        "after the training of a model that reads both modalities: the validation metric with one withheld, and with "
        "another sample's",
    )
