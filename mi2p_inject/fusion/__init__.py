"""Late fusion: one final class per strategy, gathered in `FUSIONS`."""

from __future__ import annotations

from mi2p_inject.fusion.base import Fusion
from mi2p_inject.fusion.build import build_fusion, fusion_options
from mi2p_inject.fusion.compact_bilinear import CompactBilinearFusion
from mi2p_inject.fusion.concat import ConcatFusion
from mi2p_inject.fusion.cross_attention import CrossAttentionFusion
from mi2p_inject.fusion.gated_bilinear import GatedBilinearFusion
from mi2p_inject.fusion.gmu import GMUFusion
from mi2p_inject.fusion.score import ScoreFusion, mean_scores
from mi2p_inject.fusion.table import ENTRY_POINT_GROUP, FUSIONS

__all__ = [
    "ENTRY_POINT_GROUP",
    "FUSIONS",
    "CompactBilinearFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "Fusion",
    "GMUFusion",
    "GatedBilinearFusion",
    "ScoreFusion",
    "build_fusion",
    "fusion_options",
    "mean_scores",
]
