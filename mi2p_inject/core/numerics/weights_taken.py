"""Attention weights on their way from a unit to whoever records them: see `mi2p_inject.explain.record_attention`.

A unit that attends forms its weights as a whole only while somebody asks for them (`wants_weights`), and hands them
over with `give_weights`. Nobody asks in a graph that is compiled, exported or traced.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

from mi2p_inject.core.numerics.recording import is_recording

__all__ = ["Axis", "give_weights", "taken_weights", "wants_weights"]

Axis = Literal["channels", "pixels", "tokens"]
"""What the queries or the keys of a unit are: channels or pixels of a map, or tokens."""


class _Taken(threading.local):
    weights: list[Tensor] | None = None


_TAKEN = _Taken()


def wants_weights() -> bool:
    """Whether the unit that runs now, in this thread, is to form its weights and hand them over."""
    return not is_recording() and _TAKEN.weights is not None


def give_weights(weights: Tensor) -> None:
    """Hand over attention weights.

    Args:
        weights: (B, heads, queries, keys), each row a distribution; the very tensor that the output is computed from,
            so that the output has a gradient by it.
    """
    if _TAKEN.weights is not None:
        _TAKEN.weights.append(weights)


@contextmanager
def taken_weights() -> Iterator[list[Tensor]]:
    """A block in which this thread's units hand over their weights, to the list it gives.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.weights_taken import give_weights, taken_weights, wants_weights
        >>> with taken_weights() as weights:
        ...     give_weights(torch.ones(1, 1, 2, 1))
        >>> len(weights), wants_weights()
        (1, False)
    """
    outer, _TAKEN.weights = _TAKEN.weights, []
    try:
        yield _TAKEN.weights
    finally:
        _TAKEN.weights = outer
