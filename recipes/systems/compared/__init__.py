"""Systems of the literature that the expanded models are compared with."""

from __future__ import annotations

from mi2p_inject.recipes.systems.compared.centralnet import CentralNet
from mi2p_inject.recipes.systems.compared.interbert import InterBERT
from mi2p_inject.recipes.systems.compared.mmbt import MMBT
from mi2p_inject.recipes.systems.compared.pixelbert import PixelBERT
from mi2p_inject.recipes.systems.compared.vilt import ViLT
from mi2p_inject.recipes.systems.compared.visualbert import VisualBERT

__all__ = ["MMBT", "CentralNet", "InterBERT", "PixelBERT", "ViLT", "VisualBERT"]
