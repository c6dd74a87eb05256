"""All that decides the shape of an expanded model, besides its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mi2p_inject.core.site import Site
from mi2p_inject.core.views import ViewSpec

if TYPE_CHECKING:
    from mi2p_inject.units.base import UnitConfig

__all__ = ["ExpansionConfig", "Trainable"]

Trainable = Literal["all", "units"]


@dataclass(frozen=True)
class ExpansionConfig:
    """All that decides the shape of an expanded model, besides its weights: what a checkpoint keeps as JSON."""

    sites: tuple[Site, ...]
    unit: UnitConfig
    source: ViewSpec
    num_heads: int
    trainable: Trainable
    strict: bool
    left_out: tuple[str, ...] = ()
    """Default sites without a unit: the model ignores their patches, so a unit there would have no effect."""
