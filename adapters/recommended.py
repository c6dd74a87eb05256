"""Which of its default sites a model gets where nobody names layers: the last ones, as a share of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from mi2p_inject.adapters.adapter import Modality

__all__ = ["PAPER", "SHARES", "recommended"]

PAPER = "paper"
"""As ``layers=``: every default site, which is what the paper does."""

#: modality of the backbone -> the share of its default sites, from the last one on, where it is not a third; from a
#: preliminary study, `mi2p table defaults` measures the alternatives
SHARES: dict[Modality, float] = {"text": 1 / 6}
_USUAL = 1 / 3

T = TypeVar("T")


def recommended(sites: Sequence[T], modality: Modality) -> tuple[T, ...]:
    """The last of the default sites; at least one.

    Units early in a pre-trained model change everything that is computed after them, and cost the backward pass through
    it; those at its end reach the output as well.

    Args:
        sites: the default sites in firing order.
        modality: what the backbone reads.

    Examples:
        >>> recommended([f"layer.{i}" for i in range(12)], "text")
        ('layer.10', 'layer.11')
        >>> recommended(["layer1", "layer2", "layer3", "layer4"], "image")
        ('layer4',)
    """
    return tuple(sites[-max(1, round(len(sites) * SHARES.get(modality, _USUAL))) :])
