"""What a swept model is fed, and how it is woken up and run."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.core.inputs import Inputs
from mi2p_inject.inspection.vary_inputs import image_size, is_image

SMALLEST_IMAGE, LARGE_IMAGE = 96, 256
FIRST_PLAIN_ID = 5
"""Ids below are special (padding, start, end) in nearly every vocabulary."""
FALLBACK_VOCABULARY = 32


def real_inputs(model: nn.Module, example: Inputs) -> Inputs:
    """The shapes of `example` with random content; images at half the size (large ones at less) if the model runs."""
    filled = _filled(model, example)
    size = image_size(filled)
    while size is not None and min(size) // 2 >= SMALLEST_IMAGE:
        smaller: Inputs = pytree.tree_map_only(
            Tensor, lambda tensor: tensor[..., ::2, ::2].contiguous() if is_image(tensor) else tensor, filled
        )
        try:
            with torch.no_grad():
                model(*smaller[0], **smaller[1])
        except Exception:  # a model of one size
            return filled
        filled, size = smaller, image_size(smaller)
        if size is None or max(size) <= LARGE_IMAGE:
            return filled
    return filled


def randomize_zero_parameters(model: nn.Module, inputs: Inputs) -> None:
    """Make random weights behave like trained ones where it matters: nothing can be heard behind zeros.

    Parameters that start (almost) at zero get random numbers, and batch norms the statistics of one batch: with those
    they start with, the signal of a deep network dies on its way.
    """
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.abs().max() < 1e-3:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        with contextlib.suppress(Exception):  # one value a channel
            run(model, inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def run(model: nn.Module, inputs: Inputs, **more: Any) -> Any:
    """One forward on copies of the inputs, whatever draws at random starting from one seed."""
    seeded()
    args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.clone(), inputs)
    return model(*args, **kwargs, **more)


def seeded() -> None:
    """One start for whatever draws: torch, the standard library, NumPy."""
    torch.manual_seed(0)
    random.seed(0)
    with contextlib.suppress(ModuleNotFoundError):
        import numpy

        numpy.random.seed(0)


def _filled(model: nn.Module, example: Inputs) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    vocabulary = vocabulary_of(model)

    def fill(name: str, given: Any) -> Any:
        if not isinstance(given, Tensor):
            return given
        if given.is_floating_point():
            return torch.randn(given.shape, generator=generator).to(given.dtype)
        if given.dtype == torch.long and (not name or name.endswith("input_ids")):
            ids = torch.randint(min(FIRST_PLAIN_ID, vocabulary - 2), vocabulary - 1, given.shape, generator=generator)
            return torch.where(given == given[:, :1], ids, given)  # any other is special: an end of the text
        return given.clone()  # masks, shapes

    args, kwargs = example
    return tuple(fill("", value) for value in args), {name: fill(name, value) for name, value in kwargs.items()}


def vocabulary_of(model: nn.Module) -> int:
    """The size of the model's smallest table of at least ten embedded ids; a fallback where there is none."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):
        table = None
    size = getattr(table, "num_embeddings", None) or getattr(model, "vocab_size", None)
    return int(size) if isinstance(size, int) and size > FIRST_PLAIN_ID + 2 else FALLBACK_VOCABULARY
