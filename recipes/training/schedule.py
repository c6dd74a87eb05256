"""How long a training lasts."""

from __future__ import annotations

import math

import accelerate

from mi2p_inject.recipes.config import OptimisationConfig

__all__ = ["USUAL_EPOCHS", "epochs_of", "least_steps"]

USUAL_EPOCHS = 10


def epochs_of(config: OptimisationConfig, samples: int) -> int:
    """Passes over the training split: those that are asked for, or enough for ``min_steps`` steps.

    Args:
        config: says how many, or leaves it open.
        samples: of the training split.

    Example:
        >>> epochs_of(OptimisationConfig(epochs=2), 100), epochs_of(OptimisationConfig(), 64)
        (2, 150)
    """
    if config.epochs is not None:
        return config.epochs
    processes = int(accelerate.PartialState().num_processes)
    batch = config.batch_size * config.gradient_accumulation_steps * processes
    return max(USUAL_EPOCHS, math.ceil(config.min_steps / math.ceil(samples / batch)))


def least_steps(config: OptimisationConfig) -> int:
    """Optimizer steps before which a training does not end early: none where epochs were asked for."""
    return config.min_steps if config.epochs is None else 0
