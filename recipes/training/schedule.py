"""How long a training lasts."""

from __future__ import annotations

import math

import accelerate

from mi2p_inject.recipes.config import OptimisationConfig

__all__ = ["USUAL_EPOCHS", "epochs_of", "least_steps", "steps_between_evaluations"]

USUAL_EPOCHS = 10


def epochs_of(config: OptimisationConfig, samples: int) -> int:
    """Passes over the training split: those that are asked for, or enough for ``min_steps`` steps.

    Args:
        config: says how many, or leaves it open.
        samples: of the training split.

    Examples:
        >>> epochs_of(OptimisationConfig(epochs=2), 100), epochs_of(OptimisationConfig(), 64)
        (2, 150)
    """
    return config.epochs if config.epochs is not None else USUAL_EPOCHS * _stretch(config, samples)


def steps_between_evaluations(config: OptimisationConfig, samples: int) -> int | None:
    """Steps from one evaluation and checkpoint to the next; None: those of an epoch.

    Where a small training split is passed over many times, there are as many evaluations as usual, not one a pass: each
    writes the weights and the optimizer's state.

    Args:
        config: the schedule.
        samples: of the training split.

    Examples:
        >>> steps_between_evaluations(OptimisationConfig(), 64), steps_between_evaluations(OptimisationConfig(), 6400)
        (30, None)
    """
    if config.epochs is not None or config.max_steps or _stretch(config, samples) == 1:
        return None
    return _stretch(config, samples) * _steps_of_an_epoch(config, samples)


def _stretch(config: OptimisationConfig, samples: int) -> int:
    """How many times the usual number of epochs ``min_steps`` takes."""
    return max(1, math.ceil(config.min_steps / (USUAL_EPOCHS * _steps_of_an_epoch(config, samples))))


def _steps_of_an_epoch(config: OptimisationConfig, samples: int) -> int:
    processes = int(accelerate.PartialState().num_processes)
    return math.ceil(samples / (config.batch_size * config.gradient_accumulation_steps * processes))


def least_steps(config: OptimisationConfig) -> int:
    """Optimizer steps before which a training does not end early: none where epochs were asked for."""
    return config.min_steps if config.epochs is None else 0
