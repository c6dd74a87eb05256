"""In which order, and by which kernel, a unit takes the products of its attention: see `units.attention`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mi2p_inject.core.numerics.recording import is_exporting, is_transformed

__all__ = [
    "MANY", "Kernel", "Order", "ScoreOrder", "Sizes", "ValueOrder", "cheapest", "kernel_for", "takes_two_widths",
]  # fmt: skip

ScoreOrder = Literal["projected", "keys", "queries"]
ValueOrder = Literal["projected", "shared"]
Kernel = Literal["plain", "blocks", "fused"]

MANY = 2**19
"""More scores than these are never formed as a whole."""

WIDEST = 128
"""Up to this width a GPU's fused kernels beat scores in its memory even where zeros fill one side to the other's."""


@dataclass(frozen=True)
class Order:
    """How a unit takes its products.

    Attributes:
        scores: see `mi2p_inject.units.attention`.
        values: likewise.
        fused: `scaled_dot_product_attention` fits, which never holds the scores.
        operations: multiplications counted for a batch.
        width: the larger one of queries (and keys) and values.
        large: its scores are many.
    """

    scores: ScoreOrder
    values: ValueOrder
    fused: bool
    operations: int
    width: int
    large: bool = False


@dataclass(frozen=True)
class Sizes:
    """All that the count depends on: a batch, its tokens, the shared columns of each side, the heads.

    `value_dim`: numbers that a head gives a query, those of the channel readout included.
    """

    batch: int
    queries: int
    keys: int
    query_width: int
    key_width: int
    value_width: int
    num_heads: int
    head_dim: int
    value_dim: int


def cheapest(sizes: Sizes) -> Order:
    """The order with the fewest operations.

    Examples:
        >>> from mi2p_inject.units.product_order import Sizes, cheapest
        >>> words_from_picture = Sizes(8, 64, 1024, 769, 32, 64, num_heads=12, head_dim=64, value_dim=64)
        >>> order = cheapest(words_from_picture)
        >>> order.scores, order.values, order.fused
        ('keys', 'shared', False)
        >>> picture_from_words = Sizes(8, 256, 64, 32, 768, 768, num_heads=8, head_dim=64, value_dim=392)
        >>> order = cheapest(picture_from_words)
        >>> order.scores, order.values, order.fused
        ('queries', 'projected', False)
        >>> text_from_text = Sizes(8, 64, 64, 769, 768, 768, num_heads=12, head_dim=64, value_dim=64)
        >>> order = cheapest(text_from_text)
        >>> order.scores, order.values, order.fused
        ('projected', 'projected', True)
    """
    large = sizes.batch * sizes.num_heads * sizes.queries * sizes.keys > MANY
    orders = [
        Order(
            scores,
            values,
            _fuses(*_widths(sizes, scores, values)),
            _score_count(sizes, scores) + _value_count(sizes, values),
            max(_widths(sizes, scores, values)),
            large,
        )
        for scores, values in itertools.product(get_args(ScoreOrder), get_args(ValueOrder))
    ]
    return min(orders, key=lambda order: order.operations)


def kernel_for(order: Order, scores: int, view: Tensor) -> Kernel:
    """Few scores are formed as a whole; many in blocks on a CPU, by a fused kernel elsewhere.

    A graph is compiled for all batches, so it decides by the scores that were counted when the unit was built. Graphs
    that leave this process (`torch.export`, ONNX, `torch.jit.trace`) hold no operator of ours, and transforms of
    `torch.func` know plain operations only.
    """
    device = view.device
    if is_transformed(view):
        return "plain"
    if is_exporting():
        return "fused" if order.fused else "plain"
    many = order.large if torch.compiler.is_compiling() else scores > MANY
    if device.type != "cpu":
        return "fused" if order.fused or (many and order.width <= WIDEST) else "plain"
    if torch.compiler.is_compiling():
        return "blocks" if many else "fused" if order.fused else "plain"
    return "blocks" if many else "plain"


def takes_two_widths(device: torch.device) -> bool:
    """Whether a device's fused kernels are as fast where queries and keys are narrower than values.

    cuDNN's are, which torch takes from compute capability 9 on; it wants queries that are laid out as they come, and
    fails on those of several heads that share memory. Others take a kernel for any width then, which is two to three
    times as slow as filling up with zeros. A graph that is compiled does not ask the device.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return False
    return torch.cuda.get_device_capability(device) >= (9, 0)


def _score_count(sizes: Sizes, order: ScoreOrder) -> int:
    s = sizes
    wide = s.num_heads * s.head_dim
    joint = s.query_width * s.key_width * wide
    if order == "projected":
        return s.batch * wide * (s.queries * s.query_width + s.keys * s.key_width + s.queries * s.keys)
    if order == "keys":
        return joint + s.batch * s.num_heads * s.queries * s.key_width * (s.query_width + s.keys)
    return joint + s.batch * s.num_heads * s.keys * s.query_width * (s.key_width + s.queries)


def _value_count(sizes: Sizes, order: ValueOrder) -> int:
    s = sizes
    if order == "projected":
        return s.batch * s.num_heads * s.value_dim * s.keys * (s.value_width + s.queries)
    return s.batch * s.num_heads * s.queries * s.value_width * (s.keys + s.value_dim)


def _widths(sizes: Sizes, scores: ScoreOrder, values: ValueOrder) -> tuple[int, int]:
    """Of queries and keys, and of values."""
    s = sizes
    return (
        {"projected": s.head_dim, "keys": s.key_width, "queries": s.query_width}[scores],
        s.value_dim if values == "projected" else s.value_width,
    )


def _fuses(keys: int, values: int) -> bool:
    """Where it fits: queries, keys and values are nearly of one width, as fused kernels want."""
    return max(keys, values) <= 1.25 * min(keys, values)
