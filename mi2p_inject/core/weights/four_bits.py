"""Weights of bitsandbytes in 4 bits, whose state is read without changing the model.

On a CPU with bfloat16 instructions bitsandbytes rearranges such a weight when it is first run in evaluation, and rounds
its scales. `state_dict()` takes that back in the model itself, and not exactly: the scales stay rounded, or in the
other order, so that the next forward gives other numbers (bitsandbytes 0.50). The codes of 4 bits come back exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["codes_of", "state_without_scales", "unchanged"]


def codes_of(model: nn.Module) -> set[str]:
    """Names of the weights in 4 bits, whose codes nothing trains."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, weight in named if _state(weight) is not None}


def state_without_scales(model: nn.Module) -> dict[str, Any]:
    """The model's `state_dict()`, without what belongs to weights in 4 bits beside their codes."""
    with unchanged(model):
        state: dict[str, Any] = model.state_dict()
    scales = tuple(f"{name}." for name in codes_of(model))
    return {key: value for key, value in state.items() if not key.startswith(scales)} if scales else state


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put rearranged weights back as they were on the way out."""
    kept = [
        (weight, weight.data, state, dict(vars(state)))
        for weight in model.parameters()
        if getattr(state := _state(weight), "packing_format_for_cpu", False)
    ]
    try:
        yield
    finally:
        for weight, data, state, attributes in kept:
            weight.data = data
            vars(state).clear()
            vars(state).update(attributes)


def _state(weight: Tensor) -> Any:
    return getattr(weight, "quant_state", None)
