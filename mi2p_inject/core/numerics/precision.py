"""In which precision units compute. float16 ends at 65,504: scores, and sums over a wide token, reach that.

bfloat16 has the range of float32 and is left as it is.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

__all__ = ["autocast_dtype", "compute_dtype", "floating_dtype", "full_range", "saturated"]

_WITH_AUTOCAST = frozenset(device for device in ("cpu", "cuda") if torch.amp.is_autocast_available(device))
"""Known in advance: torch 2.6 compiles no call of `is_autocast_available`."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that weights of `dtype` are computed with: float32 for float16, else the same.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.precision import compute_dtype
        >>> compute_dtype(torch.float16), compute_dtype(torch.bfloat16)
        (torch.float32, torch.bfloat16)
    """
    return torch.float32 if dtype == torch.float16 else dtype


def floating_dtype(module: nn.Module) -> torch.dtype:
    """The dtype that a module computes in: that of its first floating parameter of 16 bits or more, else float32.

    Weights of 8 and 4 bits, as quantisation puts them in place of others, are stored in another one.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.precision import floating_dtype
        >>> floating_dtype(torch.nn.Linear(2, 2).bfloat16())
        torch.bfloat16
    """
    for parameter in module.parameters():
        if parameter.is_floating_point() and parameter.itemsize >= 2:
            return parameter.dtype
    return torch.float32


def saturated(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` in another dtype; what float16 cannot hold ends at its last number, 65,504.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.precision import saturated
        >>> saturated(torch.tensor([1e9, -2.0]), torch.float16)
        tensor([ 6.5504e+04, -2.0000e+00], dtype=torch.float16)
    """
    if dtype != torch.float16 or tensor.dtype == dtype:
        return tensor.to(dtype)
    largest = torch.finfo(dtype).max
    return tensor.clamp(-largest, largest).to(dtype)


def full_range(like: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast to float16 is off on a tensor's device; autocast to bfloat16 stays.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.precision import full_range
        >>> x = torch.randn(2, 2)
        >>> with torch.autocast("cpu", torch.float16), full_range(x):
        ...     (x @ x).dtype
        torch.float32
    """
    if autocast_dtype(like) != torch.float16:
        return contextlib.nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def autocast_dtype(like: Tensor) -> torch.dtype | None:
    """The dtype that autocast computes in on a tensor's device; None where it is off.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.precision import autocast_dtype
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     autocast_dtype(torch.zeros(1))
        torch.bfloat16
    """
    device = like.device.type
    available = device in _WITH_AUTOCAST or torch.amp.is_autocast_available(device)
    return torch.get_autocast_dtype(device) if available and torch.is_autocast_enabled(device) else None
