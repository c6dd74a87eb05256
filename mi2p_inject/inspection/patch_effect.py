"""Whether the patches of a site reach the output: a head on the class token alone ignores those of the last block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from mi2p_inject.core.inputs import Inputs, tensors_in
from mi2p_inject.core.layout import Layout
from mi2p_inject.core.offload import computing_device
from mi2p_inject.inspection.preserve import left_as_is

__all__ = ["ignored_patches"]


def ignored_patches(model: nn.Module, layouts: dict[str, Layout], inputs: Inputs) -> list[str]:
    """Sites whose patch tokens reach the model's output nowhere, while their prefix tokens do.

    One real forward and backward of one sample, with a zero added to each hidden state whose gradient is read: exactly
    zero on every patch and not on the prefix means that a residual there would be lost. The graph alone cannot tell
    (the class token is a slice of the same tensor), and values cannot mislead: both parts are of one tensor.

    Args:
        model: the model; left as it was. On the meta device nothing can be run, and nothing is reported.
        layouts: sites by path; only those with prefix tokens are looked at.
        inputs: example inputs.
    """
    paths = [path for path, layout in layouts.items() if layout.prefix and layout.grid]
    device = computing_device(model)
    if not paths or device.type == "meta":
        return []
    listeners = [_ZeroProbe(layouts[path], path) for path in paths]
    try:
        with left_as_is(model), torch.enable_grad():
            for path, listener in zip(paths, listeners, strict=True):
                model.get_submodule(path).register_forward_hook(listener)
            args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: _one_sample(tensor).to(device), inputs)
            output = functional_call(model, _without_zeros(model), args, kwargs)
            reached = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
            grads = _gradients(reached, [one.zero for one in listeners])
    except Exception:  # it does not run here (memory, a kernel that is not there): nothing is known
        return []
    return [path for path, grad in zip(paths, grads, strict=True) if _only_prefix(grad, layouts[path])]


def _one_sample(tensor: Tensor) -> Tensor:
    return tensor[:1] if tensor.dim() else tensor


def _without_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Small noise in place of parameters that are all zero: a head that starts at zero passes no gradient."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.02 * torch.randn(parameter.shape, generator=generator)).to(parameter)
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not parameter.is_meta and not parameter.detach().any()
    }


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
    mixed = [(leaf.float() * torch.randn(leaf.shape, generator=generator).to(leaf.device)).sum() for leaf in outputs]
    return torch.autograd.grad(torch.stack(mixed).sum(), zeros, allow_unused=True) if mixed else [None] * len(zeros)


def _only_prefix(grad: Tensor | None, layout: Layout) -> bool:
    if grad is None:
        return False
    # `as_tokens` views are batch-first whatever the axes
    return bool(grad[:, : layout.prefix].any()) and not bool(grad[:, layout.prefix :].any())
