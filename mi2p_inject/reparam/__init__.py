"""Re-parameterisation: weights of a model of another modality in place of its features (Multimodal Pathway, M2PT)."""

from __future__ import annotations

from mi2p_inject.reparam.load import load_pathway
from mi2p_inject.reparam.reparameterize import Pathway, pathway

__all__ = ["Pathway", "load_pathway", "pathway"]
