"""Expand any pre-trained unimodal model to two modalities in one line."""

from __future__ import annotations

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.layout import Layout
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.expansion.expanded_model import ExpandedModel, load
from mi2p_inject.expansion.inject import inject
from mi2p_inject.reparam import Pathway, load_pathway, pathway
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.units import MI2P

__version__ = "0.1.0"

__all__ = [
    "MI2P",
    "ExpandedModel",
    "Layout",
    "Mi2pError",
    "Pathway",
    "SourceFeatures",
    "ViewSpec",
    "__version__",
    "inject",
    "load",
    "load_pathway",
    "pathway",
]


def __dir__() -> list[str]:
    return __all__
