"""Expand any pre-trained unimodal model to two modalities in one line."""

from __future__ import annotations

from mi2p_inject.checkpoint import load as load
from mi2p_inject.errors import Mi2pError as Mi2pError
from mi2p_inject.expanded import ExpandedModel as ExpandedModel
from mi2p_inject.features import SourceFeatures as SourceFeatures
from mi2p_inject.injection import inject as inject
from mi2p_inject.layout import Layout as Layout
from mi2p_inject.units import MI2P as MI2P
from mi2p_inject.views import ViewSpec as ViewSpec

__version__ = "0.1.0"
