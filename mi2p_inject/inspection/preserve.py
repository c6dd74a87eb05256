"""A real run of somebody's model that leaves no trace in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.inspection.switches import checkpointing_off

__all__ = ["HOOKS", "left_as_is"]

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@contextmanager
def left_as_is(model: nn.Module) -> Iterator[None]:
    """For a real run of somebody's model: eval mode, no hooks but those added inside, no gradient checkpointing.

    Modes, hooks, buffers, plain attributes and the random state are as they were afterwards; hooks added inside go.
    torch's own pre-hooks (weight and spectral norm) stay: the forward needs them.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = [_State(module) for module, _ in modes]
    buffers = [(buffer, buffer.clone(), _version(buffer)) for buffer in model.buffers()]
    try:
        for module, _ in modes:
            module.training = False
            for name in HOOKS:
                table = getattr(module, name)
                for key in [key for key, hook in table.items() if not _is_torchs(name, hook)]:
                    del table[key]
        checkpointing_off(model)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for state in states:
            state.restore()
        for module, training in modes:
            module.training = training
        for buffer, value, version in buffers:
            if version is None or _version(buffer) != version:
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(value)


class _State:
    """The attributes of one module, and what its plain containers held."""

    def __init__(self, module: nn.Module) -> None:
        self.attributes, self.names = vars(module), dict(vars(module))
        self.tables = [(value, _copied(value)) for value in self.names.values() if type(value) in _CONTAINERS]

    def restore(self) -> None:
        for name in [name for name in self.attributes if name not in self.names]:
            del self.attributes[name]
        for name, value in self.names.items():
            if self.attributes.get(name, self) is not value:
                self.attributes[name] = value
        for table, kept in self.tables:
            if isinstance(table, list):
                table[:] = kept
            elif list(table) != list(kept) or any(table[key] is not value for key, value in kept.items()):
                table.clear()
                table.update(kept)


_CONTAINERS = (dict, OrderedDict, list)


def _copied(table: Any) -> Any:
    return list(table) if isinstance(table, list) else dict(table)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _is_torchs(table: str, hook: Any) -> bool:
    if table.endswith("with_kwargs"):  # flags of hooks, by the same ids
        return "pre" in table
    return table == "_forward_pre_hooks" and str(getattr(hook, "__module__", "")).startswith("torch.")
