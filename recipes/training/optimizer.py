"""The optimizer's parameter groups: a learning rate for each origin, decay for matrices and kernels only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from mi2p_inject.core.registry import closest
from mi2p_inject.recipes.config import OptimisationConfig
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems import Group, SystemModel

__all__ = ["make_optimizer", "optimizer_groups"]

_KINDS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def make_optimizer(model: SystemModel, config: OptimisationConfig) -> torch.optim.Optimizer:
    """The optimizer that a configuration names, over what trains."""
    made: torch.optim.Optimizer = _KINDS[config.optimizer](optimizer_groups(model, config))  # type: ignore[call-arg]
    return made


def optimizer_groups(model: SystemModel, config: OptimisationConfig) -> list[dict[str, Any]]:
    """The parameters that train, each with its learning rate and decay, as torch's optimizers take them.

    Args:
        model: says where its parameters come from; not wrapped.
        config: the rates and the decay.

    Raises:
        RecipeError: the model says of a parameter that trains no group, or one that there is not.
    """
    rates: dict[Group, float] = {
        "image": config.vision_learning_rate or config.learning_rate,
        "text": config.text_learning_rate or config.learning_rate,
        "image_units": config.unit_learning_rate or config.new_learning_rate,
        "text_units": config.unit_learning_rate or config.new_learning_rate / 3,
        "new": config.new_learning_rate,
    }
    of = model.parameter_groups()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates[_group(model, of, name, rates)], decay), []).append(parameter)
    return [{"params": listed, "lr": rate, "weight_decay": decay} for (rate, decay), listed in groups.items()]


def _group(model: SystemModel, of: Mapping[str, Group], name: str, groups: Collection[Group]) -> Group:
    if name not in of or of[name] not in groups:
        given = f"{of[name]!r} for {name}" if name in of else f"nothing for {name}, which trains"
        fix = closest(str(of[name]), [*groups]) if name in of else "name it there, or let it not require gradients"
        raise RecipeError(
            f"{type(model).__name__}.parameter_groups does not say which rate a parameter has",
            expected=f"{', '.join(groups)} for each parameter that trains",
            given=given,
            fix=fix,
        )
    return of[name]
