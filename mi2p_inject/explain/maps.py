"""From attention to pictures: where what a word attends to, or is attended to by, is active."""

from __future__ import annotations

import torch
from torch import Tensor

from mi2p_inject.explain.record import SiteAttention

__all__ = ["channel_maps", "effective_count", "token_maps"]


def channel_maps(maps: Tensor) -> Tensor:
    """Where each channel is active, as shares: its positive part, over its sum; zeros for a channel that is nowhere.

    Args:
        maps: (..., H, W).

    Examples:
        >>> import torch
        >>> from mi2p_inject.explain.maps import channel_maps
        >>> channel_maps(torch.tensor([[[-1.0, 1.0], [0.0, 3.0]]]))
        tensor([[[0.0000, 0.2500],
                 [0.0000, 0.7500]]])
    """
    positive = maps.float().clamp_min(0)
    return positive / positive.sum((-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def token_maps(attention: SiteAttention, weights: Tensor, source: Tensor) -> Tensor | None:
    """Each token's map on the picture: (B, L, H, W); None where no side of the attention is a picture's.

    Tokens that attend to channels, or are attended to by channels: the channels' shares over the picture, weighted.
    Tokens that attend to pixels, or are attended to by them: the weights themselves.

    Args:
        attention: one site's, recorded with views=True.
        weights: (B, heads, queries, keys): its weights, or another number for each, such as the evidence of each.
        source: the source's features, (B, C, H, W) or (B, L, D).
    """
    mean, maps = weights.float().mean(1), attention.view
    if attention.queries == "tokens":
        pair, grid, maps = attention.keys, attention.key_grid, source
    elif attention.keys == "tokens":
        pair, grid, mean = attention.queries, attention.query_grid, mean.mT
    else:
        return None
    if pair == "pixels" and grid is not None:
        pixels: Tensor = mean.unflatten(2, grid)
        return pixels
    if pair == "channels" and maps is not None and maps.dim() == 4:
        return torch.einsum("blc,bcyx->blyx", mean, channel_maps(maps))
    return None


def effective_count(weights: Tensor) -> Tensor:
    """Over how many keys attention is spread: e to the entropy, from 1 (one key) to the number of keys (even).

    Args:
        weights: (..., keys) that sum to 1.

    Examples:
        >>> import torch
        >>> from mi2p_inject.explain.maps import effective_count
        >>> effective_count(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]))
        tensor([1., 4.])
    """
    count: Tensor = torch.special.entr(weights.float()).sum(-1).exp()
    return count
