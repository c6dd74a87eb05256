"""The pooled vector: one (B, D) vector a sample from an encoder's features, as its adapter says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Pooling
from mi2p_inject.core.errors import LayoutError

__all__ = ["pool"]


def pool(hidden: Tensor, how: Pooling, mask: Tensor | None = None, encoder: nn.Module | None = None) -> Tensor:
    """Reduce features to one vector a sample.

    Args:
        hidden: a map (B, C, H, W), or all tokens (B, L, D), prefix tokens included.
        how: the adapter's `readout.pooled`.
        mask: (B, L), True for real tokens; None: all are real.
        encoder: needed for "bert": its `pooler` is applied to the first token (and left out where it has none).

    Returns:
        (B, C) or (B, D).

    Raises:
        LayoutError: neither a map nor tokens, or a token asked of a map.

    Examples:
        >>> import torch
        >>> from mi2p_inject.adapters import pool
        >>> pool(torch.randn(2, 1024, 7, 7), "mean").shape
        torch.Size([2, 1024])
    """
    if hidden.dim() == 4 and how == "mean":
        return hidden.mean((2, 3))
    if hidden.dim() != 3:
        raise LayoutError(
            f"cannot pool this by {how!r}",
            expected="tokens (B, L, D), or a map (B, C, H, W) by 'mean'",
            given=str(tuple(hidden.shape)),
            fix="pool the encoder's features, not its logits",
        )
    if how == "mean":
        weights = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden.dtype)
        return (hidden * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)
    if how in ("last", "eot"):  # the end-of-text token is the last one that a CLIP mask calls real
        if mask is None:
            return hidden[:, -1]
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), _last_real(mask)]  # len() would fix B
    pooler = getattr(encoder, "pooler", None) if how == "bert" else None
    pooled: Tensor = pooler(hidden) if isinstance(pooler, nn.Module) else hidden[:, 0]
    return pooled


def _last_real(mask: Tensor) -> Tensor:
    """The position of each row's last real token; tokenizers may pad on either side."""
    flipped = mask.flip(1).long().argmax(1)
    return mask.shape[1] - 1 - flipped
