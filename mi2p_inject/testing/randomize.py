"""Parameters that start at zero, made to matter."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.numerics.normal import normal
from mi2p_inject.testing.inputs import run

__all__ = ["randomize_zero_parameters", "refresh_batch_norm"]

ALMOST_ZERO = 1e-3


def randomize_zero_parameters(module: nn.Module, strength: float = 0.1) -> None:
    """Give parameters that are (almost) zero normal random numbers of a standard deviation.

    Some architectures start as the identity (zero last norms, layer scales of 1e-6), and units start at zero: nothing
    behind them could be observed.

    Args:
        module: a model or units, changed in place.
        strength: the standard deviation.

    Examples:
        >>> import torch
        >>> from mi2p_inject.testing.randomize import randomize_zero_parameters
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = layer.weight.clone()
        >>> _ = torch.nn.init.zeros_(layer.bias)
        >>> randomize_zero_parameters(layer)
        >>> bool(layer.bias.all()), torch.equal(layer.weight, before)
        (True, True)
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.abs().max() < ALMOST_ZERO:
                parameter.copy_(strength * normal(parameter.shape, generator))


def refresh_batch_norm(model: nn.Module, inputs: Inputs) -> None:
    """Give batch norms the statistics of one batch: with those they start with, a deep network's signal vanishes."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with contextlib.suppress(Exception), torch.no_grad():  # one value a channel
        run(model, inputs)
    for norm, (training, momentum) in zip(norms, before, strict=True):
        norm.train(training)
        norm.momentum = momentum
