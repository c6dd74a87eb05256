"""The paper's formulas, literally: slow, obviously right, and independent of the library's code.

Only the parameters are taken from a unit; every operation is written out as sections 3.3 says it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mi2p_inject.units.mi2p import MI2PUnit


def literal(unit: MI2PUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """Equation 1 or 2 with every tensor formed: head by head, convolutions over whole maps, all keys and values."""
    heads, d_k = unit.heads, unit.d_k
    queries = embed(view, unit.query.project, getattr(unit.query, "identity", None))
    keys = embed(source, unit.key.project, getattr(unit.key, "identity", None))
    values = value(source, unit)
    d_v = values.shape[2] // heads
    rows = []
    for row in range(len(view)):
        if mask is not None and not mask[row].any():
            rows.append(torch.zeros(queries.shape[1], values.shape[2], dtype=view.dtype))
            continue
        parts = []
        for head in range(heads):
            q = queries[row, :, head * d_k : (head + 1) * d_k]
            k = keys[row, :, head * d_k : (head + 1) * d_k]
            v = values[row, :, head * d_v : (head + 1) * d_v]
            if mask is not None:
                k, v = k[mask[row]], v[mask[row]]
            parts.append(torch.softmax(q @ k.T / math.sqrt(d_k), dim=-1) @ v)
        rows.append(torch.cat(parts, dim=-1))
    out = torch.stack(rows)
    if unit.project is not None:
        out = unit.project(out)
        if mask is not None:
            out = out * mask.any(1)[:, None, None]
    out = out.reshape(len(view), -1, *unit.site.grid) if unit.site.grid else out
    return unit.gate(out) if unit.gate is not None else out


def embed(view: Tensor, project: torch.nn.Linear, identity: Tensor | None) -> Tensor:
    """Query or key of every token: a linear map of tokens; of a map, kernels convolved over each channel, averaged."""
    if view.dim() == 3:
        return F.linear(view, project.weight, project.bias)
    k = math.isqrt(project.weight.shape[1])
    kernels = project.weight.reshape(-1, 1, k, k)
    per_channel = [
        F.conv2d(view[:, c : c + 1], kernels, project.bias, padding=k // 2).mean((2, 3)) for c in range(view.shape[1])
    ]
    embedded = torch.stack(per_channel, dim=1)
    return embedded if identity is None else embedded + identity


def value(source: Tensor, unit: MI2PUnit) -> Tensor:
    """Value of every token: a linear map of its numbers, for a map those of its H·W pixels."""
    flat = source if source.dim() == 3 else source.flatten(2)
    values = F.linear(flat, unit.value.project.weight, unit.value.project.bias)
    identity = getattr(unit.value, "identity", None)
    if identity is None:
        return values
    if source.dim() == 4:
        means = source.mean((2, 3))
        centred = means - means.mean(1, keepdim=True)
        strengths = centred / (centred.square().mean(1, keepdim=True) + 1e-8).sqrt()
        return values + source.shape[1] ** 0.5 * strengths.unsqueeze(-1) * identity
    return values + identity
