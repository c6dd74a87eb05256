"""Linear layers that compute float16 weights in float32: one whose weights are used, one that is called."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2p_inject.core.numerics.precision import compute_dtype

__all__ = ["FullRangeLinear", "PlainLinear"]


class PlainLinear(nn.Module):
    """x Wᵀ + b.

    A tool that replaces layers (PEFT's ``target_modules="all-linear"``, weight-only quantisation) would replace an
    `nn.Linear` inside a unit without any effect, where its weights are used and it is never called. It passes over this
    module; to train units beside LoRA, PEFT takes ``modules_to_save=["units"]``.

    Args:
        width: numbers that go in.
        out: numbers that come out.
        bias: whether there is a b.

    Shapes:
        (..., width) -> (..., out).

    Examples:
        >>> import torch
        >>> from mi2p_inject.units.layers.linear import PlainLinear
        >>> PlainLinear(4, 3)(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, width: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, width))
        self.bias = nn.Parameter(torch.empty(out)) if bias else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)  # as nn.Linear's

    def weights(self) -> Tensor:
        """W (out, width), in the dtype it is computed with."""
        return self.weight.to(compute_dtype(self.weight.dtype))

    def biases(self) -> Tensor | None:
        """b (out,), or None; likewise."""
        return None if self.bias is None else self.bias.to(compute_dtype(self.bias.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b."""
        return F.linear(x, self.weights(), self.biases())


class FullRangeLinear(nn.Linear):
    """An `nn.Linear` whose float16 weights are computed with in float32: its sums do not end at 65,504.

    It is called, as any layer, so LoRA and quantisation may replace it.

    Examples:
        >>> import torch
        >>> from mi2p_inject.units.layers.linear import FullRangeLinear
        >>> FullRangeLinear(4, 3).half()(torch.zeros(2, 5, 4)).dtype
        torch.float32
    """

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b."""
        if self.weight.dtype != torch.float16:
            return super().forward(x)
        dtype = compute_dtype(self.weight.dtype)
        return F.linear(x.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))
