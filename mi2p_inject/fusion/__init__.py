"""Late fusion: one final class per strategy, gathered in `FUSIONS`."""

from __future__ import annotations

from mi2p_inject.fusion.base import Fusion as Fusion
from mi2p_inject.fusion.concat import ConcatFusion as ConcatFusion
from mi2p_inject.fusion.cross_attention import CrossAttentionFusion as CrossAttentionFusion
from mi2p_inject.fusion.score import ScoreFusion as ScoreFusion
from mi2p_inject.fusion.score import mean_scores as mean_scores

__all__ = ["FUSIONS", "ConcatFusion", "CrossAttentionFusion", "Fusion", "ScoreFusion", "mean_scores"]

#: name -> class; each is built from the branches' widths and the number of classes
FUSIONS: dict[str, type[Fusion]] = {
    "score": ScoreFusion,
    "concat": ConcatFusion,
    "cross-attention": CrossAttentionFusion,
}
