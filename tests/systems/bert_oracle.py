"""BERT, written out in NumPy for one sample: slow, literal, without a library's help."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
State = Mapping[str, Array]


def state_of(model: nn.Module) -> dict[str, Array]:
    return {name: value.detach().double().numpy() for name, value in model.state_dict().items()}


def linear(state: State, name: str, x: Array) -> Array:
    found: Array = x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", np.zeros(1))
    return found


def norm(state: State, name: str, x: Array, eps: float = 1e-12) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Array) -> Array:
    found: Array = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return found


def attention(query: Array, key: Array, value: Array, read: Array, heads: int) -> Array:
    """Scaled dot products of each head; a key that is not read counts for nothing."""
    width = query.shape[1] // heads
    out = np.zeros_like(query)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for token in range(len(query)):
            scores = np.array([query[token, own] @ one[own] / math.sqrt(width) for one in key])
            weights = np.where(read, np.exp(scores - scores[read].max()), 0.0)
            out[token, own] = (weights / weights.sum()) @ value[:, own]
    return out


def layer(state: State, name: str, x: Array, read: Array, heads: int) -> Array:
    """One layer of BERT: (L, D) -> (L, D)."""
    own = f"{name}.attention.self"
    mixed = attention(*(linear(state, f"{own}.{part}", x) for part in ("query", "key", "value")), read, heads)
    x = norm(state, f"{name}.attention.output.LayerNorm", x + linear(state, f"{name}.attention.output.dense", mixed))
    inner = gelu(linear(state, f"{name}.intermediate.dense", x))
    return norm(state, f"{name}.output.LayerNorm", x + linear(state, f"{name}.output.dense", inner))


def embedded(state: State, name: str, words: Array, positions: Any, kind: int) -> Array:
    """Words with positions and a token type, normed."""
    table = f"{name}.embeddings"
    total = words + state[f"{table}.position_embeddings.weight"][list(positions)]
    return norm(state, f"{table}.LayerNorm", total + state[f"{table}.token_type_embeddings.weight"][kind])


def encoded(state: State, name: str, x: Array, read: Any, heads: int = 4, which: range = range(12)) -> Array:
    for number in which:
        x = layer(state, f"{name}.encoder.layer.{number}", x, np.asarray(read, dtype=bool), heads)
    return x


def pooled(state: State, name: str, x: Array) -> Array:
    found: Array = np.tanh(linear(state, f"{name}.pooler.dense", x[0]))
    return found
