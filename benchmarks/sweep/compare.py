"""What the contract compares: outputs, rows of outputs, and the state of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.inputs import tensors_in
from mi2p_inject.inspection.preserve import HOOKS

TOLERANCE = 1e-3
"""Of rows computed in another place of the batch, relative to the largest number: other kernels, other rounding."""


class BrokenError(Exception):
    """A promise of the contract that this model breaks without an error."""


def promise(kept: bool, which: str) -> None:
    """Raise `BrokenError` with the promise that is not kept."""
    if not kept:
        raise BrokenError(which)


def floats(output: Any) -> list[Tensor]:
    """The floating tensors of a model's output."""
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]


def same(one: Any, other: Any) -> bool:
    """Bit for bit, NaN equal to NaN."""
    ours, theirs = tensors_in(one), tensors_in(other)
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and bool(((a == b) | (a != a) & (b != b)).all()) for a, b in zip(ours, theirs, strict=True)
    )


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding."""
    scale = float(other.abs().max()) or 1.0
    return one.shape == other.shape and bool(((one - other).abs() <= TOLERANCE * scale).all())


def second_rows_differ(output: Any, other: Any, rows: int) -> bool | None:
    """Whether two outputs differ in row 1 of the batch; None where no tensor has a batch axis."""
    pairs = [(one, two, batch_axis(one, rows)) for one, two in zip(floats(output), floats(other), strict=True)]
    known = [(one.narrow(axis, 1, 1), two.narrow(axis, 1, 1)) for one, two, axis in pairs if axis is not None]
    return any(not torch.equal(one, two) for one, two in known) if known else None


def batch_axis(tensor: Tensor, rows: int) -> int | None:
    """The axis as long as the batch: the first one, or the only one."""
    found = [axis for axis, size in enumerate(tensor.shape) if size == rows]
    return found[0] if len(found) == 1 or (found and found[0] == 0) else None


class State:
    """All of a model but its values that injection must give back, taken before."""

    def __init__(self, model: nn.Module) -> None:
        self.keys, self.cls = list(model.state_dict()), type(model)
        self.modes = [module.training for module in model.modules()]
        self.wants = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
        self.hooks = hooks_of(model)

    def check(self, model: nn.Module, values_of: nn.Module) -> None:
        """The model is as it was, its values those of another that has run alike.

        Raises:
            BrokenError: it is not.
        """
        promise(type(model) is self.cls, "eject: another class")
        promise(list(model.state_dict()) == self.keys, "eject: other names in the state_dict")
        modes = [module.training for module in model.modules()]
        alike = [module.training for module in values_of.modules()]  # some models replace modules of theirs as they run
        promise(modes in (self.modes, alike), "eject: other training modes")
        wants = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
        promise(wants == self.wants, "eject: other parameters, or another requires_grad")
        promise(hooks_of(model) == self.hooks, "eject: hooks stay behind")
        promise(_sums(model) == _sums(values_of), "eject: changed values")


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


def hooks_of(model: nn.Module) -> list[int]:
    """The identity of every hook, in the order of the modules."""
    return [id(hook) for module in model.modules() for table in HOOKS for hook in getattr(module, table).values()]


def _sums(model: nn.Module) -> list[str]:
    """A check sum of each parameter and buffer; as text, so that NaN equals NaN."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_complex()]
    return [f"{tensor.double().sum()} {tensor.double().abs().sum()}" for tensor in tensors]
