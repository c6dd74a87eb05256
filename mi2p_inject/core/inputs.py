"""Inputs and outputs of models as trees of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["Inputs", "as_inputs", "on_meta", "tensors_in"]

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""(args, kwargs) of one call of a model."""


def as_inputs(example: Any) -> Inputs:
    """(args, kwargs) from example inputs as a user gives them: a tensor, a tuple or list of them, or a mapping."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def on_meta(inputs: Inputs) -> Inputs:
    """Inputs without their content: shapes and dtypes are what the cost table needs later."""
    kept: Inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    return kept


def tensors_in(output: Any, depth: int = 3) -> list[Tensor]:
    """All tensors of an output, those in the fields of dataclasses and plain objects too."""
    found = []
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif depth and isinstance(getattr(leaf, "__dict__", None), dict) and not isinstance(leaf, (type, nn.Module)):
            found += tensors_in(list(vars(leaf).values()), depth - 1)
        elif depth and is_dataclass(leaf) and not isinstance(leaf, type):  # with slots
            found += tensors_in([getattr(leaf, one.name, None) for one in fields(leaf)], depth - 1)
    return found
