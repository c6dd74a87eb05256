"""Everything of a model that must be the same after `eject`, taken before `inject`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mi2p_inject.inspection.preserve import HOOKS

__all__ = ["Buffers", "Snapshot", "same_bits"]


class Snapshot:
    """The state of a model: class, signature, names, parameters, flags, modes, hooks, attributes and values.

    Args:
        model: the model; it is not touched.

    Examples:
        >>> import torch
        >>> from mi2p_inject.testing.snapshot import Snapshot
        >>> model = torch.nn.Linear(2, 2)
        >>> before = Snapshot(model)
        >>> list(before.changes(model, model))
        []
        >>> _ = model.train(False)
        >>> list(before.changes(model, torch.nn.Linear(2, 2)))
        ['training modes', 'values of weight, bias']
    """

    def __init__(self, model: nn.Module) -> None:
        self.cls, self.signature, self.keys = type(model), _signature(model), list(model.state_dict())
        self.modes = [module.training for module in model.modules()]
        self.flags = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
        self.hooks = [
            id(hook) for module in model.modules() for name in HOOKS for hook in getattr(module, name).values()
        ]
        self.attributes = [sorted(vars(module)) for module in model.modules()]

    def changes(self, model: nn.Module, twin: nn.Module) -> Iterator[str]:
        """What differs now.

        Args:
            model: the model, later.
            twin: a copy of it from before that ran as often. Some models write buffers and attributes or replace
                modules as they run: what the twin did too is no change.
        """
        now = Snapshot(model)
        if now.cls is not self.cls:
            yield "class"
        if now.signature != self.signature:
            yield "signature of forward"
        if now.keys != self.keys:
            yield "names in the state_dict"
        if now.modes not in (self.modes, [module.training for module in twin.modules()]):
            yield "training modes"
        if [identity for identity, _ in now.flags] != [identity for identity, _ in self.flags]:
            yield "parameters"
        if [flag for _, flag in now.flags] != [flag for _, flag in self.flags]:
            yield "requires_grad"
        if now.hooks != self.hooks:
            yield "hooks"
        if now.attributes not in (self.attributes, [sorted(vars(module)) for module in twin.modules()]):
            yield "attributes of modules"
        if names := _unequal(model, twin):
            yield f"values of {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


class Buffers:
    """The buffers of a model, to undo what a forward in train mode does to running statistics."""

    def __init__(self, model: nn.Module) -> None:
        self.kept = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def restore(self, *models: nn.Module) -> None:
        """Copy them back into the model or copies of it."""
        for model in models:
            for name, buffer in model.named_buffers():
                if name in self.kept and buffer.shape == self.kept[name].shape:
                    buffer.copy_(self.kept[name])


def _signature(model: nn.Module) -> str:
    try:
        return str(inspect.signature(model.forward))
    except (TypeError, ValueError):  # a traced or compiled forward does not tell
        return ""


def _unequal(model: nn.Module, twin: nn.Module) -> list[str]:
    ours = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    theirs = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    return [name for name, value in ours.items() if name not in theirs or not same_bits(value, theirs[name])]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Of any dtype, NaN equal to NaN of the same bits."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    one, other = one.detach(), other.detach()
    if one.layout is not torch.strided or one.is_quantized:
        return bool(torch.equal(one, other))
    return bool(torch.equal(*(tensor.reshape(-1).contiguous().view(torch.uint8) for tensor in (one, other))))
