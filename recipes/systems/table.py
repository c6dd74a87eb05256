"""The table of systems, open to those of other distributions."""

from __future__ import annotations

from mi2p_inject.core.registry import Registry
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import System
from mi2p_inject.recipes.systems.branches import Branches
from mi2p_inject.recipes.systems.compared import MMBT, CentralNet, InterBERT, PixelBERT, ViLT, VisualBERT

__all__ = ["ENTRY_POINT_GROUP", "SYSTEMS"]

ENTRY_POINT_GROUP = "mi2p_inject.systems"

SYSTEMS: Registry[System] = Registry(
    "model",
    ENTRY_POINT_GROUP,
    RecipeError,
    lambda given: given if isinstance(given, System) else None,
    "a mi2p_inject.recipes.systems.System",
    {
        "vision": Branches(image="plain"),
        "text": Branches(text="plain"),
        "late-fusion": Branches(image="plain", text="plain"),
        "me-vision": Branches(image="expanded"),
        "me-text": Branches(text="expanded"),
        "me-fusion": Branches(image="expanded", text="expanded"),
        "me-vision+text": Branches(image="expanded", text="plain"),
        "vision+me-text": Branches(image="plain", text="expanded"),
        "centralnet": CentralNet(),
        "mmbt": MMBT(),
        "visualbert": VisualBERT(),
        "pixelbert": PixelBERT(),
        "interbert": InterBERT(),
        "vilt": ViLT(),
    },
)
"""Name, as ``--model`` takes it -> system. A new one is one class and one line here, or an entry point of another
distribution."""
