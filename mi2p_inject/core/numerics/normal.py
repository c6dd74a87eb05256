"""Random numbers of a generator, wherever new tensors are made by default."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["normal"]


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal numbers where the generator is; `torch.randn` takes the default device, which may be another.

    Examples:
        >>> normal([2, 3], torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    return torch.randn(shape, generator=generator, device=generator.device)
