"""What the time of ME BERT's units is made of: their operations, each run alone in buffers that are there already.

No order of the products has fewer (see `mi2p_inject.units.attention`); what a step takes beyond their sum is
allocation, copies and Python.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import models as m
from benchmarks.measure import seconds_of
from mi2p_inject.units.cpu_kernel.block_parts import product_by_rows

__all__ = ["KINDS", "UNITS", "Part", "all_parts", "parts"]

HEADS, KEYS, WIDTH = 12, 1024, 768
UNITS = 12
KINDS = {"parts": "mi2p", "parts_of_paper": "mi2p-paper"}
"""Name in performance.json -> kind of unit, of benchmarks c and c-paper."""


@dataclass(frozen=True)
class Part:
    """A group of equal operations.

    Attributes:
        name: in the table.
        gigaflops: multiplications and additions of a whole step (12 units, batch 8); 0 where none are counted.
        gigabytes: read and written by a step.
        seconds: of a step.
    """

    name: str
    gigaflops: float
    gigabytes: float
    seconds: float


def parts(kind: str = "mi2p") -> list[Part]:
    """The operations of forward and backward of the twelve units of benchmark c; for a fresh process.

    Args:
        kind: of unit; one without channel embedding or readout has products of no width in their places.
    """
    unit: Any = m.me_bert(sites=1, unit=kind).unit(m.LAYERS[0])
    of_keys, of_values = unit.source_key_embedding, unit.source_value_embedding
    key, value = of_keys.width, of_values.width
    learned = key - of_keys.given, value - of_values.given
    rows = HEADS * m.TOKENS
    q, k, v = torch.randn(rows, key), torch.randn(KEYS, key), torch.randn(KEYS, value)
    scores, other, above = torch.randn(rows, KEYS), torch.randn(rows, KEYS), torch.randn(rows, value)
    x, w = torch.randn(m.BATCH * m.TOKENS, WIDTH), torch.randn(HEADS * key, WIDTH)
    y = torch.randn(m.BATCH * m.TOKENS, HEADS * key)
    out_q, out_k, out_v = torch.empty(rows, key), torch.empty(learned[0], KEYS), torch.empty(learned[1], KEYS)
    out_a, out_y, out_x, out_w = torch.empty(rows, value), torch.empty_like(y), torch.empty_like(x), torch.empty_like(w)
    logs = torch.zeros(rows, 1)
    softmax_backward = torch.ops.aten._softmax_backward_data.out
    return [
        _product("QKᵀ, once forward and once backward", 2, q, k.T, scores),
        _product("AV", 1, scores, v, out_a, by_rows=True),
        _product("gradient of A", 1, above, v.T, scores),
        _product("gradient of Q", 1, scores, k, out_q, by_rows=True),
        _product("gradient of the keys' channel embeddings", 1, q[:, : learned[0]].T, scores, out_k),
        _product("gradient of the values' channel embeddings", 1, above[:, : learned[1]].T, scores, out_v),
        _other("exponentials, forward and backward", 2, lambda: torch.exp2(other, out=scores), scores, other),
        _other("their sums", 1, lambda: scores.sum(-1), scores),
        _other("softmax from its logarithms", 1, lambda: scores.sub_(logs), scores, scores),
        _other(
            "backward of softmax", 1,
            lambda: softmax_backward(other, scores, -1, torch.float32, grad_input=other), scores, other, other,
        ),
        _product("queries from the layer's output", 1 / m.BATCH, x, w.T, out_y),
        _product("their gradients", 1 / m.BATCH, y, w, out_x),
        _product("gradient of their weights", 1 / m.BATCH, y.T, x, out_w),
    ]  # fmt: skip


def _product(name: str, times: float, left: Tensor, right: Tensor, out: Tensor, by_rows: bool = False) -> Part:
    flops = 2 * left.shape[0] * left.shape[1] * right.shape[1]
    multiply = product_by_rows if by_rows else lambda a, b, c: torch.mm(a, b, out=c)
    return _part(name, times, lambda: multiply(left, right, out), flops, (left, right, out))


def _other(name: str, times: float, step: Callable[[], object], *touched: Tensor) -> Part:
    return _part(name, times, step, 0, touched)


def _part(name: str, times: float, step: Callable[[], object], flops: int, touched: tuple[Tensor, ...]) -> Part:
    """`times`: how often a sample needs it in one unit."""
    for _ in range(5):
        step()
    seconds = statistics.median(seconds_of(step) for _ in range(40))
    count = times * m.BATCH * UNITS
    return Part(name, count * flops / 1e9, count * sum(one.nbytes for one in touched) / 1e9, count * seconds)


def all_parts() -> dict[str, object]:
    """The parts and the step of BERT-base alone as JSON values; for a fresh process."""
    m.quiet()
    step = m.forward_backward(m.bert(), m.ids())
    step()
    backbone = statistics.median(seconds_of(step) for _ in range(6))
    return {"backbone": backbone, **{name: [vars(part) for part in parts(kind)] for name, kind in KINDS.items()}}
