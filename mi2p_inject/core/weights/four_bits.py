"""Weights of bitsandbytes in 4 bits, whose state is read without changing the model.

On a CPU with bfloat16 instructions bitsandbytes rearranges such a weight when it is first run in evaluation, and rounds
its scales. `state_dict()` takes that back in the model itself, and not exactly: the scales stay rounded, or in the
other order, so that the next forward gives other numbers (bitsandbytes 0.50). The codes of 4 bits come back exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["codes_of", "unchanged", "without_scales"]


def codes_of(model: nn.Module) -> set[str]:
    """Names of the weights in 4 bits, whose codes nothing trains."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, weight in named if _state(weight) is not None}


def without_scales(state: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """A state of the model without what belongs to weights in 4 bits beside their codes."""
    scales = tuple(f"{name}." for name in codes_of(model))
    return {key: value for key, value in state.items() if not scales or not key.startswith(scales)}


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
