"""The models that are trained and compared: one class a kind, one table, open to kinds of other distributions."""

from __future__ import annotations

from mi2p_inject.recipes.systems.base import PRETRAINED, Batch, FrozenSource, Group, System, SystemModel
from mi2p_inject.recipes.systems.branches import Branches
from mi2p_inject.recipes.systems.build import build_system
from mi2p_inject.recipes.systems.table import ENTRY_POINT_GROUP, SYSTEMS

__all__ = [
    "ENTRY_POINT_GROUP",
    "PRETRAINED",
    "SYSTEMS",
    "Batch",
    "Branches",
    "FrozenSource",
    "Group",
    "System",
    "SystemModel",
    "build_system",
]
