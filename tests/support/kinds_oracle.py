"""The formulas of the unit kinds beside MI2P, literally: one sample, one position, one head at a time.

Only the parameters are taken from a unit; nothing is batched, masked or fused.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mi2p_inject.units.cross_attention import CrossAttentionUnit
from mi2p_inject.units.film import FiLMUnit
from mi2p_inject.units.mmtm import MMTMUnit

Literal = Callable[..., Tensor]


def cross_attention(unit: CrossAttentionUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """For each pixel or token of the site and each head: a softmax over the source's, written as its sum."""
    residual = torch.zeros_like(view)
    places = [(row, where) for row in range(len(view)) for where in positions(view[0])]
    for row, where in places:
        read = real_positions(source[row], None if mask is None else mask[row])
        if not read:
            continue
        if unit.source_norm:
            read = [norm(one) for one in read]
        query = linear(unit.site_to_queries, norm(at(view[row], where)))
        keys = [linear(unit.source_to_keys, one) for one in read]
        values = [linear(unit.source_to_values, one) for one in read]
        size = len(query) // unit.num_heads
        heads = []
        for head in range(unit.num_heads):
            own = slice(head * size, (head + 1) * size)
            weights = [torch.exp(query[own] @ key[own] / math.sqrt(size)) for key in keys]
            heads.append(sum(w * value[own] for w, value in zip(weights, values, strict=True)) / sum(weights))
        put(residual[row], where, linear(unit.heads_to_site, torch.cat(heads)))
    return residual


def cross_attention_weights(
    unit: CrossAttentionUnit, view: Tensor, source: Tensor, mask: Tensor | None = None
) -> Tensor:
    """exp(q·k/√d) over their sum, for each sample, head, position of the site and position of the source."""
    sites, sources = positions(view[0]), positions(source[0])
    weights = torch.zeros(len(view), unit.num_heads, len(sites), len(sources), dtype=view.dtype)
    for row in range(len(view)):
        real = [number for number, _ in enumerate(sources) if mask is None or mask[row][number]]
        for place, where in enumerate(sites):
            query = linear(unit.site_to_queries, norm(at(view[row], where)))
            size = len(query) // unit.num_heads
            for head in range(unit.num_heads):
                own, total = slice(head * size, (head + 1) * size), torch.zeros(())
                for number in real:
                    read = at(source[row], sources[number])
                    key = linear(unit.source_to_keys, norm(read) if unit.source_norm else read)
                    weights[row, head, place, number] = torch.exp(query[own] @ key[own] / math.sqrt(size))
                    total = total + weights[row, head, place, number]
                if real:
                    weights[row, head, place] /= total
    return weights


def film(unit: FiLMUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each number of channel c: scale_c · x + shift_c, both from the source's mean."""
    residual = torch.zeros_like(view)
    for row in range(len(view)):
        read = real_positions(source[row], None if mask is None else mask[row])
        if not read:
            continue
        pooled = sum(read) / len(read)
        if unit.source_norm:
            pooled = norm(pooled)
        for where in positions(view[row]):
            own = linear(unit.source_to_shift, pooled)
            if unit.source_to_scale is not None:
                own = own + linear(unit.source_to_scale, pooled) * at(view[row], where)
            put(residual[row], where, own)
    return residual


def mmtm(unit: MMTMUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each channel times its gate 2σ(E_c), minus itself."""
    residual = torch.zeros_like(view)
    for row in range(len(view)):
        read = real_positions(source[row], None if mask is None else mask[row])
        if not read:
            continue
        pooled = sum(read) / len(read)
        if unit.source_norm:
            pooled = norm(pooled)
        squeezed = torch.stack([channel.sum() / channel.numel() for channel in view[row]])
        joint = linear(unit.squeeze, torch.cat([squeezed, pooled]))
        excited = linear(unit.excite, torch.stack([max(number, 0 * number) for number in joint]))
        for channel in range(view.shape[1]):
            gate = 2 / (1 + torch.exp(-excited[channel]))
            residual[row, channel] = gate * view[row, channel] - view[row, channel]
    return residual


ORACLES: dict[str, Literal] = {"cross-attention": cross_attention, "film": film, "mmtm": mmtm}
"""Kind -> formula. The kind "mi2p" has its own: tests/support/oracle.py."""


def linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    product = layer.weight @ x
    return product if layer.bias is None else product + layer.bias


def norm(x: Tensor) -> Tensor:
    """Layer normalisation: mean 0, variance 1."""
    centred = x - x.sum() / len(x)
    return centred / torch.sqrt((centred**2).sum() / len(x) + 1e-5)


def positions(one: Tensor) -> list[tuple[int, ...]]:
    """Where a sample has vectors: (y, x) of a map (C, H, W), (l,) of tokens (L, D)."""
    if one.dim() == 2:
        return [(place,) for place in range(one.shape[0])]
    return [(y, x) for y in range(one.shape[1]) for x in range(one.shape[2])]


def at(one: Tensor, where: tuple[int, ...]) -> Tensor:
    return one[where[0]] if one.dim() == 2 else one[:, where[0], where[1]]


def put(one: Tensor, where: tuple[int, ...], vector: Tensor) -> None:
    if one.dim() == 2:
        one[where[0]] = vector
    else:
        one[:, where[0], where[1]] = vector


def real_positions(one: Tensor, mask: Tensor | None) -> list[Tensor]:
    return [at(one, where) for where in positions(one) if mask is None or mask[where[0]]]
