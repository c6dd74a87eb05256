"""What answers are decided by, chosen on the validation split: a temperature and, with several labels, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mi2p_inject.recipes.config import AnswersConfig, Config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.metrics.probability_metrics import log_loss
from mi2p_inject.recipes.tasks import Decision, Labels, Logits, Task, scaled_logits

__all__ = ["PRIOR", "check_decision", "choose_decision", "fit_temperature"]

_LARGEST = 20.0
"""Temperature, and its inverse the smallest one."""

PRIOR = 0.25
"""Standard deviation of the logarithm of a temperature, before a validation split is seen."""


def check_decision(config: Config, task: Task, splits: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether what is asked for can be chosen, before anything is trained.

    Args:
        config: what is asked for.
        task: what is learned.
        splits: by name.

    Returns:
        What a user should know.

    Raises:
        RecipeError: something is to be tuned, and there is no validation split or nothing to tune.
    """
    asked = {"thresholds=tuned": config.answers.thresholds == "tuned", "calibrate=true": config.answers.calibrate}
    given = [name for name, holds in asked.items() if holds]
    if given and "validation" not in splits:
        raise RecipeError(
            f"{' and '.join(given)} needs a validation split",
            expected="train, validation, test",
            given=", ".join(splits),
            fix="leave it out, or give a validation split",
        )
    if config.answers.thresholds is not None and not task.usual_decision():
        raise RecipeError(
            f"thresholds={config.answers.thresholds}: a {task.name} task has none",
            expected="a task that decides by thresholds, such as multi-label",
            given=task.name,
            fix="leave thresholds out",
        )
    if "validation" in splits:
        if task.independent and not any(splits["validation"]["label"]):
            raise RecipeError(
                "no validation sample has a label, so nothing can be chosen by them",
                expected="validation samples with labels",
                given=f"{len(splits['validation'])} without",
                fix="give other splits, or leave the split column out",
            )
        return ()
    if task.usual_decision():
        return ("there is no validation split: nothing is tuned, a label holds from 0.5 on",)
    return () if config.answers.calibrate is False else ("there is no validation split: probabilities stay as trained",)


def choose_decision(task: Task, logits: Logits, true: Labels, answers: AnswersConfig) -> Decision:
    """What to decide by.

    Args:
        task: what is learned.
        logits: of the validation split.
        true: targets of the validation split.
        answers: whether the task's own part is tuned, and whether a temperature is fitted first: thresholds are then
            those of the calibrated probabilities.
    """
    calibrate = answers.calibrate is not False
    temperature = fit_temperature(task, logits, true) if calibrate else 1.0
    scaled = scaled_logits(logits, temperature)
    decision = task.usual_decision() if answers.thresholds == "fixed" else task.tune(scaled, true)
    return {**decision, "temperature": temperature} if calibrate else decision


def fit_temperature(task: Task, logits: Logits, true: Labels, *, prior: float = PRIOR) -> float:
    """The likeliest temperature, from 1/20 to 20: one number for all classes (Guo et al. 2017, section 4.2).

    By log-loss alone, few samples that are all right ask for a temperature of 0. So the logarithm of the temperature
    has a normal prior around 0: a hundred samples outweigh it, ten do not.

    Args:
        task: makes probabilities of logits.
        logits: (N, outputs).
        true: N targets.
        prior: standard deviation of that prior; `benchmarks.calibration` compares others.

    Examples:
        >>> from mi2p_inject.recipes.tasks import SingleLabel
        >>> task, of_four = SingleLabel(("a", "b")), np.array([0, 0, 0, 1])
        >>> logits = np.array([[2.0, 0.0]] * 4000)  # three of four are right, with a confidence of 0.88
        >>> round(fit_temperature(task, logits, np.tile(of_four, 1000)), 2)  # 2 / log 3
        1.8
        >>> round(fit_temperature(task, logits[:4], of_four), 2)  # four samples say little
        1.06
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        likely = task.probabilities(scaled_logits(logits, float(np.exp(log_temperature))))
        return true.size * log_loss(true, likely) + (log_temperature / prior) ** 2 / 2

    bound = float(np.log(_LARGEST))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))
