"""What a checked model runs on: inputs with content, source features, one seed for whatever draws at random."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.numerics.normal import normal
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.vary_inputs import image_size, is_image
from mi2p_inject.sources.features import SourceFeatures

__all__ = [
    "batch_of",
    "features_for",
    "preserved_random_state",
    "real_inputs",
    "reversed_samples",
    "run",
    "seed_everything",
    "vocabulary_of",
]

SMALLEST_IMAGE, LARGE_IMAGE = 96, 256
FIRST_PLAIN_ID = 5
"""Ids below are special (padding, start, end) in nearly every vocabulary."""
FALLBACK_VOCABULARY = 32
LENGTH, PADDED = 5, 2
"""Tokens of a source, and how many of them are padding in every second sample."""
GRID = (3, 4)


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


def features_for(spec: ViewSpec, batch: int, seed: int = 0) -> SourceFeatures:
    """Random source features of a spec; of tokens, some are padding in every second sample."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, spec.width, *(spec.grid or GRID)) if spec.kind == "map" else (batch, LENGTH, spec.width)
    numbers = normal(shape, generator)  # whatever the default device
    if spec.kind == "map":
        return SourceFeatures(numbers)
    mask = torch.ones(batch, LENGTH, dtype=torch.bool, device=generator.device)
    mask[1::2, -PADDED:] = False
    return SourceFeatures(numbers, mask)


def batch_of(inputs: Inputs) -> int:
    """Number of samples: the first axis of the first tensor; 0 where there is no tensor."""
    return next((leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()), 0)


def reversed_samples(inputs: Inputs) -> Inputs:
    """The same samples in reverse order."""
    batch = batch_of(inputs)

    def turn(tensor: Tensor) -> Tensor:
        return tensor.flip(0) if tensor.dim() and tensor.shape[0] == batch else tensor

    turned: Inputs = pytree.tree_map_only(Tensor, turn, inputs)
    return turned


def run(model: nn.Module, inputs: Inputs, **more: Any) -> Any:
    """One forward on copies of the inputs, whatever draws at random starting from one seed."""
    seed_everything()
    args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.clone(), inputs)
    return model(*args, **kwargs, **more)


def seed_everything() -> None:
    """One start for whatever draws: torch, the standard library, NumPy."""
    if torch.accelerator.is_available():
        torch.manual_seed(0)
    else:  # that would format a stack for each kind of device that is not there, for longer than a small forward takes
        torch.default_generator.manual_seed(0)
    random.seed(0)
    with contextlib.suppress(ModuleNotFoundError):
        import numpy

        numpy.random.seed(0)


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Whatever is seeded inside: the caller's random numbers go on as if nothing had been drawn."""
    numpy = sys.modules.get("numpy")
    python, drawn = random.getstate(), numpy.random.get_state() if numpy is not None else None
    try:
        with torch.random.fork_rng(devices=[]):
            seed_everything()
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(drawn)


def vocabulary_of(model: nn.Module) -> int:
    """The size of the model's table of input embeddings; a fallback where it has none of ten ids at least."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):
        table = None
    size = getattr(table, "num_embeddings", None) or getattr(model, "vocab_size", None)
    return int(size) if isinstance(size, int) and size > FIRST_PLAIN_ID + 2 else FALLBACK_VOCABULARY


def _filled(model: nn.Module, example: Inputs) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    vocabulary = vocabulary_of(model)

    def fill(name: str, given: Any) -> Any:
        if not isinstance(given, Tensor):
            return given
        if given.is_floating_point():
            return normal(given.shape, generator).to(given)
        if given.dtype == torch.long and (not name or name.endswith("input_ids")):
            least, shape = min(FIRST_PLAIN_ID, vocabulary - 2), given.shape
            ids = torch.randint(least, vocabulary - 1, shape, generator=generator, device=generator.device)
            return torch.where(given == given[:, :1], ids.to(given), given)  # any other is special: an end of the text
        return given.clone()  # masks, shapes

    args, kwargs = example
    return tuple(fill("", value) for value in args), {name: fill(name, value) for name, value in kwargs.items()}
