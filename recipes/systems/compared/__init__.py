"""Systems of the literature that the expanded models are compared with."""

from __future__ import annotations

from mi2p_inject.recipes.systems.compared.mmbt import MMBT

__all__ = ["MMBT"]
