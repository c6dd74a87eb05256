"""Whether the patches of a site reach the output: a head on the class token alone ignores those of the last block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from mi2p_inject.core.errors import ProbeError
from mi2p_inject.core.inputs import Inputs, tensors_in
from mi2p_inject.core.layout import Layout
from mi2p_inject.core.numerics.normal import normal
from mi2p_inject.core.weights.offload import computing_device, offloaded
from mi2p_inject.inspection.preserve import left_as_is

__all__ = ["Reads", "ignored_patches"]

Reads = Callable[[Any], Any]
"""What is read of a model's output: the output -> tensors."""


def ignored_patches(
    model: nn.Module, layouts: dict[str, Layout], inputs: Inputs, reads: Reads | None = None
) -> list[str]:
    """Sites whose patch tokens reach the model's output nowhere, while their prefix tokens do.

    One real forward and backward of one sample, with a zero added to each hidden state whose gradient is read: exactly
    zero on every patch and not on the prefix means that a residual there would be lost. The graph alone cannot tell
    (the class token is a slice of the same tensor), and values cannot mislead: both parts are of one tensor.

    Args:
        model: the model; left as it was. Weights on the meta device have random ones in their place that take next to
            no memory, as what is exactly zero does not depend on them: the same sites are found.
        layouts: sites by path; only those with prefix tokens are looked at.
        inputs: example inputs, on any device.
        reads: what is read of the output; None: all of it.

    Raises:
        ProbeError: `reads` finds no tensor in the output.
    """
    paths = [path for path, layout in layouts.items() if layout.prefix and layout.grid]
    if not paths:
        return []
    device = computing_device(model)
    device = torch.device("cpu") if device.type == "meta" else device
    listeners = [_ZeroProbe(layouts[path], path) for path in paths]
    try:
        with left_as_is(model), torch.enable_grad():
            for path, listener in zip(paths, listeners, strict=True):
                model.get_submodule(path).register_forward_hook(listener)
            args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: _one_sample(tensor, device), inputs)
            output = functional_call(model, {**_without_zeros(model), **_stand_ins(model, device)}, args, kwargs)
            reached = [tensor for tensor in _read(output, reads) if tensor.requires_grad]
            grads = _gradients(reached, [one.zero for one in listeners])
    except ProbeError:
        raise
    except Exception:  # it does not run here (memory, a kernel that is not there): nothing is known
        return []
    return [path for path, grad in zip(paths, grads, strict=True) if _only_prefix(grad, layouts[path])]


def _read(output: Any, reads: Reads | None) -> list[Tensor]:
    if reads is None:
        return tensors_in(output)
    given = f"{type(output).__name__} of {[tuple(one.shape) for one in tensors_in(output)]}"
    cause = None
    try:
        if found := tensors_in(reads(output)):
            return found
    except Exception as error:  # whatever a function of the user's raises
        cause, given = error, f"{type(error).__name__}: {error}, for {given}"
    raise ProbeError(
        "reads= finds no tensor in the model's output",
        expected="a function of it, such as lambda output: output.last_hidden_state[:, 0]",
        given=given,
        fix="correct reads=, or leave it out where all of the output is read",
    ) from cause


def _one_sample(tensor: Tensor, device: torch.device) -> Tensor:
    one = tensor[:1] if tensor.dim() else tensor
    return _random(one, torch.Generator().manual_seed(0)).to(device) if one.is_meta else one.to(device)


def _without_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Small noise in place of parameters that are all zero: a head that starts at zero passes no gradient."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.02 * normal(parameter.shape, generator)).to(parameter)
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not parameter.is_meta and not parameter.detach().any()
    }


def _stand_ins(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """What takes the place of weights that are nowhere; accelerate brings those that it keeps elsewhere."""
    if offloaded(model):
        return {}
    generator = torch.Generator().manual_seed(0)
    buffers = {name: _random(one, generator).to(device) for name, one in model.named_buffers() if one.is_meta}
    missing = {name: one for name, one in model.named_parameters() if one.is_meta}
    return buffers | {
        name: _random(one, generator).to(device).requires_grad_(one.is_floating_point())
        for name, one in missing.items()
    }


def _random(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A tensor of this shape: indices are 0, masks True, norms near 1, weights random and as large as those of a layer.

    The rows of a weight overlap in memory, each begins one number after the one before: n x m of them take n + m - 1.
    """
    shape = tensor.shape
    if tensor.dtype == torch.bool:
        return torch.ones(shape, dtype=torch.bool, device="cpu")
    if not tensor.is_floating_point():
        return torch.zeros(shape, dtype=tensor.dtype, device="cpu")
    if len(shape) < 2 or not tensor.numel():
        return 1 + 0.02 * normal(shape, generator)
    numbers = normal([1 + sum(size - 1 for size in shape)], generator) * math.prod(shape[1:]) ** -0.5
    overlapping: Tensor = numbers.as_strided(shape, [1] * len(shape))
    return overlapping


class _ZeroProbe:
    """Adds a zero to a hidden state and keeps it, to ask for its gradient."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout, self.path, self.zero = layout.as_tokens(), path, torch.empty(0)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.zero = torch.zeros_like(self.layout.view(output, self.path), requires_grad=True)
        return self.layout.add(output, self.zero, self.path)


def _gradients(outputs: Sequence[Tensor], zeros: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Gradients of a random mixture of all outputs: a plain sum would vanish behind a normalisation."""
    generator = torch.Generator().manual_seed(0)
    mixed = [(leaf.float() * normal(leaf.shape, generator).to(leaf.device)).sum() for leaf in outputs]
    return torch.autograd.grad(torch.stack(mixed).sum(), zeros, allow_unused=True) if mixed else [None] * len(zeros)


def _only_prefix(grad: Tensor | None, layout: Layout) -> bool:
    if grad is None:
        return False
    # `as_tokens` views are batch-first whatever the axes
    return bool(grad[:, : layout.prefix].any()) and not bool(grad[:, layout.prefix :].any())
