"""The paper's formulas, literally: slow, obviously right, and independent of the library's code.

Only the parameters are taken from a unit; every operation is written out as sections 3.3 says it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mi2p_inject.units.embed import Embedder
from mi2p_inject.units.mi2p import MI2PUnit


def literal(unit: MI2PUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """Equation 1 or 2 with every tensor formed: head by head, convolutions over whole maps, all keys and values.

    Of a map with a readout r, the last r numbers of a head are u_{c,h}: e_{c,h} · u_{c,h} is added at every pixel of c.
    A pooled shift is added at every pixel or token.
    """
    num_heads, head_dim, readout = unit.num_heads, unit.head_dim, unit.readout
    pooled = pooled_shift(unit, source, mask)
    source = layer_normalised(source) if unit.source_norm else source
    queries = embed(view, unit.site_embedding)
    keys = embed(source, unit.source_key_embedding)
    values = value(source, unit)
    d_v = values.shape[2] // num_heads
    rows, shifts = [], []
    for row in range(len(view)):
        if mask is not None and not mask[row].any():
            rows.append(torch.zeros(queries.shape[1], num_heads * (d_v - readout), dtype=view.dtype))
            shifts.append(torch.zeros(queries.shape[1], dtype=view.dtype))
            continue
        parts, shift = [], torch.zeros(queries.shape[1], dtype=view.dtype)
        for head in range(num_heads):
            q = queries[row, :, head * head_dim : (head + 1) * head_dim]
            k = keys[row, :, head * head_dim : (head + 1) * head_dim]
            v = values[row, :, head * d_v : (head + 1) * d_v]
            if mask is not None:
                k, v = k[mask[row]], v[mask[row]]
            read = torch.softmax(q @ k.T / math.sqrt(head_dim), dim=-1) @ v
            parts.append(read[:, : d_v - readout])
            for number in range(readout):
                e = unit.channel_readout[:, head * readout + number]
                shift = shift + e * read[:, d_v - readout + number]
        rows.append(torch.cat(parts, dim=-1))
        shifts.append(shift)
    out = torch.stack(rows)
    if unit.output_projection is not None:
        out = F.linear(out, unit.output_projection.weight, unit.output_projection.bias)
        if mask is not None:
            out = out * mask.any(1)[:, None, None]
    if unit.site.grid:
        out = out.reshape(len(view), -1, *unit.site.grid)
        if out.shape != view.shape:
            out = F.interpolate(out, view.shape[2:], mode="bilinear", align_corners=False)
        out = out + (torch.stack(shifts) + pooled)[:, :, None, None]
    else:
        out = out + pooled[:, None]
    return unit.zero_gate(out) if unit.zero_gate is not None else out


def literal_weights(unit: MI2PUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√head_dim) of each head and sample, (B, heads, N, M); 0 for padding and in rows of padding only."""
    head_dim = unit.head_dim
    source = layer_normalised(source) if unit.source_norm else source
    queries, keys = embed(view, unit.site_embedding), embed(source, unit.source_key_embedding)
    weights = torch.zeros(len(view), unit.num_heads, queries.shape[1], keys.shape[1], dtype=view.dtype)
    for row in range(len(view)):
        real = torch.ones(keys.shape[1], dtype=torch.bool) if mask is None else mask[row]
        for head in range(unit.num_heads):
            own = slice(head * head_dim, (head + 1) * head_dim)
            for token in range(queries.shape[1]):
                scores = torch.stack(
                    [queries[row, token, own] @ key / math.sqrt(head_dim) for key in keys[row, :, own]]
                )
                exponentials = torch.exp(scores) * real
                if real.any():
                    weights[row, head, token] = exponentials / exponentials.sum()
    return weights


def pooled_shift(unit: MI2PUnit, source: Tensor, mask: Tensor | None) -> Tensor:
    """W · LN(mean of a row's real tokens, or of each channel's pixels) + b, (B, C) or (B, D); 0 without any token."""
    layer = unit.source_to_shift
    shifts = torch.zeros(len(source), unit.site.width, dtype=source.dtype)
    for row in range(len(source) if layer is not None else 0):
        real = source[row] if mask is None else source[row][mask[row]]
        if len(real):
            mean = real.mean((1, 2)) if source.dim() == 4 else real.mean(0)
            mean = layer_normalised(mean[None, None])[0, 0] if len(mean) > 1 else mean
            shifts[row] = layer.weight @ mean + layer.bias
    return shifts


def layer_normalised(tokens: Tensor) -> Tensor:
    """Each token minus the mean of its numbers, divided by their standard deviation."""
    out = torch.zeros_like(tokens)
    for row in range(len(tokens)):
        for place in range(tokens.shape[1]):
            token = tokens[row, place]
            centred = token - token.sum() / len(token)
            out[row, place] = centred / ((centred * centred).sum() / len(token) + 1e-5).sqrt()
    return out


def embed(view: Tensor, embedder: Embedder) -> Tensor:
    """Query or key of every token: a linear map of tokens; of a map, kernels convolved over each channel, averaged."""
    weight, bias = embedder.weight, embedder.bias
    if view.dim() == 3:
        return F.linear(view, weight, bias)
    plain, embedding = parts(embedder)
    k = math.isqrt(plain.shape[1])
    kernels = plain.reshape(-1, 1, k, k)
    per_channel = [
        F.conv2d(view[:, c : c + 1], kernels, bias, padding=k // 2).mean((2, 3)) for c in range(view.shape[1])
    ]
    embedded = torch.stack(per_channel, dim=1)
    return embedded if embedding is None else embedded + embedding


def parts(embedder: Embedder) -> tuple[Tensor, Tensor | None]:
    """The weights that meet the map's numbers, and what each channel's embedding adds (C, out)."""
    weight, learned = embedder.weight, embedder.channel_embedding
    if learned is None:
        return weight, None
    plain = weight.shape[1] - learned.shape[1]
    return weight[:, :plain], learned @ weight[:, plain:].T


def value(source: Tensor, unit: MI2PUnit) -> Tensor:
    """Value of every token: a linear map of its numbers, for a map those of its H·W pixels."""
    weight, embedding = parts(unit.source_value_embedding)
    flat = source if source.dim() == 3 else source.flatten(2)
    values = F.linear(flat, weight, unit.source_value_embedding.bias)
    if embedding is None:
        return values
    means = source.mean((2, 3))
    centred = means - means.mean(1, keepdim=True)
    strengths = centred / (centred.square().mean(1, keepdim=True) + 1e-8).sqrt()
    return values + source.shape[1] ** 0.5 * strengths.unsqueeze(-1) * embedding
