"""Expand any pre-trained unimodal model to two modalities in one line."""

from __future__ import annotations

from mi2p_inject.core.errors import Mi2pError as Mi2pError
from mi2p_inject.core.layout import Layout as Layout
from mi2p_inject.core.views import ViewSpec as ViewSpec
from mi2p_inject.expansion.expanded_model import ExpandedModel as ExpandedModel
from mi2p_inject.expansion.inject import inject as inject
from mi2p_inject.expansion.load import load as load
from mi2p_inject.sources.features import SourceFeatures as SourceFeatures
from mi2p_inject.units import MI2P as MI2P

__version__ = "0.1.0"
